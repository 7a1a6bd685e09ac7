"""The one class behind every way to ask or tell the agent something: socket, command line, later the manager.

Reads answer from the newest interval without waiting. Changes take the loop's lock, look at the host afresh,
and are done before they answer; each says in numbers why it refuses. What stops the host takes a turn of its
own (which then changes nothing), so that the next read shows the host as it now is.
"""

from __future__ import annotations

import dataclasses
import difflib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from vmpack.clock import Clock
from vmpack.decide.experience import experience
from vmpack.errors import BadDataError, UnavailableError, UsageError, VmpackError
from vmpack.host import vcpu_answers
from vmpack.host.by_hand import plan_by_hand, refuse_frozen
from vmpack.host.lessons import Lessons
from vmpack.host.loop import Actuator, Decision, Loop, Source, outcome_line, printable
from vmpack.host.messages import Explanation, FreezeState, GivenBack, Pinned, PolicySet, VcpuSummary
from vmpack.host.release import Release
from vmpack.host.state import State
from vmpack.model.action import Outcome
from vmpack.model.guest import GuestPolicy, GuestSnapshot
from vmpack.model.host import HostSnapshot
from vmpack.model.interval import AgentStatus, Interval
from vmpack.model.pins import format_cpus
from vmpack.model.policy_namespace import (
    HEADROOM_LARGEST_RATIO,
    HOLD_UNTIL_LARGEST_S,
    NOMINAL_LARGEST_BYTES,
    OWNER_FIELDS,
    SHARES_LARGEST,
)
from vmpack.model.vcpu import AffinityOutcome, VcpuStatus
from vmpack.units import MIB, format_bytes

log = logging.getLogger(__name__)

FOR_EVER_S = HOLD_UNTIL_LARGEST_S
"""`hold_until_s` of a hold that only `vmpack hold VM --off` ends."""

POLICY_SEEN_S = 2.0
POLL_S = 0.02


class PolicyWriter(Protocol):
    """What writes a VM's own policy to where its definition is kept."""

    def write_policy(self, uuid: str, policy: GuestPolicy) -> None:
        """Replace the VM's policy. Raises VmpackError."""
        ...


class VcpuPins(Protocol):
    """What looks at the vCPUs and pins them."""

    @property
    def status(self) -> VcpuStatus | None:
        """None where nothing looks at them."""
        ...

    def release(self, uuids: frozenset[str] | None) -> tuple[AffinityOutcome, ...]:
        """Take off vmpack's pins of these VMs, of all with None. Raises VmpackError."""
        ...

    def settle(self) -> None:
        """Wait until pins that are being set are set."""
        ...

    def pin(self, vm: str, vcpu: int, cpus: Sequence[int]) -> str:
        """Pin by hand; the VM's name. Raises VmpackError."""
        ...


