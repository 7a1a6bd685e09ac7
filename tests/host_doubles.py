"""Doubles for the host's rooms: a clock that jumps, a host in memory, a publisher that keeps notes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from tests import builders
from vmpack.decide.alarm import alarm
from vmpack.decide.memory import plan, remember
from vmpack.decide.release import plan_release
from vmpack.errors import GuestBusyError, VmpackError
from vmpack.host.lessons import Lessons
from vmpack.host.loop import Decision, Loop
from vmpack.host.release import Release
from vmpack.host.service import HostService
from vmpack.host.state import State
from vmpack.model.action import Outcome, SetMemory
from vmpack.model.glance import Glance
from vmpack.model.guest import GuestPolicy, GuestSnapshot
from vmpack.model.host import HostSnapshot, UnreadableGuest
from vmpack.model.interval import AgentStatus, Interval
from vmpack.model.learned import Learned
from vmpack.model.plan import Plan, Remembered
from vmpack.model.settings import Settings
from vmpack.model.vcpu import AffinityOutcome, VcpuStatus

DECISION = Decision(plan, remember, alarm)


class JumpingClock:
    """Waiting takes no time but moves the clock; asks to stop once `stop_at_s` is reached.

    As with the real one, a wake ends the running wait or else the next one, and two wakes end two.
    """

    def __init__(self, stop_at_s: float = float("inf")) -> None:
        self.now_s = builders.NOW_S
        self.stop_at_s = stop_at_s
        self.waits: list[float] = []
        self.woken = 0
        self._tokens = 0
        self._appointments: list[tuple[float, Callable[[], None]]] = []

    def at(self, time_s: float, call: Callable[[], None]) -> None:
        """Have this called in the wait during which this time comes, as another thread would."""
        self._appointments.append((time_s, call))
        self._appointments.sort(key=lambda appointment: appointment[0])

    def time_s(self) -> float:
        """See vmpack.clock."""
        return self.now_s

    def wall_s(self) -> float:
        """See vmpack.clock."""
        return self.now_s + 1_700_000_000.0

    def wait(self, seconds: float) -> bool:
        """See vmpack.clock."""
        self.waits.append(seconds)
        end_s = self.now_s + max(0.0, seconds)
        while not self._tokens and self._appointments and self._appointments[0][0] <= end_s:
            time_s, call = self._appointments.pop(0)
            self.now_s = max(self.now_s, time_s)
            call()
        if self._tokens:
            self._tokens -= 1
        else:
            self.now_s = end_s
        return self.now_s >= self.stop_at_s

    def wake(self) -> None:
        """See vmpack.clock."""
        self.woken += 1
        self._tokens += 1


class HostInMemory:
    """A host whose balloons move at once: source, actuator and policy writer in one."""

    def __init__(self, clock: JumpingClock, *guests: GuestSnapshot, budget: int | None = None) -> None:
        self.clock = clock
        self.guests = {guest.uuid: guest for guest in guests}
        self.budget = budget
        self.frozen = False
        self.unreadable: tuple[UnreadableGuest, ...] = ()
        self.errors: list[Exception] = []
        """Raised by the next looks, one each."""
        self.turn_takes_s = 0.0
        self.stuck: set[str] = set()
        """Names of VMs whose balloon never moves."""
        self.plans: list[Plan] = []
        self.learned: dict[str, Learned | None] = {}
        """In the VMs' metadata."""
        self.learned_writes: list[str] = []
        self.refuses_learned = False

    def observe(self) -> HostSnapshot:
        """See vmpack.host.loop.Source."""
        self.clock.now_s += self.turn_takes_s
        if self.errors:
            raise self.errors.pop(0)
        now_s = self.clock.now_s
        fresh = tuple(
            dataclasses.replace(guest, stats=dataclasses.replace(guest.stats, sampled_s=now_s - 0.5))
            if guest.stats
            else guest
            for guest in self.guests.values()
        )
        return builders.host(
            *fresh, budget=self.budget, now_s=now_s, frozen=self.frozen, unreadable=self.unreadable
        )

    def carry_out(self, decided: Plan) -> tuple[Outcome, ...]:
        """See vmpack.host.loop.Actuator."""
        self.plans.append(decided)
        moving = tuple(action for action in decided.actions if action.name not in self.stuck)
        seen = builders.host(*self.guests.values())
        after = builders.carried_out(seen, dataclasses.replace(decided, actions=moving))
        self.guests = {guest.uuid: guest for guest in after.guests}
        return tuple(Outcome(action, "done") for action in decided.actions)

    def write_policy(self, uuid: str, policy: GuestPolicy) -> None:
        """See vmpack.host.service.PolicyWriter."""
        self.guests[uuid] = dataclasses.replace(self.guests[uuid], policy=policy)

    def write_learned(self, uuid: str, learned: Learned | None) -> None:
        """See vmpack.host.lessons.LearnedWriter."""
        if self.refuses_learned:
            raise GuestBusyError("no answer")
        self.learned_writes.append(uuid)
        self.learned[uuid] = learned

    def vms_with_learned(self) -> tuple[str, ...]:
        """See vmpack.host.lessons.LearnedWriter."""
        return tuple(uuid for uuid, learned in self.learned.items() if learned is not None)

    def named(self, name: str) -> GuestSnapshot:
        """The VM of this name as it is now."""
        return next(guest for guest in self.guests.values() if guest.name == name)

    @property
    def moves(self) -> list[SetMemory]:
        """Every balloon change that was carried out."""
        return [action for plan in self.plans for action in plan.actions if isinstance(action, SetMemory)]


