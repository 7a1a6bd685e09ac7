"""The limits that depend on a VM's nominal alone, worked out once per size and plan."""

from __future__ import annotations

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


def sizes(nominal_bytes: int, settings: MemorySettings) -> Sizes:
    """The limits for one nominal."""
    band = max(settings.dead_band_min_bytes, int(settings.dead_band_ratio * nominal_bytes))
    return Sizes(
        floor_bytes=max(settings.floor_min_bytes, int(settings.floor_ratio * nominal_bytes)),
        fixed_headroom_bytes=max(
            settings.fixed_headroom_min_bytes, int(settings.fixed_headroom_ratio * nominal_bytes)
        ),
        band_bytes=band,
        step_bytes=max(band, int(settings.shrink_step_ratio * nominal_bytes)),
    )
