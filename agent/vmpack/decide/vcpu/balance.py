"""One pCPU for each vCPU that needs to be told: even loads, with as few changes as possible.

Called by plan.py in the mode `balance`. vCPUs that float are left to the kernel while it serves them well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import sqrt
from typing import NamedTuple

from vmpack.decide.vcpu.board import Board, std_ratio
from vmpack.decide.vcpu.islands import Household, Island, homes, islands_of
from vmpack.decide.vcpu.order import Change, in_order
from vmpack.decide.vcpu.seats import Seat, Seating
from vmpack.decide.vcpu.spread import spread
from vmpack.model.vcpu import Pcpu, VcpuSnapshot, VmVcpus


class Balanced(NamedTuple):
    """Which vCPUs go where, and what becomes of the loads."""

    moves: list[tuple[Seat, int]]
    """In the order in which they are to be made."""
    before: dict[int, float]
    """Level of each pCPU: its load over its capacity. So is the next."""
    after: dict[int, float]


def levels_of(seating: Seating, pcpus: Sequence[Pcpu]) -> dict[int, float]:
    """Level of each pCPU as all sit now."""
    loads = seating.fixed.copy()
    for seat in seating.movable:
        if seat.cpu is not None:
            loads[seat.cpu] += seat.demand_ratio
    return {pcpu.number: loads[pcpu.number] / pcpu.capacity_ratio for pcpu in pcpus}


def balance(snapshot: VcpuSnapshot, seating: Seating, target_ratio: float) -> Balanced:
    """Even out every island, and the islands among one another where that makes the whole more even."""
    islands = islands_of(snapshot.pcpus)
    if len(islands) == 1:
        return _balanced(snapshot, seating, islands, [0] * len(seating.movable), target_ratio)
    # Uneven within and uneven among one another add up by their squares.
    target_ratio /= sqrt(2)
    for may_leave in (True, False):
        home_of = _homes(snapshot, seating, islands, target_ratio, may_leave)
        done = _balanced(snapshot, seating, islands, home_of, target_ratio)
        if std_ratio(list(done.after.values())) <= std_ratio(list(done.before.values())):
            break
    return done


def _balanced(
    snapshot: VcpuSnapshot,
    seating: Seating,
    islands: Sequence[Island],
    home_of: Sequence[int],
    target_ratio: float,
) -> Balanced:
    pcpus = {pcpu.number: pcpu for pcpu in snapshot.pcpus}
    before = levels_of(seating, snapshot.pcpus)
    members: list[list[int]] = [[] for _ in islands]
    for index, home in enumerate(home_of):
        members[home].append(index)
    moves: list[Change] = []
    for island, of_island in zip(islands, members, strict=True):
        moves += _within(snapshot, seating, island, pcpus, of_island, target_ratio)
    after = before.copy()
    for move in moves:
        if move.from_bin >= 0:
            after[move.from_bin] -= move.size / pcpus[move.from_bin].capacity_ratio
        after[move.to_bin] += move.size / pcpus[move.to_bin].capacity_ratio
    ordered = _ordered(moves, before, pcpus)
    return Balanced([(seating.movable[move.item], move.to_bin) for move in ordered], before, after)


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
    seats = [seating.movable[member] for member in members]
    cpus = tuple([seat.cpu for seat in seats if seat.cpu is not None])
    return Household(
        demand_ratio=sum([seat.demand_ratio for seat in seats]),
        vcpus=len(seats),
        seats=cpus,
        nodes=snapshot.vms[seats[0].vm].nodes,
        is_settled=bool(cpus),
        stays=bool(cpus) and (not may_leave or any(seat.stays for seat in seats)),
        others=others,
    )


def _within(
    snapshot: VcpuSnapshot,
    seating: Seating,
    island: Island,
    pcpus: Mapping[int, Pcpu],
    members: Sequence[int],
    target_ratio: float,
) -> list[Change]:
    """Changes that even out one island, those that come in among them."""
    index_of = {cpu: index for index, cpu in enumerate(island.cpus)}
    seats = [seating.movable[member] for member in members]
    kin = Counter(seat.vm for seat in seats)
    capacities = tuple(pcpus[cpu].capacity_ratio for cpu in island.cpus)
    board = Board(
        capacities=capacities,
        fixed=tuple(seating.fixed[cpu] for cpu in island.cpus),
        sizes=tuple(seat.demand_ratio for seat in seats),
        allowed=tuple(
            frozenset[int]() if seat.stays or _is_astray(snapshot.vms[seat.vm], island) else None
            for seat in seats
        ),
        families=tuple(seat.vm if 1 < kin[seat.vm] <= len(capacities) else -1 for seat in seats),
        cores=tuple(pcpus[cpu].core for cpu in island.cpus),
    )
    begun = _settled(board, [index_of.get(-1 if seat.cpu is None else seat.cpu) for seat in seats])
    ended = spread(board, begun, target_ratio)
    changes = []
    for member, seat, to_bin in zip(members, seats, ended, strict=True):
        cpu = island.cpus[to_bin]
        if cpu != seat.cpu:
            changes.append(Change(member, -1 if seat.cpu is None else seat.cpu, cpu, seat.demand_ratio))
    return changes


def _is_astray(vm: VmVcpus, island: Island) -> bool:
    """Its memory is elsewhere, so there is no other place for it here."""
    return bool(vm.nodes) and island.node not in vm.nodes


def _settled(board: Board, seats: Sequence[int | None]) -> list[int]:
    """Those that come from elsewhere sit down where the level is lowest, the largest first."""
    settled = [-1 if seat is None else seat for seat in seats]
    loads = list(board.fixed)
    families: list[set[int]] = [{-1} for _ in loads]
    for item, seat in enumerate(settled):
        if seat >= 0:
            loads[seat] += board.sizes[item]
            families[seat].add(board.families[item])
    bins = range(len(loads))
    for item in sorted((i for i, seat in enumerate(settled) if seat < 0), key=lambda one: -board.sizes[one]):
        family = board.families[item]
        free = [number for number in bins if family < 0 or family not in families[number]]
        to_bin = min(free or bins, key=lambda one: (loads[one] + board.sizes[item]) / board.capacities[one])
        settled[item] = to_bin
        loads[to_bin] += board.sizes[item]
        families[to_bin].add(family)
    return settled


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