class PublisherNotes:
    """Keeps what it was given."""

    def __init__(self) -> None:
        self.intervals: list[Interval] = []
        self.before: list[Remembered] = []
        self.settings: list[Settings] = []
        self.failures = 0

    def publish(
        self,
        interval: Interval,
        remembered_before: Remembered,
        settings: Settings,
        status: AgentStatus,
        took_s: float,
    ) -> tuple[str, ...]:
        """See vmpack.host.loop.Publishing."""
        self.intervals.append(interval)
        self.before.append(remembered_before)
        self.settings.append(settings)
        return ()

    def publish_failure(self) -> tuple[str, ...]:
        """See vmpack.host.loop.Publishing."""
        self.failures += 1
        return ()


class FullDisk:
    """A place to save to that fails as often as it is told to."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.saved: list[Remembered] = []

    def save(self, remembered: Remembered) -> None:
        """Keep it, or fail."""
        if self.failures:
            self.failures -= 1
            raise VmpackError("cannot write the state: disk full", "free some space")
        self.saved.append(remembered)


def about(*, observe_only: bool = False, interval_s: float = 5.0) -> AgentStatus:
    """A status before the first turn."""
    return AgentStatus("9.9.9", 4711, "double:///", observe_only, interval_s, 1_700_000_000.0, None, None)


def make_loop(
    host: HostInMemory,
    publisher: PublisherNotes | None = None,
    disk: FullDisk | None = None,
    *,
    settings: Settings = builders.EAGER,
    observe_only: bool = False,
    quiet_line_every: int | None = None,
    decision: Decision = DECISION,
    glance: Callable[[], Glance] | None = None,
) -> Loop:
    """A loop over doubles."""
    return Loop(
        clock=host.clock,
        source=host,
        glance=glance,
        actuator=host,
        publisher=publisher or PublisherNotes(),
        decision=decision,
        settings=settings,
        remembered=Remembered(),
        save=(disk or FullDisk()).save,
        about=about(observe_only=observe_only, interval_s=settings.memory.interval_s),
        quiet_line_every=quiet_line_every,
        keep_learned=Lessons(host).keep,
    )


def make_service(
    host: HostInMemory, loop: Loop, state_dir: Path, vcpus: VcpuStatus | None = None
) -> HostService:
    """A service over doubles; freezing it freezes the host in memory."""
    return HostService(
        loop=loop,
        clock=host.clock,
        source=host,
        actuator=host,
        policies=host,
        decision=DECISION,
        release=make_release(host),
        state=FreezingState(state_dir, host),
        lessons=Lessons(host),
        vcpus=NoPins(vcpus),
        metrics=lambda: b"vmpack_up 1\n",
    )


class NoPins:
    """Nothing pins vCPUs; what looks at them, if anything, found `status`."""

    def __init__(self, status: VcpuStatus | None) -> None:
        self.status = status

    def release(self, uuids: frozenset[str] | None) -> tuple[AffinityOutcome, ...]:
        """There is nothing to take off."""
        return ()

    def settle(self) -> None:
        """Nothing is under way."""

    def pin(self, vm: str, vcpu: int, cpus: Sequence[int]) -> str:
        """Done."""
        return vm


def make_release(host: HostInMemory) -> Release:
    """A release over doubles."""
    return Release(host.clock, host, host, plan_release, remember)


class FreezingState(State):
    """A state directory whose frozen flag the host in memory sees."""

    def __init__(self, directory: Path, host: HostInMemory) -> None:
        super().__init__(directory, "boot-1")
        self._host = host

    def freeze(self, on: bool) -> None:
        """See State."""
        try:
            super().freeze(on)
        finally:
            self._host.frozen = self.frozen()


def turns(loop: Loop, count: int, clock: JumpingClock) -> Sequence[Interval]:
    """So many turns, five seconds apart."""
    made = []
    for _ in range(count):
        made.append(loop.turn())
        clock.now_s += 5.0
    return made
