"""The best that any policy of pins could do on one host: how even, and with how few changes. Branch and
bound.

Called by vcpu_contest.py, for small hosts. First the least standard deviation; then the fewest vCPUs that
must be pinned elsewhere, or pinned where they are lest the kernel move them, until it is at most the target
or, where that is more, the least one. Both are exact, or None when the search took too long. While the kernel
pours vCPUs over the pCPUs (vcpu_host.py), which is as even as can be for these, it is only known whether that
will do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from math import gcd, sqrt
from typing import NamedTuple

from vmpack.decide.vcpu.bound import least_squares
from vmpack.replay.vcpu_board import Board, Item

MOST_NODES = 30_000
NEARLY = 1e-9
QUANTUM = 1_000
"""Demands that are whole thousandths are reckoned with as whole numbers."""


class Exact(NamedTuple):
    """What was found."""

    std_points: float | None
    """The least standard deviation."""
    changes: int | None
    """The fewest."""
    pins: Mapping[tuple[str, int], tuple[int, ...]] | None
    """By VM UUID and vCPU number: the changes themselves."""


class _TookTooLong(Exception):
    """The search was given up."""


def exact(board: Board, target_points: float, most_nodes: int = MOST_NODES) -> Exact:
    """Solve. `most_nodes` bounds each of both searches, and with it the time."""
    try:
        least = min(board.squares_now, Evenest(board, most_nodes).squares())
    except _TookTooLong:
        return Exact(None, None, None)
    count = len(board.capacities)
    std_points = 100 * sqrt(least / count)
    target = max(least, count * (target_points / 100) ** 2)
    if board.squares_now <= target + NEARLY:
        return Exact(std_points, 0, {})
    if board.is_poured:
        return Exact(std_points, None, None)
    try:
        pinned = Fewest(board, target, most_nodes).pinned()
    except _TookTooLong:
        return Exact(std_points, None, None)
    pins = {board.items[place].key: (board.numbers[seat],) for place, seat in pinned.items()}
    return Exact(std_points, len(pins), pins)


class Evenest:
    """The least sum of squares: largest vCPUs first, to the emptiest pCPUs first."""

    def __init__(self, board: Board, most_nodes: int) -> None:
        self._board = board
        self._left = most_nodes
        self._order = sorted(range(len(board.items)), key=lambda place: -board.items[place].size)
        self._rest = [0.0]
        for place in reversed(self._order):
            self._rest.insert(0, self._rest[0] + board.items[place].size)
        self._seats: list[int | None] = [None] * len(board.items)
        self._seen: set[tuple[object, ...]] = set()
        self._step = _least_step(board)
        now = [item.seat for item in board.items]
        self._best = board.squares(board.loads(now))
        self._bound = _least_of_all(board)

    def squares(self) -> float:
        """The least sum of squares. Raises _TookTooLong."""
        self._place(0, list(self._board.fixed))
        return self._best

    def _place(self, at: int, loads: list[float]) -> None:
        if self._best <= self._bound + NEARLY:
            return
        board = self._board
        if at == len(self._order):
            seats = [seat for seat in self._seats if seat is not None]
            if board.near(seats):
                self._best = min(self._best, board.squares(loads))
            return
        if least_squares(loads, board.capacities, self._rest[at]) > self._best - self._step + NEARLY:
            return
        key = (at, *sorted(_likeness(board, loads, self._seats)))
        if key in self._seen:
            return
        self._seen.add(key)
        self._left -= 1
        if self._left < 0:
            raise _TookTooLong
        place = self._order[at]
        size = board.items[place].size
        for seat in sorted(range(len(loads)), key=lambda one: (loads[one] + size) / board.capacities[one]):
            if board.may(place, seat, self._seats):
                before = loads[seat]
                self._seats[place], loads[seat] = seat, before + size
                self._place(at + 1, loads)
                self._seats[place], loads[seat] = None, before


class Fewest:
    """The fewest changes for a sum of squares of at most the target: each set of vCPUs to take out, each way
    back.
    """

    def __init__(self, board: Board, target: float, most_nodes: int) -> None:
        self._board = board
        self._target = target + NEARLY
        self._left = most_nodes
        self._now = [item.seat for item in board.items]
        self._best: dict[int, int] | None = None
        capacities = board.capacities
        ideal = sum(board.loads(self._now)) / sum(capacities)
        squared = sum(room * room for room in capacities)
        aside = sqrt(self._target) * (
            1 + (sqrt(squared) / sum(capacities) if min(capacities) < max(capacities) else 0)
        )
        self._highest = [(ideal + aside) * room for room in capacities]
        """No pCPU's load may be above, else it alone is too far from the mean."""

    def pinned(self) -> dict[int, int]:
        """Item to pCPU: those that must be pinned. Raises _TookTooLong."""
        for moved in range(len(self._now) + 1):
            if self._best is not None and moved >= len(self._best):
                break
            for out in self._taken_out(moved):
                self._seen: set[tuple[object, ...]] = set()
                loads = self._board.loads(self._now)
                seats: list[int | None] = list(self._now)
                for place in out:
                    loads[self._now[place]] -= self._board.items[place].size
                    seats[place] = None
                order = sorted(out, key=lambda place: -self._board.items[place].size)
                self._put(order, 0, loads, seats)
                if self._best is not None and len(self._best) <= moved:
                    return self._best
        assert self._best is not None
        return self._best

    def _taken_out(self, count: int) -> Iterator[tuple[int, ...]]:
        """Every set of so many items that leaves no pCPU too full; of items alike always the first ones."""
        kinds: list[list[tuple[int, ...]]] = []
        for seat, load in enumerate(self._board.loads(self._now)):
            groups: dict[tuple[object, ...], list[int]] = {}
            for place, item in enumerate(self._board.items):
                if item.seat == seat:
                    groups.setdefault(self._kind(place, item), []).append(place)
            ways = [
                tuple(
                    place for own, many in zip(groups.values(), chosen, strict=True) for place in own[:many]
                )
                for chosen in product(*(range(min(len(own), count) + 1) for own in groups.values()))
            ]
            over = load - self._highest[seat] - NEARLY
            sizes = [item.size for item in self._board.items]
            kinds.append(
                [way for way in ways if len(way) <= count and sum(sizes[one] for one in way) >= over]
            )
            if not kinds[-1]:
                return
        least = [0]
        for some in reversed(kinds):
            least.insert(0, least[0] + min(map(len, some)))
        yield from self._combined(kinds, least, 0, count, ())

    def _combined(
        self,
        kinds: list[list[tuple[int, ...]]],
        least: list[int],
        at: int,
        count: int,
        chosen: tuple[int, ...],
    ) -> Iterator[tuple[int, ...]]:
        if at == len(kinds):
            if len(chosen) == count:
                yield chosen
            return
        for way in kinds[at]:
            if len(chosen) + len(way) + least[at + 1] <= count:
                self._left -= 1
                if self._left < 0:
                    raise _TookTooLong
                yield from self._combined(kinds, least, at + 1, count, (*chosen, *way))

    def _kind(self, place: int, item: Item) -> tuple[object, ...]:
        alone = sum(other.vm == item.vm for other in self._board.items) == 1
        return item.size, item.allowed, item.floating, -1 if alone else place

    def _put(self, order: list[int], at: int, loads: list[float], seats: list[int | None]) -> None:
        board = self._board
        left = sum(board.items[place].size for place in order[at:])
        if least_squares(loads, board.capacities, left) > self._target:
            return
        if at == len(order):
            self._found([seat for seat in seats if seat is not None], loads)
            return
        key = (
            at,
            *sorted(zip(_likeness(board, loads, seats), _restlessness(board, seats), strict=True)),
        )
        if key in self._seen:
            return
        self._seen.add(key)
        self._left -= 1
        if self._left < 0:
            raise _TookTooLong
        place = order[at]
        size = board.items[place].size
        for seat in sorted(range(len(loads)), key=lambda one: (loads[one] + size) / board.capacities[one]):
            if loads[seat] + size <= self._highest[seat] + NEARLY and board.may(place, seat, seats):
                before = loads[seat]
                seats[place], loads[seat] = seat, before + size
                self._put(order, at + 1, loads, seats)
                seats[place], loads[seat] = None, before

    def _found(self, seats: list[int], loads: list[float]) -> None:
        board = self._board
        if board.squares(loads) > self._target or not board.near(seats):
            return
        moved = [place for place, seat in enumerate(seats) if seat != self._now[place]]
        pinned = {place: seats[place] for place in (*moved, *board.restless(seats))}
        if self._best is None or len(pinned) < len(self._best):
            self._best = pinned


