"""How long not every VM's minimum has fitted, and when that is cause to ask for a migration.

Called by decide.memory. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from vmpack.decide.seat import Seat
from vmpack.model.plan import MigrationWanted, Remembered
from vmpack.model.settings import MemorySettings

SAME_INTERVAL_RATIO = 0.8
"""Two turns less than this part of an interval apart are one interval."""


def scarce_intervals(
    remembered: Remembered, scarce: bool, now_s: float, rules: MemorySettings
) -> tuple[tuple[bool, ...], float]:
    """The last intervals with this one; a turn within the same interval only brings its entry up to date."""
    begun_s = remembered.scarce_s
    if begun_s is not None and remembered.scarce and now_s - begun_s < SAME_INTERVAL_RATIO * rules.interval_s:
        return (*remembered.scarce[:-1], scarce), begun_s
    return (*remembered.scarce, scarce)[-rules.scarcity_window :], now_s


def migration_wanted(
    seats: Sequence[Seat], spendable: int, lacking: int, scarcity: Sequence[bool], rules: MemorySettings
) -> MigrationWanted | None:
    """Asked for only when ballooning has not cured the shortage in k of the last n intervals.

    `lacking` is what single NUMA nodes lack, where VMs are bound to these.
    """
    if sum(scarcity) < rules.scarcity_intervals or not scarcity[-1]:
        return None
    movable = [seat for seat in seats if seat.need.movable]
    starving = tuple(
        seat.guest.name for seat in movable if seat.guest.balloon_bytes < seat.need.minimum_bytes
    )
    deficit = sum(seat.need.minimum_bytes for seat in movable) - spendable
    return MigrationWanted(max(deficit, lacking), starving)
