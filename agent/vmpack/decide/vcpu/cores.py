"""Busy vCPUs on cores of their own, while there are idle cores. Called by spread.py.

Two threads of a core share its strength: for the pCPUs' levels it is all one where two vCPUs sit, for the
vCPUs it is not.
"""

from __future__ import annotations

from collections.abc import Sequence

from vmpack.decide.vcpu.board import Board

LEAST_GAIN_RATIO = 0.01
"""Nothing is moved for less of the standard deviation of the cores' levels."""
_NEARLY = 1e-9


def apart(board: Board, seats: Sequence[int], target_ratio: float) -> list[int]:
    """Move single items to other cores as long as the cores become more even, and the bins not less.

    The same seats where no core has two bins, or the cores are even enough already.
    """
    now = list(seats)
    if len(set(board.cores)) == len(board.cores):
        return now
    for _ in seats:
        std = board.core_std_ratio(now)
        if std <= target_ratio:
            break
        move = _best_move(board, now)
        if move is None:
            break
        tried = now.copy()
        tried[move[0]] = move[1]
        if board.core_std_ratio(tried) > std - LEAST_GAIN_RATIO:
            break
        now = tried
    return now


def _best_move(board: Board, seats: Sequence[int]) -> tuple[int, int] | None:
    """The item and the bin that bring the levels of two cores nearest to one another."""
    levels = board.levels(seats)
    cores: dict[int, float] = {}
    for core, level in zip(board.cores, levels, strict=True):
        cores[core] = cores.get(core, 0.0) + level
    best: tuple[float, int, int] | None = None
    for item, here in enumerate(seats):
        size = board.sizes[item]
        for there, room in enumerate(board.capacities):
            if board.cores[there] == board.cores[here] or room != board.capacities[here]:
                continue
            step = size / room
            gain = step * (cores[board.cores[here]] - cores[board.cores[there]] - step)
            if gain <= _NEARLY or levels[here] - levels[there] < step - _NEARLY:
                continue
            if (best is None or gain > best[0]) and board.may(item, there, seats):
                tried = [*seats[:item], there, *seats[item + 1 :]]
                if board.is_near(tried):
                    best = gain, item, there
    return None if best is None else (best[1], best[2])
