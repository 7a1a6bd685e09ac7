"""The vCPU loop of one host: look at the vCPUs, decide, pin, say so; once per interval of its own.

Given its clock, source and actuator by vmpack.host.vcpus. A turn that fails changes nothing more, is said
once, and is tried again with back-off. It shares nothing with the memory loop but the freeze.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from vmpack.clock import Clock
from vmpack.decide.explain import words
from vmpack.errors import UnavailableError, VmpackError
from vmpack.host.loop import printable
from vmpack.host.pace import next_turn_s
from vmpack.model.pins import format_cpus
from vmpack.model.plan import Reason
from vmpack.model.settings import VcpuSettings
from vmpack.model.thread import thread_name
from vmpack.model.vcpu import (
    AffinityOutcome,
    PinChange,
    RememberedVcpus,
    SetAffinity,
    VcpuInterval,
    VcpuPlan,
    VcpuSnapshot,
    VcpuStatus,
)

log = logging.getLogger(__name__)

CHANGES_KEPT = 100

VcpuRememberFunction = Callable[[VcpuPlan, Sequence[SetAffinity], float], RememberedVcpus]
VcpuPlanFunction = Callable[[VcpuSnapshot, RememberedVcpus, VcpuSettings], VcpuPlan]


class VcpuSource(Protocol):
    """Where snapshots come from."""

    def observe(self) -> VcpuSnapshot:
        """The vCPUs now. Raises VmpackError when there is no snapshot to be had."""
        ...


class Pinner(Protocol):
    """What carries changes out."""

    def carry_out(self, plan: VcpuPlan) -> tuple[AffinityOutcome, ...]:
        """One outcome per action, in order; never raises for what a VM or libvirt does."""
        ...


class VcpuLoop:
    """Everything that happens once per interval."""

    def __init__(
        self,
        *,
        clock: Clock,
        source: VcpuSource,
        pinner: Pinner,
        plan: VcpuPlanFunction,
        remember: VcpuRememberFunction,
        settings: VcpuSettings,
        observe_only: bool,
        permit: Callable[[], None] = lambda: None,
        after_turn: Callable[[VcpuStatus], None] = lambda _status: None,
        quiet_line_every: int | None = None,
    ) -> None:
        """`permit` begins every turn, which fails with the VmpackError that it raises.

        `quiet_line_every`: a line for every so many turns in which nothing is changed.
        """
        self.lock = threading.RLock()
        """Held for a whole turn: who holds it pins alone."""
        self._permit = permit
        self._after_turn = after_turn
        self._clock = clock
        self._source = source
        self._pinner = pinner
        self._plan = plan
        self._remember = remember
        self._settings = settings
        self._remembered = RememberedVcpus()
        self._changed: deque[PinChange] = deque(maxlen=CHANGES_KEPT)
        self._quiet_line_every = quiet_line_every
        self._quiet_turns = 0
        self._status = VcpuStatus(settings.mode, settings.interval_s, observe_only, None, None)

    @property
    def status(self) -> VcpuStatus:
        """What the loop says of itself; may be read from any thread."""
        return self._status

    def turn(self) -> VcpuInterval:
        """Look, decide, pin and remember, once. Raises VmpackError when the host cannot be seen."""
        with self.lock:
            self._permit()
            snapshot = self._source.observe()
            if not snapshot.pcpus:
                raise UnavailableError(
                    "no pCPU is left for VMs", "vcpu.reserved_cpus names all that are on: reserve fewer"
                )
            plan = self._plan(snapshot, self._remembered, self._settings)
            allowed = not (self._status.observe_only or snapshot.frozen)
            outcomes = self._pinner.carry_out(plan) if allowed and plan.actions else ()
        self._remembered = self._remember(plan, [one.action for one in outcomes], snapshot.time_s)
        last = self._status.interval
        interval = VcpuInterval(last.number + 1 if last else 1, snapshot, plan, outcomes)
        why = reasons_of(plan)
        changes = [PinChange(snapshot.wall_s, one, why(one.action)) for one in outcomes]
        self._changed.extend(changes)
        self._status = dataclasses.replace(
            self._status, last_error=None, interval=interval, changed=tuple(self._changed)
        )
        self._report(interval, changes)
        return interval

    def reconfigure(self, observe_only: bool) -> None:
        """Change things, or only look, from the next turn on; a turn under way is waited for."""
        with self.lock:
            self._status = dataclasses.replace(self._status, observe_only=observe_only)

    def run(self) -> None:
        """Turn after turn until the clock is asked to stop."""
        due_s, failures = self._clock.time_s(), 0
        while True:
            failures = 0 if self.attempt() else failures + 1
            self._after_turn(self._status)
            due_s = next_turn_s(self._clock.time_s(), due_s, self._settings.interval_s, failures)
            if self._clock.wait(due_s - self._clock.time_s()):
                return

    def attempt(self) -> bool:
        """One turn; False when it failed."""
        failed_before = self._status.last_error
        try:
            self.turn()
        except VmpackError as error:
            why = str(error)
            if why != failed_before:
                log.error("vCPUs: this turn failed, nothing more was changed: %s", why)
        except Exception as error:  # the loop's boundary: memory must go on being looked after
            log.exception("a defect in vmpack ended this turn of the vCPUs; please report it")
            why = f"{type(error).__name__}: {error}"
        else:
            if failed_before is not None:
                log.info("vCPUs: works again")
            return True
        self._status = dataclasses.replace(self._status, last_error=why)
        return False

    def _report(self, interval: VcpuInterval, changes: Sequence[PinChange]) -> None:
        plan = interval.plan
        for change in changes:
            level = logging.WARNING if change.outcome.status == "failed" else logging.INFO
            why = f": {words(change.why)[0]}" if change.why else ""
            log.log(level, "%s%s", outcome_line(change.outcome), why)
        self._quiet_turns = 0 if interval.outcomes else self._quiet_turns + 1
        every = self._quiet_line_every
        quiet = bool(every) and (interval.number == 1 or self._quiet_turns % (every or 1) == (every or 1) - 1)
        planned = plan.actions and not interval.outcomes
        log.log(logging.INFO if quiet or planned else logging.DEBUG, "%s", summary_line(interval))


def reasons_of(plan: VcpuPlan) -> Callable[[SetAffinity], Reason | None]:
    """Why a change was decided: what was said of the vCPU, else of the VM as a whole."""
    by_vm = {vm.uuid: {reason.numbers.get("vcpu"): reason for reason in vm.reasons} for vm in plan.vms}

    def reason_of(action: SetAffinity) -> Reason | None:
        reasons = by_vm.get(action.uuid, {})
        of_vcpu = reasons.get(action.number) if action.thread == "vcpu" else None
        return of_vcpu or reasons.get(None)

    return reason_of


def change_text(action: SetAffinity) -> str:
    """One change for people: "web1: vCPU 0: pCPU 3 -> 1"."""
    name = thread_name((action.thread, action.number))
    to_cpus = "as before vmpack" if action.gives_back else format_cpus(action.to_cpus)
    return f"{printable(action.name)}: {name}: pCPU {format_cpus(action.from_cpus)} -> {to_cpus}"


def outcome_line(outcome: AffinityOutcome) -> str:
    """One outcome for people: "web1: vCPU 0: pCPU 3 -> 1, done"."""
    detail = f" ({printable(outcome.detail)})" if outcome.detail else ""
    return f"{change_text(outcome.action)}, {outcome.status}{detail}"


def summary_line(interval: VcpuInterval) -> str:
    """The whole host in one line for people."""
    plan, vms = interval.plan, interval.snapshot.vms
    vcpus = sum(len(vm.vcpus) for vm in vms)
    would = "" if interval.outcomes or not plan.actions else f"; would change {len(plan.actions)} pins"
    frozen = ", frozen" if interval.snapshot.frozen else ""
    return (
        f"{vcpus} vCPU{'' if vcpus == 1 else 's'} of {len(vms)} VM{'' if len(vms) == 1 else 's'} on "
        f"{len(plan.pcpus)} pCPUs, uneven by {plan.std_points_before:.1f} points{would}{frozen}"
    )
