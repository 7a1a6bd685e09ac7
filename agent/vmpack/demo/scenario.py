"""What the demo's guests and its host are like: the numbers behind the story, in one place."""

from __future__ import annotations

import dataclasses

from vmpack.model.settings import HostSettings, MemorySettings, Settings
from vmpack.units import MIB

GUEST_BYTES = 256 * MIB
USED_AND_FREED_BYTES = 150 * MIB
"""What every guest uses and frees before anything is packed, as real ones do."""
NEIGHBOUR_LOAD_BYTES = 60 * MIB
RAMP_BYTES = 130 * MIB
RAMP_BYTES_PER_S = 8 * MIB
ROOM_PER_GUEST_BYTES = 160 * MIB
"""The pretended host has this much for each guest of 256 MiB: it is full once the neighbours are busy."""

SETTINGS = Settings(
    host=HostSettings(reserve_ratio=0.0, reserve_min_bytes=64 * MIB),
    memory=dataclasses.replace(MemorySettings(), interval_s=1.0, calm_s=3.0, shrink_step_ratio=0.2),
)
"""Defaults but for the pace: an interval a second and three calm ones, so that nobody has to wait."""


def pretended_bytes(guests: int, overhead_bytes: int) -> int:
    """Size of the pretended host: its reserve, QEMU's overhead as measured, and room for the guests."""
    return SETTINGS.host.reserve_min_bytes + overhead_bytes + guests * ROOM_PER_GUEST_BYTES
