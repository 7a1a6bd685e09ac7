"""Balance by steps: always from the fullest bin to the emptiest that can take it. Made for large hosts.

A step moves one item or swaps two, whichever evens more for each change. What is made small is the sum of
capacity x level^2: all of it falls by 2 x gap - x^2 (1/c + 1/d) when x goes from a bin of capacity c to one
of capacity d whose level is lower by gap, and it is least where all levels are equal.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple

from vmpack.decide.vcpu.board import Board

_LEAST_GAIN = 1e-6


class _Step(NamedTuple):
    gain: float
    """By how much that sum falls for each item that is changed."""
    item: int
    back: int
    """The item that goes the other way, -1 for none."""


class Evener:
    """One board on its way to balance. `seats` is the answer."""

    def __init__(self, board: Board, seats: Sequence[int]) -> None:
        self.board = board
        self.seats = list(seats)
        bins = range(len(board.capacities))
        self._inverse = [1.0 / room for room in board.capacities]
        self._levels = board.levels(seats)
        self._sum = sum(self._levels)
        self._squares = sum(level * level for level in self._levels)
        self._items: list[list[tuple[float, int]]] = [[] for _ in bins]
        for item, seat in enumerate(seats):
            self._items[seat].append((board.sizes[item], item))
        for items in self._items:
            items.sort()
        self._families: list[dict[int, int]] = [{} for _ in self._items]
        """By bin: how many items of each family it has."""
        for item, seat in enumerate(seats):
            family = board.families[item]
            if family >= 0:
                self._families[seat][family] = self._families[seat].get(family, 0) + 1
        self._turns = [0] * len(self._items)
        self._barren: dict[tuple[int, int], tuple[int, int]] = {}
        """Pairs of bins between which nothing evens, and the turns of both when that was found."""

    def even(self, goal_ratio: float, most_steps: int) -> None:
        """Step until the standard deviation is at most the goal, or no step evens any more."""
        for _ in range(most_steps):
            if self.std_ratio <= goal_ratio or not self._step():
                return

    @property
    def std_ratio(self) -> float:
        """As Board.std_ratio has it."""
        count = len(self._levels)
        return sqrt(max(0.0, self._squares / count - (self._sum / count) ** 2))

    def _step(self) -> bool:
        levels = self._levels
        highest, lowest = levels.index(max(levels)), levels.index(min(levels))
        return self._stepped(highest, lowest) or self._step_between_others()

    def _stepped(self, high: int, low: int) -> bool:
        turns = self._turns[high], self._turns[low]
        if self._levels[high] - self._levels[low] <= _LEAST_GAIN or self._barren.get((high, low)) == turns:
            return False
        step = self._best(high, low)
        if step is None:
            self._barren[high, low] = turns
            return False
        self._take(step, high, low)
        return True

    def _step_between_others(self) -> bool:
        order = sorted(range(len(self._levels)), key=self._levels.__getitem__)
        lowest = order[: max(4, len(order) // 4)]
        for high in reversed(order[-max(4, len(order) // 4) :]):
            if any(self._stepped(high, low) for low in lowest):
                return True
        return False

    def _best(self, high: int, low: int) -> _Step | None:
        """The step between two bins that evens most for each change."""
        slope = 2 * (self._levels[high] - self._levels[low])
        bend = self._inverse[high] + self._inverse[low]
        ideal = slope / (2 * bend)
        best_gain, best_item, best_back = _LEAST_GAIN, -1, -1
        ours, theirs = self._items[high], self._items[low]
        for size, item in ours:
            gain = size * (slope - size * bend)
            if gain > best_gain and self._may(item, low):
                best_gain, best_item = gain, item
        # A swap moves at best the ideal amount, and costs two changes.
        if theirs and best_gain < ideal * slope / 4:
            least = theirs[0][0]
            for size, item in ours:
                if size <= least:
                    continue
                at = bisect_left(theirs, (size - ideal, -1))
                for other_size, other in theirs[at - 1 if at else 0 : at + 1]:
                    moved = size - other_size
                    gain = moved * (slope - moved * bend) / 2
                    if gain > best_gain and self._may_swap(item, other, high, low):
                        best_gain, best_item, best_back = gain, item, other
        return None if best_item < 0 else _Step(best_gain, best_item, best_back)

    def _may(self, item: int, to_bin: int) -> bool:
        allowed = self.board.allowed[item]
        if allowed is not None and to_bin not in allowed:
            return False
        return self.board.families[item] not in self._families[to_bin] and self._is_near(item, to_bin)

    def _may_swap(self, item: int, other: int, high: int, low: int) -> bool:
        board = self.board
        for one, to_bin, leaves in ((item, low, other), (other, high, item)):
            allowed, family = board.allowed[one], board.families[one]
            if (allowed is not None and to_bin not in allowed) or not self._is_near(one, to_bin):
                return False
            if family in self._families[to_bin] and not self._is_only_kin(leaves, family, to_bin):
                return False
        return True

    def _is_near(self, item: int, to_bin: int) -> bool:
        """Does it stay in an island where its family is?"""
        board = self.board
        family = board.families[item]
        if family not in board.limits:
            return True
        island = board.islands[to_bin]
        return any(
            board.families[other] == family and board.islands[seat] == island
            for other, seat in enumerate(self.seats)
        )

    def _is_only_kin(self, item: int, family: int, in_bin: int) -> bool:
        return self.board.families[item] == family and self._families[in_bin][family] == 1

    def _take(self, step: _Step, high: int, low: int) -> None:
        self._leave(step.item, high)
        if step.back >= 0:
            self._leave(step.back, low)
            self._come(step.back, high)
        self._come(step.item, low)

    def _leave(self, item: int, from_bin: int) -> None:
        entry = (self.board.sizes[item], item)
        items = self._items[from_bin]
        del items[bisect_left(items, entry)]
        family = self.board.families[item]
        if family >= 0:
            counts = self._families[from_bin]
            counts[family] -= 1
            if not counts[family]:
                del counts[family]
        self._shift(from_bin, -entry[0])

    def _come(self, item: int, to_bin: int) -> None:
        entry = (self.board.sizes[item], item)
        items = self._items[to_bin]
        items.insert(bisect_left(items, entry), entry)
        family = self.board.families[item]
        if family >= 0:
            self._families[to_bin][family] = self._families[to_bin].get(family, 0) + 1
        self.seats[item] = to_bin
        self._shift(to_bin, entry[0])

    def _shift(self, number: int, load: float) -> None:
        before = self._levels[number]
        after = before + load * self._inverse[number]
        self._levels[number] = after
        self._turns[number] += 1
        self._sum += after - before
        self._squares += after * after - before * before
