"""One pCPU for each vCPU that needs to be told: even loads, with as few changes as possible.

Called by plan.py in the mode `balance`. vCPUs that float are left to the kernel while it serves them well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import NamedTuple

from vmpack.decide.vcpu.board import std_ratio
from vmpack.decide.vcpu.islands import Household, Island, homes, islands_of
from vmpack.decide.vcpu.order import Change, in_order
from vmpack.decide.vcpu.over import over
from vmpack.decide.vcpu.seats import Seat, Seating
from vmpack.decide.vcpu.spread import SLACK_RATIO, SMALL_CELLS
from vmpack.model.vcpu import Pcpu, VcpuSnapshot, VmVcpus

COUNTED_RATIO = 0.05
"""A vCPU that wants less is hardly ever seen ready to run."""


class Balanced(NamedTuple):
    """Which vCPUs go where, and what becomes of the loads."""

    moves: list[tuple[Seat, int]]
    """In the order in which they are to be made."""
    before: dict[int, float]
    """Level of each pCPU: its load over its capacity. So is the next."""
    after: dict[int, float]
    kept: Sequence[tuple[Seat, int]] = ()
    """vCPUs that float and are counted on where they are: the kernel would move them for what is pinned."""


def levels_of(seating: Seating, pcpus: Sequence[Pcpu]) -> dict[int, float]:
    """Level of each pCPU as all sit now."""
    loads = seating.fixed.copy()
    for seat in seating.movable:
        if seat.cpu is not None:
            loads[seat.cpu] += seat.demand_ratio
    return {pcpu.number: loads[pcpu.number] / pcpu.capacity_ratio for pcpu in pcpus}


def balance(snapshot: VcpuSnapshot, seating: Seating, target_ratio: float) -> Balanced:
    """Even out all pCPUs, as far as VMs stay near their memory and their siblings."""
    islands = islands_of(snapshot.pcpus)
    everything = [pcpu.number for pcpu in snapshot.pcpus]
    is_small = len(seating.movable) * len(everything) <= SMALL_CELLS
    found: list[Balanced] = []
    if is_small or len(islands) == 1:
        members, reach = range(len(seating.movable)), _reach(snapshot, seating, islands)
        several = islands if len(islands) > 1 else ()
        changes = over(snapshot, seating, everything, members, reach, target_ratio, several)
        found.append(_balanced(snapshot, seating, changes))
    if len(islands) > 1:
        for may_leave in (True, False):
            changes = _by_islands(snapshot, seating, islands, target_ratio, may_leave)
            found.append(_balanced(snapshot, seating, changes))
            if not is_small and _std(found[-1].after) <= _std(found[-1].before):
                break
    least = min(_std(one.after) for one in found)
    goal = max(target_ratio, least + SLACK_RATIO)
    fitting = [one for one in found if _std(one.after) <= goal]
    chosen = min(fitting, key=lambda one: len(one.moves))
    if not (chosen.moves and seating.floats_wait):
        return chosen
    return chosen._replace(kept=_restless(snapshot, seating, chosen.moves))


def _std(levels: Mapping[int, float]) -> float:
    return std_ratio(list(levels.values()))


def _by_islands(
    snapshot: VcpuSnapshot,
    seating: Seating,
    islands: Sequence[Island],
    target_ratio: float,
    may_leave: bool,
) -> list[Change]:
    """VMs over islands first, then each island by itself. Uneven within and uneven among one another add up
    by their squares.
    """
    each_ratio = target_ratio / sqrt(2)
    members: list[list[int]] = [[] for _ in islands]
    for index, home in enumerate(_homes(snapshot, seating, islands, each_ratio, may_leave)):
        members[home].append(index)
    changes: list[Change] = []
    for island, of_island in zip(islands, members, strict=True):
        reach = [
            frozenset[int]() if _is_astray(snapshot.vms[seating.movable[member].vm], island) else None
            for member in of_island
        ]
        changes += over(snapshot, seating, island.cpus, of_island, reach, each_ratio)
    return changes


def _balanced(snapshot: VcpuSnapshot, seating: Seating, moves: Sequence[Change]) -> Balanced:
    pcpus = {pcpu.number: pcpu for pcpu in snapshot.pcpus}
    before = levels_of(seating, snapshot.pcpus)
    after = before.copy()
    for move in moves:
        if move.from_bin >= 0:
            after[move.from_bin] -= move.size / pcpus[move.from_bin].capacity_ratio
        after[move.to_bin] += move.size / pcpus[move.to_bin].capacity_ratio
    ordered = _ordered(moves, before, pcpus)
    return Balanced([(seating.movable[move.item], move.to_bin) for move in ordered], before, after)


def _restless(
    snapshot: VcpuSnapshot, seating: Seating, moves: Sequence[tuple[Seat, int]]
) -> list[tuple[Seat, int]]:
    """Of those that stay afloat: who is where two more sit than elsewhere, or while a faster pCPU has none.

    The kernel counts who is ready to run, and hardly weighs it.
    """
    rooms = {pcpu.number: pcpu.capacity_ratio for pcpu in snapshot.pcpus}
    node_of = {pcpu.number: pcpu.node for pcpu in snapshot.pcpus}
    goes = {(seat.vm, seat.vcpu.number): cpu for seat, cpu in moves}
    counts = dict.fromkeys(rooms, 0)
    for seat in seating.movable:
        cpu = goes.get((seat.vm, seat.vcpu.number), seat.cpu)
        if cpu is not None and seat.demand_ratio >= COUNTED_RATIO:
            counts[cpu] += 1
    for cpu, count in seating.fixed_counts.items():
        counts[cpu] += count
    found = []
    for seat in seating.movable:
        if seat.is_pinned or seat.cpu is None or (seat.vm, seat.vcpu.number) in goes:
            continue
        nodes = snapshot.vms[seat.vm].nodes
        if nodes and node_of[seat.cpu] not in nodes:
            continue
        here = counts[seat.cpu], rooms[seat.cpu]
        others = set(seat.vcpu.cpus) & set(rooms) or rooms
        if any(counts[cpu] + 2 <= here[0] or (not counts[cpu] and rooms[cpu] > here[1]) for cpu in others):
            found.append((seat, seat.cpu))
    return found


def _reach(
    snapshot: VcpuSnapshot, seating: Seating, islands: Sequence[Island]
) -> list[frozenset[int] | None]:
    """The pCPUs that each vCPU may go to: those of the nodes where its VM's memory is."""
    found: list[frozenset[int] | None] = []
    for seat in seating.movable:
        nodes = snapshot.vms[seat.vm].nodes
        near = frozenset(cpu for island in islands if island.node in nodes for cpu in island.cpus)
        found.append(near if nodes else None)
    return found


