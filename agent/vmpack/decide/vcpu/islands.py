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
    """What has its home in one island: a VM, the part of it that is there, or one vCPU of a VM too large."""

    demand_ratio: float
    vcpus: int
    seats: tuple[int, ...]
    """pCPUs on which its vCPUs are now."""
    nodes: tuple[int, ...]
    """NUMA nodes that it is bound to; empty: any."""
    is_settled: bool
    """It is there to stay, but for what evenness demands; else it is still to be given a home."""
    stays: bool = False
    """It was moved a moment ago."""
    others: tuple[int, ...] = ()
    """pCPUs of other islands on which vCPUs of the same VM are: it may go to them alone."""


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
    """The island of each household, by index.

    One that is settled stays where most of it sits, but for what evenness demands; so does one that is not,
    where that suits it. `fixed` is the load by pCPU that cannot be moved.
    """
    island_of = {cpu: number for number, island in enumerate(islands) for cpu in island.cpus}
    known: dict[tuple[object, ...], frozenset[int]] = {}
    possible = []
    for household in households:
        key = household.vcpus, household.nodes, household.others
        if key not in known:
            known[key] = _possible(household, islands, island_of)
        possible.append(known[key])
    anywhere = len(islands)
    board = Board(
        capacities=tuple(island.capacity for island in islands),
        fixed=tuple(sum(fixed.get(cpu, 0.0) for cpu in island.cpus) for island in islands),
        sizes=tuple(household.demand_ratio for household in households),
        allowed=tuple(
            frozenset() if household.stays else None if len(choice) == anywhere else choice
            for household, choice in zip(households, possible, strict=True)
        ),
        families=(-1,) * len(households),
        cores=tuple(range(len(islands))),
    )
    seats: list[int] = []
    loads = list(board.fixed)
    for number, household in enumerate(households):
        there = [island_of[seat] for seat in household.seats if seat in island_of]
        choice = possible[number] or range(anywhere)
        if not household.is_settled:
            there = [island for island in there if island in choice]
        if there:
            seat = there[0] if len(set(there)) == 1 else Counter(there).most_common(1)[0][0]
        else:
            seat = min(choice, key=lambda one: loads[one] / islands[one].capacity)
        seats.append(seat)
        loads[seat] += board.sizes[number]
    return spread(board, seats, target_ratio)


def _possible(
    household: Household, islands: Sequence[Island], island_of: Mapping[int, int]
) -> frozenset[int]:
    """Islands that it may go to; none where there is none."""
    near = {island_of[cpu] for cpu in household.others if cpu in island_of}
    bound = [
        number
        for number, island in enumerate(islands)
        if (not household.nodes or island.node in household.nodes) and (not near or number in near)
    ]
    large = [number for number in bound if household.vcpus <= len(islands[number].cpus)]
    return frozenset(large or bound)
