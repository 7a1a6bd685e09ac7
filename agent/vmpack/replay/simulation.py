"""One draw under one policy: the loop, and what came of it.

Each step: the policy sees the host and answers; balloons move and need goes on; where the balloons are then
is what the guests had. So an answer takes effect one step after what it was made of, at the earliest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vmpack.decide.brake import reserve_bytes
from vmpack.decide.share import fill
from vmpack.model.settings import HostSettings
from vmpack.replay.draw import WARM_UP_S, Draw
from vmpack.replay.facts import DrawFacts
from vmpack.replay.guests import Eyes, Guests
from vmpack.replay.policy import Bytes, Policy
from vmpack.replay.world import World

GB = 10**9
FEASIBLE_RATIO = 0.97


@dataclass(frozen=True, slots=True)
class Score:
    """What one policy did to one draw, over its scored day."""

    policy: str
    stance: str
    overcommit: float
    demand_scale: float
    draw: int
    feasible: bool
    """The VMs' need never exceeds 0.97 of what a host of this size keeps for VMs: capacity less vmpack's
    reserve (5 %, at least 64 MiB)."""
    balloon_ratio: float
    """Mean of balloons over nominals."""
    short_gbh: float
    """Need above balloon, in 10^9 bytes times hours."""
    short_vm_min: float
    host_over_min: float
    """Resident memory of the VMs above the host's memory."""
    ops_per_vm_h: float
    """Orders to balloons: answers that differ from the answer before and from where the balloon is."""
    cache_loss_ratio: float
    """Of the page cache's working set that unballooned guests would have: the part that is missing."""
    cache_throughput_ratio: float
    """What is left of the speed of programs that use it; see Guests.cache_throughput_ratio."""


@dataclass(frozen=True, slots=True)
class Course:
    """One draw step by step, with the warm-up day. [step, VM] where not said; the first row is time 0."""

    nominal_bytes: Bytes
    capacity_bytes: int
    step_s: float
    need_bytes: Bytes
    balloon_bytes: Bytes
    resident_bytes: Bytes
    """[step]"""
    orders: Bytes
    """[step]: how many were given at the beginning of it."""
    hot_bytes: Bytes
    """[step]: working set of the page cache, had the guests no balloon."""
    hot_lost_bytes: Bytes
    """[step]: the part of it that is missing."""
    cache_throughput_ratio: NDArray[np.float64]
    """[step]"""


def capacity_bytes(drawn: Draw, overcommit: float) -> int:
    """The host's memory, for VMs that were promised `overcommit` times as much."""
    return int(int(drawn.nominal_bytes.sum()) / overcommit)


def for_vms_bytes(capacity: int) -> int:
    """What of a host's memory may go to VMs: all but the reserve that vmpack keeps by default."""
    return capacity - reserve_bytes(capacity, HostSettings())


def run(
    drawn: Draw,
    world: World,
    factory: Callable[[DrawFacts], Policy],
    overcommit: float,
    demand_scale: float = 1.0,
) -> tuple[Score, Course]:
    """Simulate one draw under one policy."""
    nominal = drawn.nominal_bytes
    kernel = world.kernel_bytes(nominal)
    need = kernel + drawn.demand_bytes(world.step_s, world.ramp_s, demand_scale, nominal - kernel)
    facts = DrawFacts(nominal, capacity_bytes(drawn, overcommit), world.step_s, need)
    silent = np.zeros(len(nominal), dtype=np.bool_)
    silent[drawn.order[: round(world.silent_ratio * len(nominal))]] = True
    policy = factory(facts)
    start = _start_bytes(nominal, need[0], for_vms_bytes(facts.capacity_bytes))
    guests, eyes = Guests(world, nominal, need[0], start), Eyes(world, facts.capacity_bytes, silent)
    course = _course(guests, eyes, policy, facts)
    return _score(course, policy, drawn.number, overcommit, demand_scale), course


def _start_bytes(nominal: Bytes, need: Bytes, for_vms: int) -> Bytes:
    """The balloons at time 0: all that the host has, by nominal, and nobody short where that is possible."""
    least, most = need.tolist(), nominal.tolist()
    if sum(least) > for_vms:
        least, most = [0] * len(least), least
    return np.array(fill(for_vms, least, most, [1] * len(least)), dtype=np.int64)


def _course(guests: Guests, eyes: Eyes, policy: Policy, facts: DrawFacts) -> Course:
    need, nominal = facts.future_need_bytes, facts.nominal_bytes
    rows = len(need)
    balloon = np.empty_like(need)
    balloon[0] = guests.balloon_bytes
    resident, orders, hot, lost = (np.zeros(rows, dtype=np.int64) for _ in range(4))
    throughput = np.ones(rows)
    asked = guests.balloon_bytes
    nothing = np.zeros_like(nominal)
    for step in range(rows - 1):
        answer = policy.decide(eyes.seen(step, step * facts.step_s, guests))
        answer = np.minimum(np.maximum(answer, nothing), nominal)
        orders[step] = np.count_nonzero((answer != asked) & (answer != guests.balloon_bytes))
        asked = answer
        guests.step(need[step + 1], answer)
        policy.carried_out(guests.balloon_bytes)
        balloon[step + 1] = guests.balloon_bytes
        resident[step + 1] = guests.touched_bytes.sum()
        hot[step + 1] = guests.hot_bytes.sum()
        lost[step + 1] = guests.hot_lost_bytes.sum()
        throughput[step + 1] = guests.cache_throughput_ratio
    return Course(
        nominal, facts.capacity_bytes, facts.step_s, need, balloon, resident, orders, hot, lost, throughput
    )


def _score(course: Course, policy: Policy, number: int, overcommit: float, demand_scale: float) -> Score:
    first = round(WARM_UP_S / course.step_s)
    scored, given = slice(first + 1, None), slice(first, -1)
    need, balloon = course.need_bytes[scored], course.balloon_bytes[scored]
    short = np.maximum(need - balloon, 0)
    over = course.resident_bytes[scored] > course.capacity_bytes
    step_min, step_h = course.step_s / 60, course.step_s / 3600
    hot = int(course.hot_bytes[scored].sum())
    return Score(
        policy=policy.name,
        stance=policy.stance,
        overcommit=overcommit,
        demand_scale=demand_scale,
        draw=number,
        feasible=bool(need.sum(axis=1).max() <= FEASIBLE_RATIO * for_vms_bytes(course.capacity_bytes)),
        balloon_ratio=float(balloon.sum(axis=1).mean() / course.nominal_bytes.sum()),
        short_gbh=float(short.sum()) * step_h / GB,
        short_vm_min=float(np.count_nonzero(short)) * step_min,
        host_over_min=float(np.count_nonzero(over)) * step_min,
        ops_per_vm_h=float(course.orders[given].sum() / (len(need) * step_h * len(course.nominal_bytes))),
        cache_loss_ratio=float(course.hot_lost_bytes[scored].sum() / hot) if hot else 0.0,
        cache_throughput_ratio=float(course.cache_throughput_ratio[scored].mean()),
    )
