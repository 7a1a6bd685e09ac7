"""When pins are changed at all: is it time, and is it worth it? Called by plan.py in the mode `balance`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from vmpack.decide.vcpu.balance import Balanced
from vmpack.decide.vcpu.board import std_ratio
from vmpack.decide.vcpu.seats import Seat, Seating
from vmpack.model.vcpu import Pcpu

FLOATS_PATIENCE_INTERVALS = 2
PATIENCE_INTERVALS = 3
"""So often in a row loads that did not change must be uneven before anything is done about it."""
LONG_PATIENCE_INTERVALS = 18
"""So often, while they are uneven by less than DEAD_BAND times the target; and before it is tried again."""
DEAD_BAND = 1.3
CLEAR = 4.0
"""Loads that are uneven by so many targets at first sight are no chance."""
CLEAR_PART = 0.75
"""So much of the variance must go at first sight: a load that has just begun was not seen whole."""
NO_NOISE = 0.1
"""Loads are steady whose average is known to so many targets."""
NOISES = 3.0
"""By so many standard deviations of what is seen of the loads they must become more even."""
LEAST_PART = 0.25
"""So much of the variance must go, where no load has changed."""
LEAST_GAIN = 4.0
"""By so many squared targets each change must lower the sum of squares, where no load has changed."""
CERTAIN_PART = 0.5
"""Where so much of the variance goes, it is not by differences that are none; nor where so much of what is
won is won without them.
"""
ALIKE_RATIO = 0.02
"""Of the time: nobody's running and waiting are counted better. What follows for his demand is worse by
1 / (1 - the time that he waits). Demands are alike that differ by no more.
"""


Sight = Literal["not_yet", "first", "known"]
"""How well uneven loads were seen: not well enough, for the first time, or for long enough."""


def sight(seated: Seating, std: float, uneven: int, target: float) -> Sight:
    """At first sight where loads are new or have changed and are clearly uneven, else after some patience.

    The first look at a load may be chance, and where a vCPU that floats was seen says little by itself.
    `uneven`: for so many looks in a row they have been more uneven than the target.
    """
    if std <= target:
        return "not_yet"
    if seated.is_settled or (seated.floats_wait and uneven == FLOATS_PATIENCE_INTERVALS):
        return "known"
    if uneven % LONG_PATIENCE_INTERVALS == 0:
        return "known"
    if uneven == PATIENCE_INTERVALS and std > DEAD_BAND * target:
        return "known"
    clear = seated.is_fresh and std > CLEAR * target and not seated.floats_wait
    return "first" if clear else "not_yet"


def is_worth(seated: Seating, done: Balanced, pcpus: Sequence[Pcpu], seen: Sight, target: float) -> bool:
    """Is more won than chance explains, and enough by each change, where loads are not new or not steady?"""
    before, after = _unevenness(done.before, pcpus), _unevenness(done.after, pcpus)
    gain = before - after
    if gain < CERTAIN_PART * before and _gain_if_alike(seated, done, pcpus) < CERTAIN_PART * gain:
        return False
    if seen == "first" and gain < CLEAR_PART * before:
        return False
    if gain <= NOISES**2 * seated.noise_squares:
        return False
    is_new = seated.is_fresh or seated.is_settled or seated.floats_wait
    if is_new and seated.noise_squares < (target * NO_NOISE) ** 2:
        return True
    return gain >= LEAST_PART * before and (
        gain * len(pcpus) >= LEAST_GAIN * target * target * len(done.moves)
    )


def _gain_if_alike(seated: Seating, done: Balanced, pcpus: Sequence[Pcpu]) -> float:
    """What the variance falls by where all whose demands are alike want the same: else any three of five that
    want everything could seem to want more than any other three.
    """
    rooms = {pcpu.number: pcpu.capacity_ratio for pcpu in pcpus}
    goes = {(seat.vm, seat.vcpu.number): cpu for seat, cpu in done.moves}
    before, after = done.before.copy(), done.after.copy()
    for seat, demand in zip(seated.movable, _alike(seated.movable), strict=True):
        more = demand - seat.demand_ratio
        if seat.cpu is not None:
            before[seat.cpu] += more / rooms[seat.cpu]
        there = goes.get((seat.vm, seat.vcpu.number), seat.cpu)
        if there is not None:
            after[there] += more / rooms[there]
    return _unevenness(before, pcpus) - _unevenness(after, pcpus)


def _alike(seats: Sequence[Seat]) -> list[float]:
    """The demand of each; those that are alike have their mean."""
    groups: list[list[int]] = []
    most = -1.0
    for place in sorted(range(len(seats)), key=lambda one: seats[one].demand_ratio):
        seat = seats[place]
        if seat.demand_ratio > most:
            groups.append([])
            most = seat.demand_ratio + ALIKE_RATIO / max(ALIKE_RATIO, 1.0 - seat.wait_ratio)
        groups[-1].append(place)
    demands = [0.0] * len(seats)
    for group in groups:
        mean = sum(seats[place].demand_ratio for place in group) / len(group)
        for place in group:
            demands[place] = mean
    return demands


def _unevenness(levels: Mapping[int, float], pcpus: Sequence[Pcpu]) -> float:
    """Variance of the pCPUs' levels; where cores have several threads, that of the cores' levels on top."""
    of_core: dict[int, list[float]] = {}
    for pcpu in pcpus:
        of_core.setdefault(pcpu.core, []).append(levels[pcpu.number])
    variance = std_ratio(list(levels.values())) ** 2
    if len(of_core) < len(pcpus):
        variance += std_ratio([sum(own) / len(own) for own in of_core.values()]) ** 2
    return variance
