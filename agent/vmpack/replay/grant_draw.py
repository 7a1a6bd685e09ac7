"""Draws for simulations of offers: a host full of its own VMs, and a queue of others that would come.

The first day is there to learn from. From the second on others come, one at a time, at an even distance. Same
trace, seed and number: the same VMs in the same order, whatever the policy.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vmpack.errors import BadDataError
from vmpack.replay.draw import SCORED_S, WARM_UP_S, Draw, draw
from vmpack.replay.policy import Bytes
from vmpack.replay.trace import DAY_S, Trace
from vmpack.replay.world import World


@dataclass(frozen=True, slots=True)
class GrantDraw:
    """One host."""

    number: int
    own: int
    """How many VMs are its own: the first ones. Their nominals fill it."""
    nominal_bytes: Bytes
    """[VM]; those after its own come in this order."""
    need_bytes: Bytes
    """[step, VM]"""
    arrival_steps: NDArray[np.int64]
    """When each of the others comes, by its place after the own ones."""

    @property
    def capacity_bytes(self) -> int:
        """The host's memory."""
        return int(self.nominal_bytes[: self.own].sum())


def grant_draw(
    trace: Trace, world: World, vms: int, seed: int, number: int, every_s: float, scale: float
) -> GrantDraw:
    """Draw a host of `vms` VMs; of the trace's others one comes every `every_s`.

    When all have come, they come again with their use of other days, at the same time of day. Raises
    BadDataError for a trace of less than two days, or without other VMs.
    """
    own = draw(trace, vms, seed, number)
    others = [place for place, name in enumerate(trace.names) if name not in set(own.names)]
    if not others:
        raise BadDataError("the trace has no VMs beside the host's own", "give fewer --vms, or another trace")
    random = np.random.default_rng([seed, number, 1])
    wanted = int(SCORED_S // every_s)
    days = [own.day, *(day for day in range(1, trace.days) if day != own.day)]
    queue: list[tuple[int, int]] = []
    for turn in range(-(-wanted // len(others))):
        day = days[turn % len(days)]
        queue += [(others[place], day) for place in random.permutation(len(others))]
    parts = [own, *_coming(trace, own, queue[:wanted])]
    return _laid_out(parts, world, number, wanted, every_s, scale)


def _coming(trace: Trace, own: Draw, queue: list[tuple[int, int]]) -> list[Draw]:
    """The VMs that come, in order; those of one day in a row together."""
    parts = []
    begin = 0
    for end in range(1, len(queue) + 1):
        if end < len(queue) and queue[end][1] == queue[begin][1]:
            continue
        places, day = [place for place, _ in queue[begin:end]], queue[begin][1]
        slots = slice((day - 1) * DAY_S // trace.slot_s, (day + 1) * DAY_S // trace.slot_s)
        names = tuple(trace.names[place] for place in places)
        used = trace.used_bytes[places, slots]
        parts.append(
            replace(own, day=day, names=names, nominal_bytes=trace.nominal_bytes[places], used_bytes=used)
        )
        begin = end
    return parts


def _laid_out(
    parts: list[Draw], world: World, number: int, wanted: int, every_s: float, scale: float
) -> GrantDraw:
    needs = []
    for part in parts:
        kernel = world.kernel_bytes(part.nominal_bytes)
        use = part.demand_bytes(world.step_s, world.ramp_s, scale, part.nominal_bytes - kernel)
        needs.append(kernel + use)
    arrivals = np.round((WARM_UP_S + np.arange(wanted) * every_s) / world.step_s).astype(np.int64)
    nominal = np.concatenate([part.nominal_bytes for part in parts])
    return GrantDraw(number, len(parts[0].names), nominal, np.hstack(needs), arrivals)
