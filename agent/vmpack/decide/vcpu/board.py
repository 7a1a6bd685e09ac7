"""Loads on bins: vCPUs on pCPUs, or whole VMs on groups of pCPUs. The arithmetic that balancing is made of.

A bin's *level* is its load over its capacity. All of it is plain lists of numbers: it runs thousands of
times in one decision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt


@dataclass(frozen=True, slots=True)
class Board:
    """What is to be balanced: items with a size, each in one bin."""

    capacities: tuple[float, ...]
    """By bin."""
    fixed: tuple[float, ...]
    """By bin: load that cannot be moved."""
    sizes: tuple[float, ...]
    """By item."""
    allowed: tuple[frozenset[int] | None, ...]
    """By item: the bins that it may go to; None: any. Where it is now it may stay."""
    families: tuple[int, ...]
    """By item: items of one family never come into one bin; -1: of no family."""
    cores: tuple[int, ...]
    """By bin: bins of one core share its strength."""
    islands: tuple[int, ...] = ()
    """By bin: the group of bins that it is in; empty: all are in one."""
    limits: Mapping[int, int] = field(default_factory=dict)
    """By family: over how many islands it may spread at most; another one over all."""

    def loads(self, seats: Sequence[int]) -> list[float]:
        """By bin."""
        loads = list(self.fixed)
        for item, seat in enumerate(seats):
            loads[seat] += self.sizes[item]
        return loads

    def levels(self, seats: Sequence[int]) -> list[float]:
        """By bin."""
        return [load / room for load, room in zip(self.loads(seats), self.capacities, strict=True)]

    def std_ratio(self, seats: Sequence[int]) -> float:
        """Standard deviation of the bins' levels."""
        return std_ratio(self.levels(seats))

    def core_std_ratio(self, seats: Sequence[int]) -> float:
        """Standard deviation of the cores' levels, each the mean of its bins'."""
        of_core: dict[int, list[float]] = {}
        for core, level in zip(self.cores, self.levels(seats), strict=True):
            of_core.setdefault(core, []).append(level)
        return std_ratio([sum(levels) / len(levels) for levels in of_core.values()])

    def may(self, item: int, to_bin: int, seats: Sequence[int]) -> bool:
        """May the item go there, with all others where they sit?"""
        allowed = self.allowed[item]
        return (allowed is None or to_bin in allowed) and self.is_clear(item, to_bin, seats)

    def is_near(self, seats: Sequence[int]) -> bool:
        """Does no family spread over more islands than it may?"""
        if not self.limits:
            return True
        used: dict[int, set[int]] = {}
        for family, seat in zip(self.families, seats, strict=True):
            if family in self.limits:
                used.setdefault(family, set()).add(self.islands[seat])
        return all(len(islands) <= self.limits[family] for family, islands in used.items())

    def is_clear(self, item: int, to_bin: int, seats: Sequence[int]) -> bool:
        """Is no other item of its family there?"""
        family = self.families[item]
        return family < 0 or not any(
            seat == to_bin and self.families[other] == family and other != item
            for other, seat in enumerate(seats)
        )


def std_ratio(levels: Sequence[float]) -> float:
    """Standard deviation (of all, not of a sample)."""
    mean = sum(levels) / len(levels)
    return sqrt(sum((level - mean) ** 2 for level in levels) / len(levels))


def changes(before: Sequence[int], after: Sequence[int]) -> int:
    """How many items sit elsewhere."""
    return sum(old != new for old, new in zip(before, after, strict=True))
