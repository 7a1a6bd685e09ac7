"""What happens in a soak, and when. Pure: all of it follows from one seed.

Normal churn is, for each guest, a change of need every 5 minutes, and for the host a VM start or stop every
20 minutes and one pause, one save with restore, one agent restart and one reload an hour.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Kind = Literal["need", "start_or_stop", "pause", "save", "restart", "reload"]

GUESTS = 4
NORMAL_EVERY_S: dict[Kind, float] = {
    "need": 300.0 / GUESTS,
    "start_or_stop": 1200.0,
    "pause": 3600.0,
    "save": 3600.0,
    "restart": 3600.0,
    "reload": 3600.0,
}
PHASE_S = 1800.0
SETTLE_S = (150.0, 300.0)
"""A calm phase begins with a sixth of it for settling, but not less and not more than this."""


@dataclass(frozen=True, slots=True)
class Phase:
    """A time of churn or of calm. Seconds since the begin of the soak."""

    number: int
    calm: bool
    begin_s: float
    end_s: float

    @property
    def settled_s(self) -> float:
        """From here on nothing may move, if this is a calm phase."""
        least_s, most_s = SETTLE_S
        return self.begin_s + min(most_s, max(least_s, (self.end_s - self.begin_s) / 6))


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happens. `guest` and `ratio` (0..1) are dice for those kinds that need them."""

    at_s: float
    kind: Kind
    guest: int
    ratio: float


def phases(hours: float) -> tuple[Phase, ...]:
    """Churn and calm in turn, half an hour each in a soak of whole hours; at least one of both."""
    pairs = max(1, round(hours * 3600 / PHASE_S / 2))
    length_s = hours * 3600 / (2 * pairs)
    return tuple(
        Phase(number, number % 2 == 1, number * length_s, (number + 1) * length_s)
        for number in range(2 * pairs)
    )


def events(seed: int, churn: float, times: tuple[Phase, ...]) -> tuple[Event, ...]:
    """All events of the churn phases, at `churn` times the normal rate, by time.

    All restarts are in every other churn phase, twice as many there: the agents between live long enough,
    and through churn, to show what grows.
    """
    dice = random.Random(seed)
    churns = [phase for phase in times if not phase.calm]
    found = [
        event
        for place, phase in enumerate(churns)
        for kind in NORMAL_EVERY_S
        for event in _events(dice, kind, phase, churn * _share(kind, place, len(churns)))
    ]
    return tuple(sorted(found, key=lambda event: event.at_s))


def _share(kind: Kind, place: int, churns: int) -> float:
    if kind != "restart" or churns == 1:
        return 1.0
    return 2.0 if place % 2 == 0 else 0.0


def _events(dice: random.Random, kind: Kind, phase: Phase, churn: float) -> Iterator[Event]:
    length_s = phase.end_s - phase.begin_s
    count = 0 if churn == 0 else max(1, round(length_s * churn / NORMAL_EVERY_S[kind]))
    for number in range(count):
        # One in each slice, so that a kind is never away for long.
        at_s = phase.begin_s + (number + dice.random()) * length_s / count
        yield Event(at_s, kind, dice.randrange(GUESTS), dice.random())
