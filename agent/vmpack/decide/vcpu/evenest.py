"""The most even seats, searched for: only where there are few vCPUs and pCPUs. Branch and bound.

Called by spread.py. The work is bounded by counting, not by a clock: what was found until then is the answer.
"""

from __future__ import annotations

from collections.abc import Sequence

from vmpack.decide.vcpu.board import Board, std_ratio
from vmpack.decide.vcpu.bound import least_squares

_NEARLY = 1e-9


def evenest(board: Board, seats: Sequence[int], good: Sequence[int], most_nodes: int) -> list[int]:
    """Seats at least as even as `good`, for items that sit on `seats` now."""
    search = _Search(board, seats, good, most_nodes)
    search.run()
    return search.best


class _Search:
    """Largest items first, to the emptiest bins first."""

    def __init__(self, board: Board, seats: Sequence[int], good: Sequence[int], most_nodes: int) -> None:
        self.best = list(good)
        self._board = board
        self._home = seats
        self._nodes_left = most_nodes
        self._least = _squares(board.levels(good))
        movable = [item for item, allowed in enumerate(board.allowed) if allowed is None or allowed]
        self._order = sorted(movable, key=lambda item: -board.sizes[item])
        self._rest = [0.0]
        for item in reversed(self._order):
            self._rest.insert(0, self._rest[0] + board.sizes[item])
        self._seats = list(seats)
        for item in movable:
            self._seats[item] = -1
        # Bins may be exchanged for one another where nobody cares which one it is.
        self._alike = not board.limits and all(allowed is None for allowed in board.allowed)
        self._seen: set[tuple[object, ...]] = set()

    def run(self) -> None:
        loads = list(self._board.fixed)
        for item, seat in enumerate(self._seats):
            if seat >= 0:
                loads[seat] += self._board.sizes[item]
        self._place(0, loads)

    def _place(self, at: int, loads: list[float]) -> None:
        board = self._board
        if at == len(self._order):
            squares = _squares([load / room for load, room in zip(loads, board.capacities, strict=True)])
            if squares < self._least - _NEARLY and board.is_near(self._seats):
                self._least, self.best = squares, list(self._seats)
            return
        if least_squares(loads, board.capacities, self._rest[at]) >= self._least - _NEARLY:
            return
        key = (at, *self._likeness(loads))
        if key in self._seen:
            return
        self._seen.add(key)
        item = self._order[at]
        size, allowed, home = board.sizes[item], board.allowed[item], self._home[item]
        for number in sorted(range(len(loads)), key=lambda one: (loads[one] + size) / board.capacities[one]):
            if allowed is not None and number not in allowed and number != home:
                continue
            if not board.is_clear(item, number, self._seats):
                continue
            self._nodes_left -= 1
            if self._nodes_left < 0:
                return
            before = loads[number]
            self._seats[item], loads[number] = number, before + size
            self._place(at + 1, loads)
            self._seats[item], loads[number] = -1, before

    def _likeness(self, loads: Sequence[float]) -> list[tuple[object, ...]]:
        board = self._board
        families: list[list[int]] = [[] for _ in loads]
        for item, seat in enumerate(self._seats):
            if seat >= 0 and board.families[item] >= 0:
                families[seat].append(board.families[item])
        found: list[tuple[object, ...]] = [
            (board.capacities[number], round(load, 9), tuple(sorted(families[number])))
            for number, load in enumerate(loads)
        ]
        return sorted(found, key=repr) if self._alike else found


def _squares(levels: Sequence[float]) -> float:
    return std_ratio(levels) ** 2 * len(levels)
