"""Moves a running VM to another host: `Migrator.carry_out(action)`. Called by the command line.

Promises: preconditions are looked at again right before; after the time budget, or when the clock is asked
to stop, the VM goes on where it was; the outcome is what both hosts showed afterwards, and nothing else.
While it runs nobody else may change the VM: libvirt lets such a call wait until the end, and then fails it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from vmpack.act.migration_checks import destination_refusals, source_refusals
from vmpack.act.migration_stats import is_migration, job_stats, progress
from vmpack.act.migration_verdict import Sides, Verdict, cure, judge, told
from vmpack.act.migration_vm import MigrantVm, presence, read_migrant, restore_extras
from vmpack.act.migration_xml import destination_xml
from vmpack.act.pinning import drop_pins, held_pins, put_pins_back
from vmpack.clock import Clock
from vmpack.errors import (
    GuestBusyError,
    GuestGoneError,
    HypervisorError,
    HypervisorLostError,
    VmpackError,
)
from vmpack.hypervisor import MIGRATION_OUT, UNTOLD_JOB, Hypervisor, find_domain, job_name
from vmpack.model.migration import Migrate, MigrationOutcome, MigrationProgress, MigrationStatus, Presence
from vmpack.model.pins import Pin
from vmpack.units import MIB, format_bytes, format_seconds

POLL_S = 0.5
ABORT_DEADLINE_S = 60.0
"""Longer than libvirt itself waits for a destination that has gone silent (30 s)."""
SETTLE_S = 30.0
"""After an end that was not clean libvirt still clears up, or is started again: so long we look."""

OnProgress = Callable[[MigrationProgress], None]


class Migrator:
    """Moves VMs away from one libvirt, one at a time. `clock` says when to stop."""

    def __init__(
        self, source_uri: str, clock: Clock, *, connect: Callable[[str], Hypervisor] = Hypervisor
    ) -> None:
        self._source_uri = source_uri
        self._clock = clock
        self._connect = connect

    def refusals(self, action: Migrate) -> tuple[str, ...]:
        """Why the migration would not be begun, in sentences; empty when it would. Changes nothing."""
        journey = _Journey(self._source_uri, self._clock, self._connect, action, _unheard)
        try:
            return journey.prepare()
        finally:
            journey.close()

    def carry_out(self, action: Migrate, on_progress: OnProgress | None = None) -> MigrationOutcome:
        """Migrate and say what came of it; what goes wrong is in the outcome, not an exception.

        `on_progress` is called about twice a second, in this thread, and must not raise. Takes at most the
        time budget, plus about two minutes where hosts do not answer.
        """
        journey = _Journey(self._source_uri, self._clock, self._connect, action, on_progress or _unheard)
        try:
            return journey.make()
        finally:
            journey.close()


def _unheard(_progress: MigrationProgress) -> None:
    pass


class _Journey:
    """One migration on its way."""

    def __init__(
        self,
        source_uri: str,
        clock: Clock,
        connect: Callable[[str], Hypervisor],
        action: Migrate,
        on_progress: OnProgress,
    ) -> None:
        self._clock = clock
        self._action = action
        self._on_progress = on_progress
        self._source = connect(source_uri)
        self._destination = connect(action.destination_uri)
        # On a connection with a call that takes long, libvirt's client lets other calls wait for seconds.
        self._mover = connect(source_uri)
        self._thread = threading.Thread(target=self._move, name=f"migrate {action.uuid}", daemon=True)
        self._began_s = clock.time_s()
        self._fault: VmpackError | None = None
        self._abort_why = ""
        self._lost_s: float | None = None
        self._last: MigrationProgress | None = None
        self._warnings: list[str] = []
        self._was: MigrantVm | None = None
        self._downtime_asked = action.max_downtime_ms is None

    def close(self) -> None:
        for hypervisor in (self._source, self._destination, self._mover):
            hypervisor.close()

    def prepare(self) -> tuple[str, ...]:
        """Look at both hosts; why it must not begin."""
        try:
            self._was = read_migrant(self._source, self._action.uuid)
            refusals = source_refusals(self._action, self._was)
            return refusals + destination_refusals(self._action, self._was, self._source, self._destination)
        except GuestGoneError:
            return ("it is not on the source",)
        except VmpackError as error:
            return (error.message,)

    def make(self) -> MigrationOutcome:
        refusals = self.prepare()
        if not refusals and self._clock.wait(0):
            refusals = ("asked to stop",)
        if refusals or self._was is None:
            return MigrationOutcome(self._action, "skipped", "; ".join(refusals))
        pins = self._drop_pins()
        self._began_s = self._clock.time_s()
        self._thread.start()
        self._follow()
        if self._fault is not None and self._is_anothers():
            self._put_pins_back(pins)
            detail = f"another migration has it: {self._fault.message}"
            return MigrationOutcome(self._action, "skipped", detail, warnings=tuple(self._warnings))
        sides, verdict = self._settled(self._was)
        if sides.source not in ("absent", "stopped"):
            self._put_pins_back(pins)
        return self._conclude(self._was, sides, verdict)

    def _drop_pins(self) -> tuple[Pin, ...]:
        """They were chosen for the CPUs of this host; the destination chooses anew."""
        pins: tuple[Pin, ...] = ()
        try:
            pins = held_pins(self._source, self._action.uuid)
            pins = drop_pins(self._source, self._action.uuid)
        except VmpackError as error:
            self._warnings.append(f"its pins go with it: {error.message}")
        return pins

    def _put_pins_back(self, pins: tuple[Pin, ...]) -> None:
        try:
            put_pins_back(self._source, self._action.uuid, pins)
        except GuestGoneError:
            return  # with another's migration, which leaves them behind too
        except VmpackError as error:
            self._warnings.append(f"its vCPUs are pinned no longer: {error.message}")

    def _move(self) -> None:
        """In its own thread: the one call that is the migration. libvirt goes on with it without us."""
        deadline_s = self._action.timeout_s + ABORT_DEADLINE_S + SETTLE_S
        try:
            self._mover.call(
                f"migrate {self._action.name}",
                lambda connection: _migrate(connection, self._action),
                deadline_s=deadline_s,
            )
        except VmpackError as error:
            self._fault = error

    def _follow(self) -> None:
        """Watch it until it is over, or until an abort has not helped."""
        action = self._action
        end_s = self._began_s + action.timeout_s
        while self._goes_on():
            if self._abort_why:
                if self._clock.time_s() >= end_s:
                    return
                self._abort()
                time.sleep(POLL_S)  # a clock that was asked to stop does not wait
                continue
            if self._clock.wait(POLL_S):
                self._abort_why = "stopped on request"
            elif self._clock.time_s() >= end_s:
                self._abort_why = self._too_slow()
            elif not self._is_answered():
                self._look()
            if self._abort_why:
                end_s = self._clock.time_s() + ABORT_DEADLINE_S

    def _goes_on(self) -> bool:
        """True while the migration runs, as far as one can know."""
        if self._thread.is_alive():
            return True
        if self._is_answered():
            return False
        # A lost connection does not stop libvirt, and a libvirt that was killed may come back.
        try:
            goes_on = self._source.call("look for the migration", self._job) == MIGRATION_OUT
        except GuestGoneError:
            return False
        except VmpackError:
            self._lost_s = time.monotonic() if self._lost_s is None else self._lost_s
            return time.monotonic() - self._lost_s < SETTLE_S
        self._lost_s = None
        return goes_on

    def _is_answered(self) -> bool:
        """True when libvirt has answered the one call: nothing of ours runs any more."""
        if self._thread.is_alive() or isinstance(self._fault, HypervisorLostError):
            return False
        # Without libvirt's own error behind it, it was our deadline that ended the waiting.
        return not isinstance(self._fault, GuestBusyError) or self._fault.__cause__ is not None

    def _is_anothers(self) -> bool:
        """True when ours was refused because of another's: libvirt lets no second one wait its turn."""
        if not self._is_answered() or self._abort_why:
            return False
        try:
            return self._source.call("look for another migration", self._job) == MIGRATION_OUT
        except VmpackError:
            return False

    def _job(self, connection: Any) -> str | None:
        return job_name(find_domain(connection, self._action.uuid))

    def _look(self) -> None:
        """Tell how far it is. Nothing depends on it, so what goes wrong here is left to the end."""
        with suppress(VmpackError):
            stats = self._source.call(
                f"follow the migration of {self._action.name}",
                lambda connection: job_stats(find_domain(connection, self._action.uuid)),
            )
            if not (is_migration(stats) and stats.get("memory_total")):
                return
            self._last = progress(stats, self._clock.time_s() - self._began_s)
            self._on_progress(self._last)
            self._ask_downtime()

    def _ask_downtime(self) -> None:
        # libvirt takes it for the running migration alone, and only once that runs.
        if self._downtime_asked:
            return
        self._downtime_asked = True
        limit_ms = self._action.max_downtime_ms or 0
        try:
            self._source.call(
                f"limit the downtime of {self._action.name}",
                lambda connection: find_domain(connection, self._action.uuid).migrateSetMaxDowntime(limit_ms),
            )
        except HypervisorError as error:
            self._warnings.append(error.message)

    def _abort(self) -> None:
        """Ask libvirt to give up, again until it has; a migration that is over meanwhile is fine.

        Ours may still wait for another's job, a save or a dump: that one is left alone.
        """
        with suppress(VmpackError):
            self._source.call(f"abort the migration of {self._action.name}", self._abort_if_migrating)

    def _abort_if_migrating(self, connection: Any) -> None:
        domain = find_domain(connection, self._action.uuid)
        if job_name(domain) == MIGRATION_OUT:
            domain.abortJob()

    def _too_slow(self) -> str:
        budget = format_seconds(self._action.timeout_s)
        last = self._last
        if last is None:
            return f"not done within {budget}: no memory was moved yet"
        left = f"{format_bytes(last.remaining_bytes)} of {format_bytes(last.total_bytes)} were left"
        if not last.dirty_bytes_per_s:
            return f"not done within {budget}: {left}"
        changed = format_bytes(last.dirty_bytes_per_s)
        return f"not done within {budget}: {left}, and the guest changed {changed} per second"

    def _settled(self, was: MigrantVm) -> tuple[Sides, Verdict]:
        """What both hosts show, once that is certain, or after SETTLE_S."""
        end_s = time.monotonic() + SETTLE_S
        while True:
            sides = Sides(self._seen(self._source), self._seen(self._destination))
            verdict = judge(sides, was.presence)
            if verdict != "unclear" or time.monotonic() >= end_s:
                return sides, verdict
            time.sleep(POLL_S)

    def _seen(self, hypervisor: Hypervisor) -> Presence:
        try:
            return presence(hypervisor, self._action.uuid)
        except VmpackError:
            return "unreachable"

    def _conclude(self, was: MigrantVm, sides: Sides, verdict: Verdict) -> MigrationOutcome:
        elapsed_s = self._clock.time_s() - self._began_s
        fault = self._fault.message if self._fault is not None else ""
        detail, hint, downtime_ms, moved_bytes = "", "", None, None
        status: MigrationStatus = "done"
        if verdict == "arrived":
            downtime_ms, moved_bytes = self._completed()
            now = self._put_right(was)
            if sides.source == "stopped":
                self._warnings.append("its definition is still at the source: undefine it there")
        else:
            now = self._read(self._source)
            moved_bytes = self._last.moved_bytes if self._last is not None else None
            if verdict == "stayed":
                status, detail = ("aborted", self._abort_why) if self._abort_why else ("failed", fault)
            else:
                status = "unclear"
                detail = "; ".join(filter(None, (told(sides), self._abort_why, fault)))
                hint = cure(sides, self._action, self._source.uri, _job_at(sides.source, now))
        return MigrationOutcome(
            self._action,
            status,
            detail,
            hint,
            *sides,
            elapsed_s=elapsed_s,
            downtime_ms=downtime_ms,
            moved_bytes=moved_bytes,
            balloon_before_bytes=was.balloon_bytes,
            balloon_bytes=now.balloon_bytes if now is not None else None,
            warnings=tuple(self._warnings),
        )

    def _read(self, hypervisor: Hypervisor) -> MigrantVm | None:
        try:
            return read_migrant(hypervisor, self._action.uuid)
        except VmpackError:
            return None

    def _completed(self) -> tuple[int | None, int | None]:
        """Downtime and bytes moved, as libvirt counted them, where it still knows."""
        try:
            stats = self._destination.call(
                "ask how the migration went",
                lambda connection: job_stats(find_domain(connection, self._action.uuid), completed=True),
            )
        except VmpackError:
            return None, None
        return stats.get("downtime"), stats.get("data_processed")

    def _put_right(self, was: MigrantVm) -> MigrantVm | None:
        """See that everything came along; what did not is set again at the destination."""
        now = self._read(self._destination)
        if now is None:
            self._warnings.append("its settings could not be read at the destination")
            return None
        if now.nominal_bytes != was.nominal_bytes:
            self._warnings.append(f"its nominal has become {format_bytes(now.nominal_bytes)}")
        if was.persistent and not now.persistent:
            self._warnings.append("the destination has no lasting definition of it")
        lost = [
            what
            for what, gone in (
                ("statistics period", was.stats_period_s > 0 and now.stats_period_s == 0),
                ("policy", was.policy is not None and now.policy is None),
            )
            if gone
        ]
        if lost:
            self._set_again(was, now, " and ".join(lost))
        return now

    def _set_again(self, was: MigrantVm, now: MigrantVm, what: str) -> None:
        try:
            restore_extras(self._destination, self._action.uuid, was, now.persistent)
        except VmpackError as error:
            self._warnings.append(f"lost on the way, {what}: {error.message}")
        else:
            self._warnings.append(f"set again, for it did not come along: {what}")


