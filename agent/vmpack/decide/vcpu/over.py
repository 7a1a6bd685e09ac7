"""vCPUs over some pCPUs: the board for it, and what changes. Called by balance.py."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from vmpack.decide.vcpu.board import Board
from vmpack.decide.vcpu.islands import Island
from vmpack.decide.vcpu.order import Change
from vmpack.decide.vcpu.seats import Seating
from vmpack.decide.vcpu.spread import spread
from vmpack.model.vcpu import VcpuSnapshot


def over(
    snapshot: VcpuSnapshot,
    seating: Seating,
    cpus: Sequence[int],
    members: Sequence[int],
    reach: Sequence[frozenset[int] | None],
    target_ratio: float,
    islands: Sequence[Island] = (),
) -> list[Change]:
    """Changes that even out these pCPUs; of those members that come from elsewhere too.

    `members` are indexes of `seating.movable`, `reach` has the pCPUs that each may go to (None: any of them).
    Over several `islands` no VM that fits into one comes to spread over more of them than now.
    """
    pcpus = {pcpu.number: pcpu for pcpu in snapshot.pcpus}
    index_of = {cpu: index for index, cpu in enumerate(cpus)}
    seats = [seating.movable[member] for member in members]
    kin = Counter(seat.vm for seat in seats)
    allowed = [_bins(place, index_of) for place in reach]
    rooms = [len(cpus) if bins is None else len(bins) for bins in allowed]
    island_of = {cpu: number for number, island in enumerate(islands) for cpu in island.cpus}
    largest = max((len(island.cpus) for island in islands), default=0)
    spread_now: dict[int, set[int]] = {}
    for seat in seats:
        if islands and kin[seat.vm] > 1:
            places = spread_now.setdefault(seat.vm, set())
            if seat.cpu is not None:
                places.add(island_of[seat.cpu])
    board = Board(
        capacities=tuple(pcpus[cpu].capacity_ratio for cpu in cpus),
        fixed=tuple(seating.fixed[cpu] for cpu in cpus),
        sizes=tuple(seat.demand_ratio for seat in seats),
        allowed=tuple(
            frozenset[int]() if seat.stays else bins for seat, bins in zip(seats, allowed, strict=True)
        ),
        families=tuple(
            seat.vm if 1 < kin[seat.vm] <= room else -1 for seat, room in zip(seats, rooms, strict=True)
        ),
        cores=tuple(pcpus[cpu].core for cpu in cpus),
        islands=tuple(island_of[cpu] for cpu in cpus) if islands else (),
        limits={vm: max(1, len(places)) for vm, places in spread_now.items() if kin[vm] <= largest},
    )
    begun = _settled(board, [index_of.get(-1 if seat.cpu is None else seat.cpu) for seat in seats])
    ended = spread(board, begun, target_ratio)
    changes = []
    for member, seat, to_bin in zip(members, seats, ended, strict=True):
        cpu = cpus[to_bin]
        if cpu != seat.cpu:
            changes.append(Change(member, -1 if seat.cpu is None else seat.cpu, cpu, seat.demand_ratio))
    return changes


def _bins(cpus: frozenset[int] | None, index_of: dict[int, int]) -> frozenset[int] | None:
    if cpus is None or len(cpus) == len(index_of):
        return None
    return frozenset(index_of[cpu] for cpu in cpus)


def _settled(board: Board, seats: Sequence[int | None]) -> list[int]:
    """Those that come from elsewhere sit down where they may and the level is lowest, the largest first."""
    settled = [-1 if seat is None else seat for seat in seats]
    if -1 not in settled:
        return settled
    loads = list(board.fixed)
    families: list[set[int]] = [{-1} for _ in loads]
    for item, seat in enumerate(settled):
        if seat >= 0:
            loads[seat] += board.sizes[item]
            families[seat].add(board.families[item])
    for item in sorted((i for i, seat in enumerate(settled) if seat < 0), key=lambda one: -board.sizes[one]):
        family = board.families[item]
        bins = _near(board, item, settled)
        free = [number for number in bins if family < 0 or family not in families[number]]
        to_bin = min(free or bins, key=lambda one: (loads[one] + board.sizes[item]) / board.capacities[one])
        settled[item] = to_bin
        loads[to_bin] += board.sizes[item]
        families[to_bin].add(family)
    return settled


def _near(board: Board, item: int, seats: Sequence[int]) -> Sequence[int]:
    """The bins that it may go to; where its family may spread no farther, those of its islands."""
    bins = sorted(board.allowed[item] or range(len(board.capacities)))
    family = board.families[item]
    if family not in board.limits:
        return bins
    kin = {
        board.islands[seat]
        for other, seat in zip(board.families, seats, strict=True)
        if other == family and seat >= 0
    }
    if len(kin) < board.limits[family]:
        return bins
    return [number for number in bins if board.islands[number] in kin] or bins
