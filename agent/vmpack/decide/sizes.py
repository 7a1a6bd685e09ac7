"""The limits that depend on a VM's nominal alone, worked out once per size and settings."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from vmpack.model.settings import MemorySettings


class Sizes(NamedTuple):
    """Limits for one nominal, in bytes."""

    floor_bytes: int
    """The floor of a VM whose owner set none."""
    fixed_headroom_bytes: int
    """The room above its use that a guest needs to work at all."""
    band_bytes: int
    """Changes smaller than this are noise."""
    step_bytes: int
    """The largest unhurried shrink of one interval."""


class SizeTable(dict[int, Sizes]):
    """The limits for every nominal that was asked for."""

    def __init__(self, settings: MemorySettings) -> None:
        super().__init__()
        self._settings = settings

    def __missing__(self, nominal_bytes: int) -> Sizes:
        settings = self._settings
        band = max(settings.dead_band_min_bytes, int(settings.dead_band_ratio * nominal_bytes))
        limits = self[nominal_bytes] = Sizes(
            floor_bytes=max(settings.floor_min_bytes, int(settings.floor_ratio * nominal_bytes)),
            fixed_headroom_bytes=max(
                settings.fixed_headroom_min_bytes, int(settings.fixed_headroom_ratio * nominal_bytes)
            ),
            band_bytes=band,
            step_bytes=max(band, int(settings.shrink_step_ratio * nominal_bytes)),
        )
        return limits


@lru_cache(maxsize=8)
def size_table(settings: MemorySettings) -> SizeTable:
    """The limits by nominal."""
    return SizeTable(settings)