class HostService:
    """What one host's agent can be asked and told."""

    def __init__(
        self,
        *,
        loop: Loop,
        clock: Clock,
        source: Source,
        actuator: Actuator,
        policies: PolicyWriter,
        decision: Decision,
        release: Release,
        state: State,
        lessons: Lessons,
        vcpus: VcpuPins,
        metrics: Callable[[], bytes],
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._source = source
        self._actuator = actuator
        self._policies = policies
        self._decision = decision
        self._release = release
        self._state = state
        self._lessons = lessons
        self._vcpus = vcpus
        self._metrics = metrics

    def status(self) -> AgentStatus:
        """The newest interval and how the agent is."""
        return dataclasses.replace(self._loop.status, frozen=self._state.frozen())

    def metrics(self) -> bytes:
        """Prometheus text."""
        return self._metrics()

    def explain(self, vm: str) -> Explanation:
        """All that the newest interval knows of one VM, by name or uuid. Raises VmpackError."""
        status = self._loop.status
        interval = _newest(status)
        guest = find_vm(interval.snapshot, vm)
        plan = next(plan for plan in interval.plan.guests if plan.uuid == guest.uuid)
        mine = tuple(outcome for outcome in interval.outcomes if outcome.action.uuid == guest.uuid)
        snapshot = interval.snapshot
        known = interval.plan.remembered.guests.get(guest.uuid)
        return Explanation(
            number=interval.number,
            wall_s=snapshot.wall_s,
            observe_only=status.observe_only,
            frozen=snapshot.frozen,
            guest=guest,
            plan=plan,
            outcomes=mine,
            host_reasons=interval.plan.reasons,
            learned=experience(known, snapshot.time_s, self._loop.settings.memory),
        )

    def set_policy(self, vm: str, changes: Mapping[str, Any]) -> PolicySet:
        """Change fields of a VM's own policy; None puts one back to the host's default.

        What is named here is an administrator's from then on, but for what `of_owner` says.
        Fields: floor_bytes, shares, headroom_ratio, headroom_min_bytes, opt_out, nominal_bytes,
        action_until_s, of_owner. Raises UsageError for values out of range.
        """
        with self._loop.lock:
            snapshot = self._source.observe()
            guest = find_vm(snapshot, vm)
            if changes.get("action_until_s") and not self._loop.status.observe_only and not snapshot.frozen:
                # Perhaps the VM is about to leave, and nothing can be written then.
                self._lessons.keep_of(guest, snapshot, self._loop.remembered)
            left = [name for name in guest.policy.of_owner if name not in changes]
            checked = {
                name: _policy_value(guest, name, value)
                for name, value in ({"of_owner": left} | dict(changes)).items()
            }
            written = self._write(guest, dataclasses.replace(guest.policy, **checked))
        # A turn that began before may still be pinning what is to be left alone now.
        self._vcpus.settle()
        return written

    def hold(self, vm: str, seconds: float | None) -> PolicySet:
        """Leave a VM alone for so long; None is until told otherwise, 0 ends the hold."""
        if seconds is not None and not 0 <= seconds < FOR_EVER_S:
            raise UsageError(f"cannot hold a VM for {seconds} s", "name a time such as 10min")
        with self._loop.lock:
            written = self._hold(find_vm(self._source.observe(), vm), seconds)
        self._vcpus.settle()
        return written

    def balloon(self, vm: str, size_bytes: int) -> Outcome:
        """Set one VM's balloon by hand, and hold the VM so that it stays there (`hold VM 0` ends that).

        Raises UsageError with the numbers when the size is below what the VM needs, above its nominal memory
        or beyond the host's budget; UnavailableError while observing or frozen.
        """
        with self._loop.lock:
            snapshot = self._changeable_snapshot()
            guest = find_vm(snapshot, vm)
            by_hand = plan_by_hand(
                snapshot, guest, size_bytes, self._loop.remembered, self._loop.settings, self._decision.plan
            )
            self._hold(guest, None)
            outcomes = self._actuator.carry_out(by_hand)
            self._loop.keep(self._decision.remember(by_hand, outcomes, snapshot.time_s))
            log.info("by hand: %s", outcome_line(outcomes[0]))
            return outcomes[0]

    def release(self, vm: str | None) -> GivenBack:
        """Give one VM all its memory back and hold it; with None give all VMs theirs and freeze the host.

        Works in observe mode and while frozen too. Raises UsageError for an unknown VM.
        """
        with self._loop.lock:
            uuids = None
            if vm is None:
                self._freeze_for_release()
            else:
                guest = find_vm(self._source.observe(), vm)
                uuids = frozenset({guest.uuid})
                self._hold(guest, None)
            loop = self._loop
            given, remembered = self._release.carry_out(loop.remembered, loop.settings, uuids)
            loop.keep(remembered)
            log.info("released %s: %s given back", vm or "all VMs", format_bytes(given.given_bytes))
            if vm is None:
                self._lessons.forget_all()
                loop.attempt()
        # Guests' memory does not wait for pins.
        return dataclasses.replace(given, pins=self._vcpus.release(uuids))

    def vcpus(self, uuid: str | None) -> VcpuStatus:
        """The newest look at the vCPUs, without what is remembered of them; with a uuid that VM's alone.

        Raises UnavailableError where nothing looks at them.
        """
        status = self._vcpu_status()
        return vcpu_answers.whole(status) if uuid is None else vcpu_answers.of_vm(status, uuid)

    def vcpu_summary(self) -> VcpuSummary:
        """The same in sums. Raises UnavailableError where nothing looks at the vCPUs."""
        return vcpu_answers.summary(self._vcpu_status(), self._clock.wall_s())

    def _vcpu_status(self) -> VcpuStatus:
        status = self._vcpus.status
        if status is None:
            raise UnavailableError(
                "the agent does not look at vCPUs (vcpu.mode = off)",
                "look with `vcpu_scheduler 10 --observe`, or set vcpu.mode to group or balance",
            )
        return status

    def pin(self, vm: str, vcpu: int, cpus: Sequence[int]) -> Pinned:
        """Let a vCPU run on these CPUs alone, on any with none; the vCPU scheduler then leaves the VM alone.

        Raises UsageError for a VM, vCPU or CPU that there is not, or a VM that its cloud placed.
        """
        with self._loop.lock:
            self._changeable_snapshot()
        name = self._vcpus.pin(vm, vcpu, tuple(cpus))
        log.info("by hand: vCPU %d of %s on pCPU %s", vcpu, printable(name), format_cpus(cpus))
        return Pinned(name, vcpu, tuple(cpus))

    def freeze(self, on: bool) -> FreezeState:
        """Stop all changes on this host, or allow them again. Takes effect before it answers."""
        self._mark(on)
        with self._loop.lock:
            if on:
                self._loop.attempt()
        self._vcpus.settle()
        return FreezeState(on)

    def _mark(self, frozen: bool) -> None:
        self._state.freeze(frozen)
        log.info("changes on this host are %s", "frozen" if frozen else "allowed again")

    def _freeze_for_release(self) -> None:
        """The VMs come first: a disk that fails must not keep their memory from them."""
        try:
            self._mark(True)
        except VmpackError as error:
            log.warning("frozen only until the agent's restart: %s", error)

    def _changeable_snapshot(self) -> HostSnapshot:
        if self._loop.status.observe_only:
            raise UnavailableError("the agent only observes", "start it without --observe to change things")
        snapshot = self._source.observe()
        refuse_frozen(snapshot)
        return snapshot

    def _hold(self, guest: GuestSnapshot, seconds: float | None) -> PolicySet:
        until_s: float | None = FOR_EVER_S if seconds is None else self._clock.wall_s() + seconds
        return self._write(
            guest, dataclasses.replace(guest.policy, hold_until_s=None if seconds == 0 else until_s)
        )

    def _write(self, guest: GuestSnapshot, policy: GuestPolicy) -> PolicySet:
        if policy != guest.policy:
            self._policies.write_policy(guest.uuid, policy)
            self._wait_until_seen(guest)
        return PolicySet(guest.uuid, guest.name, policy)

    def _wait_until_seen(self, before: GuestSnapshot) -> None:
        """libvirt tells of a new policy a moment later; until then a turn would decide by the old one."""
        deadline_s = self._clock.time_s() + POLICY_SEEN_S
        while self._clock.time_s() < deadline_s:
            seen = [guest for guest in self._source.observe().guests if guest.uuid == before.uuid]
            if not seen or seen[0].policy != before.policy or self._clock.wait(POLL_S):
                return
        log.warning("%s: the new policy is written but not seen yet", printable(before.name))


def find_vm(snapshot: HostSnapshot, wanted: str) -> GuestSnapshot:
    """The VM with this uuid, else the one of this name: an owner may choose a name like another VM's uuid.

    Raises UsageError with near names, UnavailableError.
    """
    shown = printable(wanted)
    for key in ("uuid", "name"):
        found = [guest for guest in snapshot.guests if getattr(guest, key) == wanted]
        if len(found) == 1:
            return found[0]
        if found:
            uuids = ", ".join(guest.uuid for guest in found)
            raise UsageError(f"{shown} names {len(found)} VMs", f"use a uuid: {uuids}")
        if any(getattr(guest, key) == wanted for guest in snapshot.unreadable):
            raise UnavailableError(f"{shown} exists but its QEMU gives no answer", "vmpack doctor says more")
    names = [guest.name for guest in snapshot.guests]
    near = difflib.get_close_matches(wanted, names, 3, 0.5) or sorted(names)[:5]
    hint = f"there is {', '.join(printable(name) for name in near)}" if near else "no VM runs on this host"
    raise UsageError(f"no VM is named {shown}", hint)


def _newest(status: AgentStatus) -> Interval:
    if status.interval is None:
        raise UnavailableError(
            f"no interval went through yet{f': {status.last_error}' if status.last_error else ''}",
            "try again in a moment",
        )
    return status.interval


def _policy_value(guest: GuestSnapshot, name: str, value: Any) -> Any:
    if name == "opt_out":
        if value is None or type(value) is bool:
            return bool(value)
        raise UsageError(f"opt_out: found {value!r}, expected true or false")
    if name == "of_owner":
        if isinstance(value, list) and all(entry in OWNER_FIELDS for entry in value):
            return tuple(value)
        raise UsageError(f"of_owner: found {value!r}, expected a list of {', '.join(OWNER_FIELDS)}")
    nominal = format_bytes(guest.nominal_bytes)
    limits: dict[str, tuple[type, float, float, str]] = {
        "floor_bytes": (int, 0, guest.nominal_bytes, f"bytes, up to its nominal {nominal}"),
        "shares": (int, 1, SHARES_LARGEST, f"a whole number from 1 to {SHARES_LARGEST}"),
        "headroom_min_bytes": (int, 0, guest.nominal_bytes, f"bytes, up to its nominal {nominal}"),
        "nominal_bytes": (int, MIB, NOMINAL_LARGEST_BYTES, "bytes, 1 MiB or more"),
        "action_until_s": (float, 0, HOLD_UNTIL_LARGEST_S, "a Unix time in seconds"),
        "headroom_ratio": (float, 0, HEADROOM_LARGEST_RATIO, f"a ratio from 0 to {HEADROOM_LARGEST_RATIO:g}"),
    }
    if name not in limits:
        raise BadDataError(f"a policy has no {name!r}", f"it has {', '.join(limits)} opt_out and of_owner")
    if value is None:
        return None
    kind, low, high, expected = limits[name]
    numeric = type(value) in ((int, float) if kind is float else (int,))
    if not numeric or not low <= value <= high:
        raise UsageError(f"{name}: found {value!r}, expected {expected}")
    return kind(value)
