"""Groups of pCPUs that share a last-level cache and a NUMA node, and which VM is at home in which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from vmpack.decide.vcpu.board import Board
from vmpack.decide.vcpu.spread import spread
from vmpack.model.vcpu import Pcpu


class Island(NamedTuple):
    """One group; its vCPUs find their data near."""

    node: int
    cpus: tuple[int, ...]
    capacity: float


class Household(NamedTuple):
    """What is to have its home in one island: a VM, or one vCPU of a VM that is too large for an island."""

    demand_ratio: float
    vcpus: int
    seats: tuple[int, ...]
    """pCPUs on which its vCPUs are now."""
    nodes: tuple[int, ...]
    """NUMA nodes that it is bound to; empty: any."""
    stays: bool = False
    """It was moved a moment ago, or may not be."""


def islands_of(pcpus: Sequence[Pcpu]) -> tuple[Island, ...]:
    """Ordered by their first pCPU."""
    groups: dict[tuple[int, int], list[Pcpu]] = {}
    for pcpu in pcpus:
        groups.setdefault((pcpu.node, pcpu.cache), []).append(pcpu)
    return tuple(
        Island(node, tuple(one.number for one in members), sum(one.capacity_ratio for one in members))
        for (node, _), members in groups.items()
    )


def homes(
    islands: Sequence[Island],
    households: Sequence[Household],
    fixed: Mapping[int, float],
    target_ratio: float,
) -> list[int]:
    """The island of each household, by index: where most of it sits, but for what evenness demands.

    `fixed` is the load by pCPU that cannot be moved.
    """
    known: dict[tuple[int, tuple[int, ...]], _Fitting] = {}
    fitting = []
    for household in households:
        key = household.vcpus, household.nodes
        if key not in known:
            known[key] = _fitting(household, islands)
        fitting.append(known[key])
    island_of = {cpu: number for number, island in enumerate(islands) for cpu in island.cpus}
    board = Board(
        capacities=tuple(island.capacity for island in islands),
        fixed=tuple(sum(fixed.get(cpu, 0.0) for cpu in island.cpus) for island in islands),
        sizes=tuple(household.demand_ratio for household in households),
        allowed=tuple(
            frozenset() if household.stays else allowed
            for household, (_, allowed) in zip(households, fitting, strict=True)
        ),
        families=(-1,) * len(households),
        cores=tuple(range(len(islands))),
    )
    seats: list[int] = []
    loads = list(board.fixed)
    for number, household in enumerate(households):
        counts = Counter(island_of[seat] for seat in household.seats if seat in island_of)
        possible = fitting[number][0]
        there = [island for island, _ in counts.most_common() if household.stays or island in possible]
        seat = there[0] if there else min(possible, key=lambda one: loads[one] / islands[one].capacity)
        seats.append(seat)
        loads[seat] += board.sizes[number]
    return spread(board, seats, target_ratio)


_Fitting = tuple[list[int], frozenset[int] | None]
"""Islands by index, and the same as Board.allowed has it."""


def _fitting(household: Household, islands: Sequence[Island]) -> _Fitting:
    bound = [
        number
        for number, island in enumerate(islands)
        if not household.nodes or island.node in household.nodes
    ]
    numbers = bound or list(range(len(islands)))
    large = [number for number in numbers if household.vcpus <= len(islands[number].cpus)] or numbers
    return large, None if len(large) == len(islands) else frozenset(large)