def _is_astray(vm: VmVcpus, island: Island) -> bool:
    """Its memory is elsewhere, so there is no other place for it here."""
    return bool(vm.nodes) and island.node not in vm.nodes


def _homes(
    snapshot: VcpuSnapshot,
    seating: Seating,
    islands: Sequence[Island],
    target_ratio: float,
    may_leave: bool,
) -> list[int]:
    """The island of each movable vCPU. A VM of which parts sit in several is moved by these parts."""
    island_of = {cpu: number for number, island in enumerate(islands) for cpu in island.cpus}
    largest = max(len(island.cpus) for island in islands)
    of_vm: dict[int, list[int]] = {}
    for index, seat in enumerate(seating.movable):
        of_vm.setdefault(seat.vm, []).append(index)
    groups: list[list[int]] = []
    households: list[Household] = []
    for members in of_vm.values():
        is_wide = len(members) > largest
        parts: dict[int, list[int]] = {}
        for member in members:
            cpu = seating.movable[member].cpu
            parts.setdefault(member if is_wide else -1 if cpu is None else island_of[cpu], []).append(member)
        for key, part in parts.items():
            others = (
                () if is_wide else tuple(islands[other].cpus[0] for other in parts if other not in (key, -1))
            )
            groups.append(part)
            households.append(_household(snapshot, seating, part, others, may_leave))
    chosen = homes(islands, households, seating.fixed, target_ratio)
    home_of = [0] * len(seating.movable)
    for part, home in zip(groups, chosen, strict=True):
        for member in part:
            home_of[member] = home
    return home_of


def _household(
    snapshot: VcpuSnapshot,
    seating: Seating,
    members: Sequence[int],
    others: tuple[int, ...],
    may_leave: bool,
) -> Household:
    movable, demand, cpus, stays = seating.movable, 0.0, [], False
    for member in members:
        seat = movable[member]
        demand += seat.demand_ratio
        stays = stays or seat.stays
        if seat.cpu is not None:
            cpus.append(seat.cpu)
    nodes = snapshot.vms[movable[members[0]].vm].nodes
    stays = bool(cpus) and (stays or not may_leave)
    return Household(demand, len(members), tuple(cpus), nodes, bool(cpus), stays, others)


def _ordered(moves: Sequence[Change], before: Mapping[int, float], pcpus: Mapping[int, Pcpu]) -> list[Change]:
    """Those first that come from no usable pCPU: they run nowhere, or somewhere that is not theirs."""
    lost = [move for move in moves if move.from_bin < 0]
    index_of = {cpu: index for index, cpu in enumerate(pcpus)}
    cpus = list(pcpus)
    rest = [
        move._replace(from_bin=index_of[move.from_bin], to_bin=index_of[move.to_bin])
        for move in moves
        if move.from_bin >= 0
    ]
    capacities = [pcpus[cpu].capacity_ratio for cpu in cpus]
    ordered = in_order(rest, [before[cpu] for cpu in cpus], capacities)
    return lost + [move._replace(from_bin=cpus[move.from_bin], to_bin=cpus[move.to_bin]) for move in ordered]
