"""The fewest changes, searched for: only where there are few vCPUs and pCPUs.

Called by spread.py with an answer that is good already. First each change of it is tried without; then, from
few changes up, every set of items that could do with fewer. The work is bounded by counting, not by a clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import sqrt

from vmpack.decide.vcpu.board import Board, changes

_NEARLY = 1e-9


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
            if (
                std <= goal_ratio + _NEARLY
                and board.may(item, seat, tried)
                and (best is None or std < best[0])
            ):
                best = std, item
        if best is None:
            return seats
        seats[best[1]] = before[best[1]]


class Search:
    """All ways to reach a goal with exactly so many changes, cut short where nothing can come of them."""

    def __init__(self, board: Board, before: Sequence[int], goal_ratio: float, most_nodes: int) -> None:
        self.board = board
        self.before = tuple(before)
        self.nodes_left = most_nodes
        self._goal = goal_ratio + _NEARLY
        self._bins = range(len(board.capacities))
        self._equal_bins = len(set(board.capacities)) == 1
        total = sum(board.loads(before))
        self._total = total
        self._mean = total / sum(board.capacities)
        self._best: tuple[float, list[int]] | None = None

    def with_changes(self, count: int) -> list[int] | None:
        """The most even answer of exactly so many changes that meets the goal; None: none was found."""
        self._best = None
        loads = self.board.loads(self.before)
        for lifted in self._liftings(count):
            if self.nodes_left <= 0:
                break
            rest = loads.copy()
            for item in lifted:
                rest[self.before[item]] -= self.board.sizes[item]
            order = sorted(lifted, key=lambda item: -self.board.sizes[item])
            left = sum(self.board.sizes[item] for item in lifted)
            self._place(order, 0, rest, left, list(self.before))
        return self._best[1] if self._best else None

    def _liftings(self, count: int) -> Iterator[tuple[int, ...]]:
        """Sets of items to take out, fullest bins first; of equal items in one bin always the first ones."""
        levels = self.board.levels(self.before)
        items = sorted(
            range(len(self.before)), key=lambda item: (-levels[self.before[item]], -self.board.sizes[item])
        )
        yield from self._choose(items, 0, count, ())

    def _choose(
        self, items: Sequence[int], start: int, count: int, chosen: tuple[int, ...]
    ) -> Iterator[tuple[int, ...]]:
        if count == 0:
            yield chosen
            return
        skipped: set[tuple[object, ...]] = set()
        for at in range(start, len(items) - count + 1):
            if self.nodes_left <= 0:
                return
            self.nodes_left -= 1
            like = self._likeness(items[at])
            if like in skipped:
                continue
            skipped.add(like)
            yield from self._choose(items, at + 1, count - 1, (*chosen, items[at]))

    def _likeness(self, item: int) -> tuple[object, ...]:
        board = self.board
        family: object = item if board.families[item] >= 0 else -1
        return self.before[item], board.sizes[item], board.allowed[item], family

    def _place(
        self, order: Sequence[int], at: int, loads: list[float], left: float, seats: list[int]
    ) -> None:
        if at == len(order):
            std = self._std(loads)
            if std <= self._goal and (self._best is None or std < self._best[0] - _NEARLY):
                self._best = std, seats.copy()
            return
        limit = self._goal if self._best is None else min(self._goal, self._best[0])
        if self._least_std(loads, left) > limit:
            return
        item = order[at]
        size, home = self.board.sizes[item], self.before[item]
        tried: set[tuple[float, float, int]] = set()
        for number in sorted(self._bins, key=lambda one: loads[one] / self.board.capacities[one]):
            if number == home or not self.board.may(item, number, seats):
                continue
            like = loads[number], self.board.capacities[number], self.board.cores[number]
            free = self.board.families[item] < 0 and all(self.board.allowed[one] is None for one in order)
            if free and like in tried and number not in {self.before[one] for one in order[at + 1 :]}:
                continue
            tried.add(like)
            self.nodes_left -= 1
            if self.nodes_left <= 0:
                return
            loads[number] += size
            seats[item] = number
            self._place(order, at + 1, loads, left - size, seats)
            seats[item] = home
            loads[number] -= size

    def _std(self, loads: Sequence[float]) -> float:
        levels = [load / room for load, room in zip(loads, self.board.capacities, strict=True)]
        mean = sum(levels) / len(levels)
        return sqrt(sum((level - mean) ** 2 for level in levels) / len(levels))

    def _least_std(self, loads: Sequence[float], left: float) -> float:
        """No placing of what is left can be more even than water poured on top. Of equal bins only."""
        if not self._equal_bins:
            return 0.0
        room = self.board.capacities[0]
        heights = sorted(loads)
        water, count = left, len(heights)
        surface = heights[0]
        for number in range(1, count):
            step = (heights[number] - surface) * number
            if step >= water:
                break
            water -= step
            surface = heights[number]
        else:
            number = count
        surface += water / number
        mean = self._total / count
        squares = sum((height - mean) ** 2 for height in heights[number:]) + number * (surface - mean) ** 2
        return sqrt(squares / count) / room


def fewer(
    board: Board, before: Sequence[int], after: Sequence[int], goal_ratio: float, most_nodes: int
) -> list[int]:
    """An answer within the goal with the fewest changes that were found."""
    found = without_needless(board, before, after, goal_ratio)
    search = Search(board, before, goal_ratio, most_nodes)
    for count in range(1, changes(before, found) + 1):
        better = search.with_changes(count)
        if better is not None:
            return better
        if search.nodes_left <= 0:
            break
    return found
