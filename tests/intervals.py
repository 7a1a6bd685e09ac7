"""Whole intervals for tests of what comes after a decision: real plans, nothing invented."""

from __future__ import annotations

import dataclasses
import functools

from tests import builders
from vmpack.decide import memory
from vmpack.model import codec
from vmpack.model.action import Outcome
from vmpack.model.guest import GuestSnapshot, VcpuTime
from vmpack.model.host import HostSnapshot, Pressure
from vmpack.model.interval import AgentStatus, Interval
from vmpack.model.plan import Remembered
from vmpack.model.settings import Settings
from vmpack.publish.journal import Correction, Header

VERSION = "9.9.9"
STEP_S = 5.0


def uuid_of(index: int) -> str:
    """A well-formed uuid that tells its guest."""
    return f"00000000-0000-4000-8000-{index:012x}"


def guest(index: int = 1, name: str | None = None, **mib: int) -> GuestSnapshot:
    """A running guest of 256 MiB; `used` and `balloon` in MiB."""
    return builders.guest(
        name if name is not None else f"web-{index}",
        uuid=uuid_of(index),
        vcpus=(VcpuTime(0, 123_456_789 + index, 5_000), VcpuTime(1, 98_765_432, None)),
        **mib,
    )


def snapshot(guests: tuple[GuestSnapshot, ...], *, frozen: bool = False) -> HostSnapshot:
    """A large host with these guests."""
    pressure = Pressure(0.01, 0.0, 4200, 17)
    return builders.host(*guests, pressure=pressure, frozen=frozen)


def decided(
    number: int, seen: HostSnapshot, remembered: Remembered, settings: Settings = builders.EAGER
) -> Interval:
    """One turn: a real plan, every action of it done."""
    plan = memory.plan(seen, remembered, settings)
    return Interval(number, seen, plan, tuple(Outcome(action, "done") for action in plan.actions))


def interval(*guests: GuestSnapshot, frozen: bool = False) -> Interval:
    """The first turn of an agent that meets these guests."""
    return decided(1, snapshot(guests, frozen=frozen), Remembered())


def history_of(
    count: int,
    *,
    guests: int = 2,
    first: int = 1,
    settings: Settings = builders.EAGER,
    steady: bool = False,
) -> list[tuple[Interval, Remembered]]:
    """`count` turns, each with what its decision got; the guests come to use more and less, or are steady."""
    turns: list[tuple[Interval, Remembered]] = []
    remembered = Remembered()
    seen = snapshot(tuple(guest(index) for index in range(guests)))
    for number in range(first, first + count):
        turn = decided(number, seen, remembered, settings)
        turns.append((turn, remembered))
        remembered = memory.remember(turn.plan, turn.outcomes, seen.time_s)
        later = builders.carried_out(seen, turn.plan, STEP_S)
        seen = later if steady else _moved_on(later, number)
    return turns


@functools.cache
def segment_bytes() -> int:
    """A segment of the journal that is about full after some tens of turns of two guests.

    The writer wants room for a header and a line before they are packed: it grows with what is remembered.
    """
    turn, remembered = history_of(30)[-1]
    header = Header(VERSION, remembered, builders.SETTINGS, True, Correction(remembered.guests, remembered))
    line = len(codec.dumps(turn.snapshot)) + len(codec.dumps(turn.plan)) + len(codec.dumps(turn.outcomes))
    return len(codec.dumps(header)) + line + 300


def _moved_on(seen: HostSnapshot, number: int) -> HostSnapshot:
    swing_bytes = (number * 7 % 5 - 2) * 6 * 1024 * 1024
    guests = []
    for entry in seen.guests:
        stats = entry.stats
        assert stats is not None
        usable_bytes = min(max(0, stats.usable_bytes + swing_bytes), stats.available_bytes)
        guests.append(dataclasses.replace(entry, stats=dataclasses.replace(stats, usable_bytes=usable_bytes)))
    return dataclasses.replace(seen, guests=tuple(guests))


def status(observe_only: bool = False) -> AgentStatus:
    """A running agent."""
    return AgentStatus(VERSION, 4711, "qemu:///system", observe_only, STEP_S, 1_700_000_000.0, None, None)