def _likeness(
    board: Board, loads: Sequence[float], seats: Sequence[int | None]
) -> list[tuple[float, int, int, float, tuple[int, ...]]]:
    """By pCPU: all that what is still to come depends on. Two that are alike may be exchanged."""
    vms: list[list[int]] = [[] for _ in loads]
    several = {*board.apart, *board.together}
    for item, seat in zip(board.items, seats, strict=True):
        if seat is not None and item.vm in several:
            vms[seat].append(item.vm)
    return [
        (
            board.capacities[seat],
            board.nodes[seat],
            seat if board.odd else -1,
            round(load, 9),
            tuple(sorted(vms[seat])),
        )
        for seat, load in enumerate(loads)
    ]


def _restlessness(board: Board, seats: Sequence[int | None]) -> list[tuple[int, tuple[int, ...]]]:
    """By pCPU: what the kernel counts there, and how far those may go whom it may move."""
    counts = list(board.fixed_count)
    floats: list[list[int]] = [[] for _ in counts]
    for item, seat in zip(board.items, seats, strict=True):
        if seat is None:
            continue
        counts[seat] += 1
        if item.floating and seat == item.seat:
            floats[seat].append(len(item.floating))
    return [(count, tuple(sorted(own))) for count, own in zip(counts, floats, strict=True)]


def _unit(board: Board) -> float:
    """What all demands are whole multiples of, over the pCPUs' capacity; 0 where that is no help."""
    sizes = [*(item.size for item in board.items), *board.fixed]
    wholes = [round(size * QUANTUM) for size in sizes]
    alike = len(set(board.capacities)) == 1
    if not alike or any(
        abs(whole - size * QUANTUM) > 1e-6 for whole, size in zip(wholes, sizes, strict=True)
    ):
        return 0.0
    return gcd(*wholes) / QUANTUM / board.capacities[0]


def _least_step(board: Board) -> float:
    """By how much sums of squares differ at least: of whole numbers with one sum they are odd, or even,
    together.
    """
    return 2 * _unit(board) ** 2


def _least_of_all(board: Board) -> float:
    """What no seats can get below: whole units do not always divide evenly."""
    unit, count = _unit(board), len(board.capacities)
    total = sum(board.fixed) + sum(item.size for item in board.items)
    least = least_squares(board.fixed, board.capacities, total - sum(board.fixed))
    if not unit:
        return least
    rest = round(total / board.capacities[0] / unit) % count
    return max(least, unit * unit * rest * (count - rest) / count)
