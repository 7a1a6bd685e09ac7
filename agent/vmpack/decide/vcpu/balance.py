"""One pCPU for each vCPU that needs to be told: even loads, with as few changes as possible.

Called by plan.py in the mode `balance`. vCPUs that float are left to the kernel while it serves them well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import sqrt
from typing import NamedTuple

from vmpack.decide.vcpu.board import Board
from vmpack.decide.vcpu.islands import Household, Island, homes, islands_of
from vmpack.decide.vcpu.order import Change, in_order
from vmpack.decide.vcpu.seats import Seat, Seating
from vmpack.decide.vcpu.spread import spread
from vmpack.model.vcpu import Pcpu, VcpuSnapshot


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
    """Even out every island, and the islands among one another."""
    islands = islands_of(snapshot.pcpus)
    if len(islands) > 1:
        # Uneven within and uneven among one another add up by their squares.
        target_ratio /= sqrt(2)
    pcpus = {pcpu.number: pcpu for pcpu in snapshot.pcpus}
    before = levels_of(seating, snapshot.pcpus)
    home_of = _homes(snapshot, seating, islands, target_ratio)
    moves: list[Change] = []
    for number, island in enumerate(islands):
        members = [index for index, home in enumerate(home_of) if home == number]
        moves += _within(seating, island, pcpus, members, target_ratio)
    after = before.copy()
    for move in moves:
        if move.from_bin >= 0:
            after[move.from_bin] -= move.size / pcpus[move.from_bin].capacity_ratio
        after[move.to_bin] += move.size / pcpus[move.to_bin].capacity_ratio
    ordered = _ordered(moves, before, pcpus)
    return Balanced([(seating.movable[move.item], move.to_bin) for move in ordered], before, after)


def _homes(
    snapshot: VcpuSnapshot, seating: Seating, islands: Sequence[Island], target_ratio: float
) -> list[int]:
    """The island of each movable vCPU."""
    if len(islands) == 1:
        return [0] * len(seating.movable)
    largest = max(len(island.cpus) for island in islands)
    of_vm: dict[int, list[int]] = {}
    for index, seat in enumerate(seating.movable):
        of_vm.setdefault(seat.vm, []).append(index)
    groups: list[list[int]] = []
    for members in of_vm.values():
        groups += [members] if len(members) <= largest else [[member] for member in members]
    households = [_household(snapshot, seating, members) for members in groups]
    chosen = homes(islands, households, seating.fixed, target_ratio)
    home_of = [0] * len(seating.movable)
    for members, home in zip(groups, chosen, strict=True):
        for member in members:
            home_of[member] = home
    return home_of


def _household(snapshot: VcpuSnapshot, seating: Seating, members: Sequence[int]) -> Household:
    seats = [seating.movable[member] for member in members]
    return Household(
        demand_ratio=sum(seat.demand_ratio for seat in seats),
        vcpus=len(seats),
        seats=tuple(seat.cpu for seat in seats if seat.cpu is not None),
        nodes=snapshot.vms[seats[0].vm].nodes,
        stays=any(seat.stays for seat in seats),
    )


def _within(
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
        allowed=tuple(frozenset[int]() if seat.stays else None for seat in seats),
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