def _job_at(source: Presence, now: MigrantVm | None) -> str | None:
    if source not in ("running", "paused"):
        return None
    return UNTOLD_JOB if now is None else now.job


def _migrate(connection: Any, action: Migrate) -> None:
    import libvirt

    domain = find_domain(connection, action.uuid)
    # Throttling can only be allowed at the start, and never touches a guest that converges without.
    flags = libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PEER2PEER | libvirt.VIR_MIGRATE_AUTO_CONVERGE
    if domain.isPersistent():
        flags |= libvirt.VIR_MIGRATE_PERSIST_DEST | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
    parameters: dict[str, Any] = {}
    if xml := destination_xml(connection, domain):
        parameters[libvirt.VIR_MIGRATE_PARAM_DEST_XML] = xml
    if action.with_storage:
        flags |= libvirt.VIR_MIGRATE_NON_SHARED_DISK
    if action.migrate_uri is not None:
        parameters[libvirt.VIR_MIGRATE_PARAM_URI] = action.migrate_uri
        if action.with_storage and action.migrate_uri.startswith("unix:"):
            parameters[libvirt.VIR_MIGRATE_PARAM_DISKS_URI] = f"{action.migrate_uri}.disks"
    if action.bandwidth_bytes_per_s is not None:
        parameters[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH] = max(1, action.bandwidth_bytes_per_s // MIB)
    domain.migrateToURI3(action.destination_uri, parameters, flags)
