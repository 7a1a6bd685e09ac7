"""The loop of one host: observe, decide, act, publish, once per interval.

Wired by vmpack.host.agent with the real clock, libvirt and files, by tests and simulations with their own:
the loop reaches for nothing. A turn that fails changes nothing more, is said once, and is tried again
with back-off; `lock` is held for a whole turn, so who holds it sees the host between turns.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from vmpack.clock import WakingClock
from vmpack.decide.explain import words
from vmpack.errors import VmpackError
from vmpack.host.pace import next_turn_s
from vmpack.host.vigil import ON_TIME_S, Vigil
from vmpack.model.action import Outcome, SetMemory
from vmpack.model.glance import Glance
from vmpack.model.host import HostSnapshot
from vmpack.model.interval import AgentStatus, Interval
from vmpack.model.plan import Plan, Reason, Remembered
from vmpack.model.settings import Settings
from vmpack.units import format_bytes, format_seconds

log = logging.getLogger(__name__)

_KILLED = (
    "%s: its guest killed a process for want of memory while packed; it is to have all its memory for %s"
)

CRASHES_MAX = 5
"""So many unforeseen errors in a row end the agent: the service manager then starts it anew, or releases."""

PlanFunction = Callable[[HostSnapshot, Remembered, Settings], Plan]
RememberFunction = Callable[[Plan, Sequence[Outcome], float], Remembered]
AlarmFunction = Callable[[Interval, Remembered, Glance, Settings], Reason | None]


class Source(Protocol):
    """Where snapshots come from."""

    def observe(self) -> HostSnapshot:
        """The host now. Raises VmpackError when there is no snapshot to be had."""
        ...


class Actuator(Protocol):
    """What carries actions out."""

    def carry_out(self, plan: Plan) -> tuple[Outcome, ...]:
        """One outcome per action, in order; never raises for what a VM or libvirt does."""
        ...


class Publishing(Protocol):
    """Where intervals go."""

    def publish(
        self,
        interval: Interval,
        remembered_before: Remembered,
        settings: Settings,
        status: AgentStatus,
        took_s: float,
    ) -> tuple[str, ...]:
        """Publish a turn that went through."""
        ...

    def publish_failure(self) -> tuple[str, ...]:
        """Count a turn that failed."""
        ...


@dataclass(frozen=True, slots=True)
class Decision:
    """The pure functions that a loop decides with."""

    plan: PlanFunction
    remember: RememberFunction
    alarm: AlarmFunction


class Loop:
    """Everything that happens once per interval."""

    def __init__(
        self,
        *,
        clock: WakingClock,
        source: Source,
        glance: Callable[[], Glance] | None = None,
        actuator: Actuator,
        publisher: Publishing,
        decision: Decision,
        settings: Settings,
        remembered: Remembered,
        save: Callable[[Remembered], None],
        about: AgentStatus,
        keep_learned: Callable[[HostSnapshot, Remembered], None] = lambda _snapshot, _remembered: None,
        after_turn: Callable[[AgentStatus], None] = lambda _status: None,
        quiet_line_every: int | None = None,
    ) -> None:
        """`about` is the status before the first turn; `quiet_line_every`: a line per so many quiet turns.

        `glance` is a cheap look between turns; without it there are no early turns but by `wake`.
        `keep_learned` may write what was learned of VMs where it goes with them; it never raises.
        """
        self.lock = threading.RLock()
        self.settings = settings
        self.remembered = remembered
        self._clock = clock
        self._source = source
        self._glance = glance
        self._vigil = Vigil(clock, self._alarm)
        self._early = ""
        self._actuator = actuator
        self._publisher = publisher
        self._decision = decision
        self._save = save
        self._status = about
        self._keep_learned = keep_learned
        self._after_turn = after_turn
        self._quiet_line_every = quiet_line_every
        self._quiet_turns = 0
        self._save_fault = ""
        self.acted = False
        """True once anything was carried out: then there is something to give back."""

    @property
    def status(self) -> AgentStatus:
        """What the agent says of itself; may be read from any thread, without the lock."""
        return self._status

    def turn(self) -> Interval:
        """Observe, decide, act, remember, publish, once. Raises VmpackError when the host cannot be seen."""
        with self.lock:
            before, settings, observe_only = self.remembered, self.settings, self._status.observe_only
            started_s = self._clock.time_s()
            snapshot = self._source.observe()
            plan = self._decision.plan(snapshot, before, settings)
            allowed = not (observe_only or snapshot.frozen)
            self.acted = self.acted or (allowed and bool(plan.actions))
            outcomes = self._actuator.carry_out(plan) if allowed else ()
            self.keep(self._decision.remember(plan, outcomes, snapshot.time_s))
            last = self._status.interval
            interval = Interval(last.number + 1 if last else 1, snapshot, plan, outcomes)
            took_s = self._clock.time_s() - started_s
            self._status = dataclasses.replace(self._status, last_error=None, interval=interval)
            self._publisher.publish(interval, before, settings, self._status, took_s)
            self._report(interval, took_s)
            if allowed:
                self._keep_learned(snapshot, self.remembered)
            return interval

    def attempt(self) -> bool:
        """One turn; False when it failed in a way that is understood. Raises what is not understood."""
        try:
            failed_before = self._status.last_error is not None
            self.turn()
        except VmpackError as error:
            if str(error) != self._status.last_error:
                log.error("this interval failed, nothing more was changed: %s", error)
            self._failed(str(error))
            return False
        if failed_before:
            log.info("works again")
        return True

    def run(self) -> None:
        """Turn after turn, without drift, until the clock is asked to stop.

        Raises an unforeseen error only when it comes back CRASHES_MAX times in a row.
        """
        due_s = self._clock.time_s()
        failures = crashes = 0
        while True:
            try:
                failures = 0 if self.attempt() else failures + 1
                crashes = 0
            except Exception as error:  # the loop's boundary: a defect must not orphan the VMs
                failures, crashes = failures + 1, crashes + 1
                log.exception("a defect in vmpack ended this interval; please report it")
                self._failed(f"{type(error).__name__}: {error}")
                if crashes >= CRASHES_MAX:
                    raise
            self._after_turn(self._status)
            if failures or self._clock.time_s() >= due_s - ON_TIME_S:
                due_s = self._next_s(due_s, failures)
            if self._rest(due_s):
                return

    def wake(self, why: str) -> None:
        """Have the next turn come now, because of this, unless turns fail. May come from any thread."""
        self._vigil.wake(why)

    def nudge(self) -> None:
        """Have the next glance come at once: a balloon has moved. May come from any thread."""
        self._vigil.nudge()

    def reconfigure(self, settings: Settings, observe_only: bool) -> None:
        """Decide with these from the next turn on."""
        with self.lock:
            self.settings = settings
            self._status = dataclasses.replace(
                self._status, observe_only=observe_only, interval_s=settings.memory.interval_s
            )

    def keep(self, remembered: Remembered) -> None:
        """Remember this from now on, also on disk; a disk that fails is said once. Call it with the lock."""
        self.remembered = remembered
        try:
            self._save(remembered)
            if self._save_fault:
                log.info("what is remembered is kept again")
            self._save_fault = ""
        except VmpackError as error:
            if str(error) != self._save_fault:
                log.warning("what is remembered would be lost by a restart: %s", error)
            self._save_fault = str(error)

    def _rest(self, due_s: float) -> bool:
        """Wait for the next turn. True when asked to stop."""
        if self._status.last_error is not None:
            self._early = ""
            return self._vigil.sit_out(due_s)
        last, memory = self._status.interval, self.settings.memory
        glances = self._glance is not None and last is not None and not last.snapshot.frozen
        why = self._vigil.keep(due_s, memory.glance_s if glances else 0.0, memory.interval_s)
        self._early = why or ""
        return why is None

    def _alarm(self) -> str:
        """What a glance shows that cannot wait for the next turn, "" for nothing."""
        last = self._status.interval
        if self._glance is None or last is None or last.snapshot.frozen:
            return ""
        reason = self._decision.alarm(last, self.remembered, self._glance(), self.settings)
        return words(reason)[0] if reason else ""

    def _failed(self, why: str) -> None:
        with self.lock:
            self._status = dataclasses.replace(self._status, last_error=why)
            self._publisher.publish_failure()

    def _next_s(self, due_s: float, failures: int) -> float:
        return next_turn_s(self._clock.time_s(), due_s, self.settings.memory.interval_s, failures)

    def _report(self, interval: Interval, took_s: float) -> None:
        if self._early:
            level = logging.INFO if interval.outcomes else logging.DEBUG
            log.log(level, "this turn came early, because %s", printable(self._early))
            self._early = ""
        why = {guest.uuid: guest.reasons[-1] for guest in interval.plan.guests if guest.reasons}
        for outcome in interval.outcomes:
            reason = why.get(outcome.action.uuid) if isinstance(outcome.action, SetMemory) else None
            level = logging.WARNING if outcome.status == "failed" else logging.INFO
            log.log(level, "%s%s", outcome_line(outcome), f": {words(reason)[0]}" if reason else "")
        for known in interval.plan.remembered.guests.values():
            if known.killed_s == interval.snapshot.time_s and known.kill_floor_until_s is not None:
                kept_s = format_seconds(known.kill_floor_until_s - known.killed_s)
                log.warning(_KILLED, printable(known.name), kept_s)
        log.debug("%s, took %.0f ms", summary_line(interval), took_s * 1000)
        self._quiet_turns = 0 if interval.outcomes else self._quiet_turns + 1
        every = self._quiet_line_every
        if every and (interval.number == 1 or self._quiet_turns % every == every - 1):
            log.info("%s", summary_line(interval))


def outcome_line(outcome: Outcome) -> str:
    """One outcome for people: "web1: 256 MiB -> 230 MiB, done"."""
    action = outcome.action
    if isinstance(action, SetMemory):
        change = f"{format_bytes(action.from_bytes)} -> {format_bytes(action.to_bytes)}"
    else:
        change = f"statistics every {action.period_s} s" if action.period_s else "statistics off"
    reached = f" at {format_bytes(outcome.reached_bytes)}" if outcome.reached_bytes is not None else ""
    detail = f" ({printable(outcome.detail)})" if outcome.detail else ""
    shown = "done" if outcome.status == "done" else f"{outcome.status}{reached}{detail}"
    return f"{printable(action.name)}: {change}, {shown}"


def summary_line(interval: Interval) -> str:
    """The whole host in one line for people."""
    plan, guests = interval.plan, interval.snapshot.guests
    frozen = ", frozen" if interval.snapshot.frozen else ""
    return (
        f"{len(guests)} VM{'' if len(guests) == 1 else 's'}, "
        f"packed {format_bytes(plan.offer.packed_bytes)} of "
        f"{format_bytes(sum(guest.nominal_bytes for guest in guests))}, "
        f"offered {format_bytes(plan.offer.memory_bytes)}{frozen}"
    )


def printable(text: str) -> str:
    """Text from a guest or a VM's owner without anything that could steer a terminal or forge a log line."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
