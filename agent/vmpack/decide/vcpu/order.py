"""In which order pins are changed, so that no pCPU is overloaded on the way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

_NEARLY = 1e-9


class Change(NamedTuple):
    """One item that goes from one bin to another."""

    item: int
    from_bin: int
    to_bin: int
    size: float


def in_order(changes: Sequence[Change], levels: Sequence[float], capacities: Sequence[float]) -> list[Change]:
    """So that no bin gets above the higher of what it had before and what it has in the end.

    A circle of moves has no such order: then the change that adds least above that comes first.
    """
    now = list(levels)
    most = now.copy()
    for change in changes:
        _make(change, most, capacities)
    most = [max(pair) for pair in zip(most, now, strict=True)]

    def excess(change: Change) -> float:
        return now[change.to_bin] + change.size / capacities[change.to_bin] - most[change.to_bin]

    left, ordered = sorted(changes, key=lambda change: now[change.to_bin]), []
    while left:
        waiting = []
        for change in left:
            if excess(change) > _NEARLY:
                waiting.append(change)
            else:
                _make(change, now, capacities)
                ordered.append(change)
        if len(waiting) == len(left):
            least = min(waiting, key=excess)
            waiting.remove(least)
            _make(least, now, capacities)
            ordered.append(least)
        left = waiting
    return ordered


def _make(change: Change, levels: list[float], capacities: Sequence[float]) -> None:
    levels[change.from_bin] -= change.size / capacities[change.from_bin]
    levels[change.to_bin] += change.size / capacities[change.to_bin]
