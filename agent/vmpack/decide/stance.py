"""How boldly the host packs: what each stance keeps for guests beyond what they use (memory.stance)."""

from __future__ import annotations

from typing import NamedTuple

from vmpack.model.settings import MemorySettings, StanceName
from vmpack.units import MIB


class Stance(NamedTuple):
    """One stance. What it comes to, on any workload: `vmpack simulate memory --policies vmpack`."""

    rises_per_day: float
    """How often a VM may rise, within one interval, by more than is kept for it."""
    rise_ratio: float
    """What is kept, as a multiple of that rise."""
    headroom_ratio: float
    """Of what is used: for rises that nobody has seen yet."""
    headroom_min_bytes: int
    nominal_ratio: float
    """Of nominal, at least so much is kept."""
    heeds_faults: bool
    """Page cache that is in use counts as need: hard faults make a VM grow, not swap alone."""


STANCES: dict[StanceName, Stance] = {
    "safe": Stance(0.05, 1.5, 0.15, 32 * MIB, 0.10, True),
    "balanced": Stance(2.0, 1.2, 0.10, 32 * MIB, 0.0, True),
    "dense": Stance(30.0, 1.0, 0.025, 16 * MIB, 0.0, False),
}


def stance(settings: MemorySettings) -> Stance:
    """The chosen stance, with what the administrator set otherwise."""
    chosen = STANCES[settings.stance]
    if settings.headroom_ratio is not None:
        chosen = chosen._replace(headroom_ratio=settings.headroom_ratio)
    if settings.headroom_min_bytes is not None:
        chosen = chosen._replace(headroom_min_bytes=settings.headroom_min_bytes)
    return chosen
