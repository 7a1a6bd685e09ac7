"""Carries out one plan on real VMs. The loop calls `Executor.carry_out(plan)` after each decision.

Promises: each action is checked again right before; a VM that is gone, busy or different is an Outcome and
not an exception; and the VMs never get more than the plan's free room plus what shrinking has really freed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from vmpack.act.driver import Driver, Live
from vmpack.clock import Clock
from vmpack.errors import GuestBusyError, GuestGoneError, UnavailableError, VmpackError
from vmpack.model.action import ARRIVED_BYTES, Action, Outcome, SetMemory, SetStatsPeriod, Status
from vmpack.model.plan import Plan
from vmpack.units import KIB, MIB, format_bytes

POLL_S = 0.05
SMALLEST_PART_BYTES = 4 * MIB
"""A grow that cannot be paid whole is paid in part only when the part is worth it."""
_PAGE_BYTES = 4 * KIB


class Executor:
    """Carries out plans through a Driver. Not for use by two threads at once."""

    def __init__(
        self, driver: Driver, clock: Clock, *, settle_s: float = 2.0, tolerance_bytes: int = ARRIVED_BYTES
    ) -> None:
        self._driver = driver
        self._clock = clock
        self._settle_s = settle_s
        self._tolerance_bytes = tolerance_bytes

    def carry_out(self, plan: Plan) -> tuple[Outcome, ...]:
        """Do the plan's actions and say what came of each, in their order.

        All shrinks are asked for first. A grow is paid as soon as the plan's room and what has been freed
        by then cover it, in the plan's order; what is still unpaid after `settle_s` gets what is there.
        Ends early, with `partial` outcomes, when the clock is asked to stop.
        """
        return _Run(self._driver, self._clock, self._settle_s, self._tolerance_bytes, plan).finish()


@dataclass(slots=True)
class _Move:
    """A balloon that was asked to go somewhere and is watched on its way."""

    action: SetMemory
    to_bytes: int
    reached_bytes: int
    note: str = ""
    arrived: bool = False
    fault: str = ""


class _Run:
    """One plan on its way."""

    def __init__(
        self, driver: Driver, clock: Clock, settle_s: float, tolerance_bytes: int, plan: Plan
    ) -> None:
        self._driver = driver
        self._clock = clock
        self._settle_s = settle_s
        self._tolerance_bytes = tolerance_bytes
        self._actions = plan.actions
        self._outcomes: dict[int, Outcome] = {}
        self._moves: dict[int, _Move] = {}
        # Free room by the plan's numbers, less what VMs took or were granted since; shrinks come on top.
        self._room_bytes = plan.room_bytes
        self._lost = ""

    def finish(self) -> tuple[Outcome, ...]:
        grows: deque[tuple[int, SetMemory]] = deque()
        for index, action in enumerate(self._actions):
            if isinstance(action, SetStatsPeriod):
                self._try(index, action, self._set_period)
            elif action.grows:
                grows.append((index, action))
            else:
                self._try(index, action, self._shrink)
        self._watch(lambda: self._pay_whole(grows))
        for index, action in grows:
            self._try(index, action, self._grow)
        self._watch(lambda: None)
        for index, move in self._moves.items():
            self._outcomes[index] = self._outcome_of(move)
        return tuple(self._outcomes[index] for index in range(len(self._actions)))

    def _try(self, index: int, action: Action, step: Callable[[int, Action], None]) -> None:
        """Take one step for an action; what goes wrong becomes its outcome."""
        if self._lost:
            self._conclude(index, "skipped", self._lost)
            return
        try:
            step(index, action)
        except UnavailableError as error:
            self._lose(error)
            self._conclude(index, "skipped", self._lost)
        except GuestGoneError:
            self._conclude(index, "skipped", "the VM is gone")
        except GuestBusyError as error:
            self._conclude(index, "skipped", error.message)
        except VmpackError as error:
            self._conclude(index, "failed", error.message)

    def _lose(self, error: UnavailableError) -> None:
        self._lost = f"the connection to libvirt was lost: {error.message}"

    def _conclude(self, index: int, status: Status, detail: str, reached_bytes: int | None = None) -> None:
        self._outcomes[index] = Outcome(
            self._actions[index], status, detail, reached_bytes, self._clock.time_s()
        )

    def _set_period(self, index: int, action: Action) -> None:
        assert isinstance(action, SetStatsPeriod)
        try:
            self._driver.set_stats_period(action.uuid, action.period_s)
        except (GuestBusyError, UnavailableError) as error:
            if action.gives_back:
                raise
            # Without an answer it may be set all the same: only what counts as asked is put back later.
            self._conclude(index, "partial", error.message)
            if isinstance(error, UnavailableError):
                self._lose(error)
        else:
            self._conclude(index, "done", "")

    def _shrink(self, index: int, action: Action) -> None:
        assert isinstance(action, SetMemory)
        live = self._driver.look(action.uuid)
        refusal = _refusal(action, live)
        if not refusal and live.balloon_bytes > action.from_bytes + self._tolerance_bytes:
            refusal = f"the balloon has moved to {format_bytes(live.balloon_bytes)} by itself"
        if refusal:
            self._room_bytes += _came_free(action, live)
            self._conclude(index, "skipped", refusal, live.balloon_bytes)
            return
        to_bytes = action.to_bytes // KIB * KIB
        # Also where the balloon is there already: an older order may be taking it further down.
        self._driver.set_memory(action.uuid, to_bytes)
        self._moves[index] = _Move(
            action, to_bytes, live.balloon_bytes, arrived=live.balloon_bytes <= to_bytes
        )

    def _pay_whole(self, grows: deque[tuple[int, SetMemory]]) -> None:
        """Pay the first grows in line while there is enough for each of them."""
        while grows and grows[0][1].to_bytes - grows[0][1].held_bytes <= self._purse_bytes():
            self._try(*grows.popleft(), self._grow)

    def _grow(self, index: int, action: Action) -> None:
        assert isinstance(action, SetMemory)
        live = self._driver.look(action.uuid)
        refusal = _refusal(action, live)
        if refusal:
            self._room_bytes += _came_free(action, live)
            self._conclude(index, "skipped", refusal, live.balloon_bytes)
            return
        if live.balloon_bytes >= action.to_bytes:
            self._room_bytes += _came_free(action, live)
            self._moves[index] = _Move(
                action, action.to_bytes, live.balloon_bytes, "it was there already", arrived=True
            )
            return
        to_bytes = min(action.to_bytes, action.held_bytes + self._purse_bytes()) // KIB * KIB
        is_part = to_bytes < action.to_bytes // KIB * KIB
        least_bytes = max(live.balloon_bytes, action.promised_bytes)
        if to_bytes <= least_bytes or (is_part and to_bytes - least_bytes < SMALLEST_PART_BYTES):
            self._room_bytes += _came_free(action, live)
            self._conclude(index, "skipped", "not enough memory has become free", live.balloon_bytes)
            return
        # Counted before it is asked for: a call without an answer may still take effect.
        self._room_bytes -= to_bytes - action.held_bytes
        note = f"only {format_bytes(to_bytes)} could be paid" if is_part else ""
        self._driver.set_memory(action.uuid, to_bytes)
        self._moves[index] = _Move(action, to_bytes, live.balloon_bytes, note)

    def _purse_bytes(self) -> int:
        """What grows may cost now: free room, and what the shrinks have freed so far."""
        freed = sum(
            move.action.held_bytes - max(move.reached_bytes, move.to_bytes)
            for move in self._moves.values()
            if not move.action.grows
        )
        return self._room_bytes + freed

    def _watch(self, after_each_look: Callable[[], None]) -> None:
        """Follow the balloons until they arrive, `settle_s` passes, or we are asked to stop."""
        deadline_s = self._clock.time_s() + self._settle_s
        after_each_look()
        while any(not move.arrived for move in self._moves.values()) and not self._lost:
            if self._clock.time_s() >= deadline_s or self._clock.wait(POLL_S):
                return
            for move in self._moves.values():
                if not move.arrived:
                    self._follow(move)
            after_each_look()

    def _follow(self, move: _Move) -> None:
        before_bytes = move.reached_bytes
        try:
            move.reached_bytes = self._driver.balloon_bytes(move.action.uuid)
        except UnavailableError as error:
            self._lose(error)
            return
        except VmpackError as error:
            move.arrived, move.fault = True, error.message
            return
        missing_bytes = self._missing_bytes(move)
        stands_near = move.reached_bytes == before_bytes and missing_bytes <= self._tolerance_bytes
        move.arrived = missing_bytes < _PAGE_BYTES or stands_near

    def _missing_bytes(self, move: _Move) -> int:
        missing_bytes = move.reached_bytes - move.to_bytes
        return -missing_bytes if move.action.grows else missing_bytes

    def _outcome_of(self, move: _Move) -> Outcome:
        """The outcome of a move that was asked for: `done` only when its whole way was made."""
        whole = move.to_bytes >= move.action.to_bytes // KIB * KIB or not move.action.grows
        near = self._missing_bytes(move) <= self._tolerance_bytes
        status: Status = "done" if whole and near and not move.fault else "partial"
        detail = move.fault or (self._lost if not move.arrived else "") or move.note
        if not detail and not near:
            detail = f"the balloon stands at {format_bytes(move.reached_bytes)}"
        asked_bytes = None if whole else move.to_bytes
        return Outcome(move.action, status, detail, move.reached_bytes, self._clock.time_s(), asked_bytes)


def _came_free(action: SetMemory, live: Live) -> int:
    """What the host need no longer reckon with (negative: what the VM took by itself)."""
    return action.held_bytes - max(live.balloon_bytes, action.promised_bytes)


def _refusal(action: SetMemory, live: Live) -> str:
    """Why this VM must not be touched now; empty when it may."""
    # A paused VM cannot give anything, but it can be promised what it takes when it goes on.
    if not live.running and not (live.paused and action.grows):
        return "the VM is not running"
    if live.job is not None:
        return f"another job has the VM: {live.job}"
    if live.nominal_bytes != action.nominal_bytes:
        return f"its nominal has changed to {format_bytes(live.nominal_bytes)}"
    return ""
