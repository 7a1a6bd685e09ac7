"""The fewest changes for a given evenness, searched for: only where there are few vCPUs and pCPUs.

Called by spread.py with an answer that is good already. First each change of it is tried without; then, from
none up, every set of items that could do with fewer. The work is bounded by counting, not by a clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from math import sqrt

from vmpack.decide.vcpu.board import Board, changes, std_ratio
from vmpack.decide.vcpu.bound import least_squares

_NEARLY = 1e-9


def fewer(
    board: Board, before: Sequence[int], after: Sequence[int], goal_ratio: float, most_nodes: int
) -> list[int]:
    """An answer within the goal with the fewest changes that were found."""
    found = without_needless(board, before, after, goal_ratio)
    search = _Search(board, before, goal_ratio, most_nodes)
    for count in range(changes(before, found) + 1):
        better = search.with_changes(count)
        if better is not None:
            return better
        if search.nodes_left <= 0:
            break
    return found


def without_needless(
    board: Board, before: Sequence[int], after: Sequence[int], goal_ratio: float
) -> list[int]:
    """Take back changes of which the goal has no need, those first that cost least evenness."""
    seats = list(after)
    while True:
        best: tuple[float, int] | None = None
        for item, seat in enumerate(before):
            if seats[item] == seat:
                continue
            tried = seats.copy()
            tried[item] = seat
            std = board.std_ratio(tried)
            if best is not None and std >= best[0]:
                continue
            if std <= goal_ratio + _NEARLY and board.is_clear(item, seat, tried) and board.is_near(tried):
                best = std, item
        if best is None:
            return seats
        seats[best[1]] = before[best[1]]


class _Search:
    """All ways to reach a goal with exactly so many changes, cut short where nothing can come of them."""

    def __init__(self, board: Board, before: Sequence[int], goal_ratio: float, most_nodes: int) -> None:
        self.nodes_left = most_nodes
        self._board = board
        self._before = list(before)
        self._loads = board.loads(before)
        self._squares = len(board.capacities) * goal_ratio**2 + _NEARLY
        self._best: tuple[float, list[int]] | None = None
        rooms = board.capacities
        # |mean level - ideal| <= sqrt(sum of squares) x |capacities| / sum of capacities (Cauchy, Schwarz).
        shift = sqrt(sum(room * room for room in rooms)) / sum(rooms) if min(rooms) < max(rooms) else 0.0
        ideal = sum(self._loads) / sum(rooms)
        self._highest = [(ideal + sqrt(self._squares) * (1 + shift)) * room for room in rooms]

    def with_changes(self, count: int) -> list[int] | None:
        """The most even answer of exactly so many changes that meets the goal; None: none was found."""
        self._best = None
        for lifted in self._lifted(count):
            loads, seats = self._loads.copy(), self._before.copy()
            for item in lifted:
                loads[self._before[item]] -= self._board.sizes[item]
                seats[item] = -1
            order = sorted(lifted, key=lambda item: -self._board.sizes[item])
            self._place(order, 0, loads, sum(self._board.sizes[item] for item in lifted), seats)
            if self.nodes_left <= 0:
                break
        return self._best[1] if self._best else None

    def _lifted(self, count: int) -> Iterator[tuple[int, ...]]:
        """Sets of so many items that leave no bin too full; of items alike in one bin always the first."""
        board = self._board
        ways: list[list[tuple[int, ...]]] = []
        for number, load in enumerate(self._loads):
            groups: dict[tuple[object, ...], list[int]] = {}
            for item, seat in enumerate(self._before):
                if seat == number and board.allowed[item] != frozenset():
                    groups.setdefault(self._likeness(item), []).append(item)
            over = load - self._highest[number] - _NEARLY
            of_bin = []
            for numbers in product(*(range(min(len(own), count) + 1) for own in groups.values())):
                self.nodes_left -= 1
                if self.nodes_left <= 0:
                    return
                chosen = tuple(
                    item for own, many in zip(groups.values(), numbers, strict=True) for item in own[:many]
                )
                if len(chosen) <= count and sum(board.sizes[item] for item in chosen) >= over:
                    of_bin.append(chosen)
            ways.append(of_bin)
        if all(ways):
            least = [0]
            for of_bin in reversed(ways):
                least.insert(0, least[0] + min(map(len, of_bin)))
            yield from self._combined(ways, least, 0, count, ())

    def _combined(
        self,
        ways: list[list[tuple[int, ...]]],
        least: list[int],
        at: int,
        count: int,
        chosen: tuple[int, ...],
    ) -> Iterator[tuple[int, ...]]:
        if at == len(ways):
            if len(chosen) == count:
                yield chosen
            return
        for way in ways[at]:
            if len(chosen) + len(way) + least[at + 1] <= count:
                self.nodes_left -= 1
                if self.nodes_left <= 0:
                    return
                yield from self._combined(ways, least, at + 1, count, (*chosen, *way))

    def _likeness(self, item: int) -> tuple[object, ...]:
        board = self._board
        family = item if board.families[item] >= 0 else -1
        return board.sizes[item], board.allowed[item], family

    def _place(
        self, order: Sequence[int], at: int, loads: list[float], left: float, seats: list[int]
    ) -> None:
        board = self._board
        if at == len(order):
            std = std_ratio([load / room for load, room in zip(loads, board.capacities, strict=True)])
            is_better = self._best is None or std < self._best[0] - _NEARLY
            if is_better and std * std * len(loads) <= self._squares and board.is_near(seats):
                self._best = std, seats.copy()
            return
        limit = self._squares if self._best is None else self._best[0] ** 2 * len(loads) - _NEARLY
        if least_squares(loads, board.capacities, left) > limit:
            return
        item = order[at]
        size, home = board.sizes[item], self._before[item]
        for number in sorted(range(len(loads)), key=lambda one: loads[one] / board.capacities[one]):
            if loads[number] + size > self._highest[number] + _NEARLY:
                continue
            if number == home or not board.may(item, number, seats):
                continue
            self.nodes_left -= 1
            if self.nodes_left <= 0:
                return
            before = loads[number]
            seats[item], loads[number] = number, before + size
            self._place(order, at + 1, loads, left - size, seats)
            seats[item], loads[number] = -1, before
