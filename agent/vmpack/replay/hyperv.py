"""The rule of Hyper-V's Dynamic Memory, from its public description. Made by the simulation, once per draw.

Closed source; the facts are Microsoft's own: https://learn.microsoft.com/en-us/archive/blogs/virtual_pc_guy/
what-is-the-memory-buffer-when-dynamic-memory-is-enabled and the settings' documented defaults (buffer 20 %,
minimum 512 MB, weights alike).
  Demand is what the guest has committed; the guest gets demand + 20 %, between the minimum and its maximum
  (nominal).
  When the host is short nobody gets a whole buffer: demand first, then an equal share of every buffer. When
  demand itself does not fit, every VM gets the same share of what it needs beyond its minimum.
  Memory is physical and moves in steps of 2 MiB; a rise is given only from what the host has free at that
  moment.
  A guest whose driver reports nothing keeps what it has.
Where nobody reports the commitment (libvirt), demand is the balloon less MemAvailable, which cannot pass the
balloon.

Worked by hand: committed 1000 MiB of 4096, a host with room: 1200 MiB. Committed 100 MiB: 512 MiB. Two VMs at
1000 MiB on a host of 2200 MiB: demand fits, 200 of the 400 MiB of buffers do: 1100 MiB each.
"""

from __future__ import annotations

import numpy as np

from vmpack.replay.facts import DrawFacts
from vmpack.replay.policy import Bytes, Seen
from vmpack.units import MIB

BUFFER_RATIO = 0.20
MIN_BYTES = 512 * MIB
STEP_BYTES = 2 * MIB


class HyperV:
    """Demand and a fifth."""

    name = "hyperv"
    stance = ""

    def __init__(self, facts: DrawFacts) -> None:
        self._nominal_bytes = facts.nominal_bytes
        self._min_bytes = np.minimum(MIN_BYTES, facts.nominal_bytes)
        self._capacity_bytes = facts.capacity_bytes
        self._target_bytes: Bytes | None = None

    def decide(self, seen: Seen) -> Bytes:
        """Demand and buffer where they fit; shrinking needs no room, growing does."""
        held_bytes = seen.balloon_bytes if self._target_bytes is None else self._target_bytes
        reports = ~np.isnan(seen.sampled_s)
        demand_bytes = seen.committed_bytes
        if demand_bytes is None:
            demand_bytes = seen.sampled_balloon_bytes - seen.usable_bytes
        base_bytes = np.where(reports, self._between(demand_bytes), held_bytes)
        whole_bytes = np.where(
            reports, self._between(demand_bytes + (demand_bytes * BUFFER_RATIO).astype(np.int64)), held_bytes
        )
        ideal_bytes = self._share(np.where(reports, self._min_bytes, held_bytes), base_bytes, whole_bytes)
        ideal_bytes = np.where(np.abs(ideal_bytes - held_bytes) < STEP_BYTES, held_bytes, ideal_bytes)
        self._target_bytes = self._given(seen.balloon_bytes, ideal_bytes)
        return self._target_bytes

    def carried_out(self, balloon_bytes: Bytes) -> None:
        """The balloons are read anew at each step."""

    def _between(self, wanted_bytes: Bytes) -> Bytes:
        steps = -(-wanted_bytes // STEP_BYTES)
        return np.clip(steps * STEP_BYTES, self._min_bytes, self._nominal_bytes)

    def _share(self, floor_bytes: Bytes, base_bytes: Bytes, whole_bytes: Bytes) -> Bytes:
        """The largest equal share of buffers, or else of demand, that the host holds."""
        if base_bytes.sum() <= self._capacity_bytes:
            floor_bytes, base_bytes = base_bytes, whole_bytes
        room_bytes = max(0, self._capacity_bytes - int(floor_bytes.sum()))
        return _part(floor_bytes, base_bytes, room_bytes)

    def _given(self, balloon_bytes: Bytes, ideal_bytes: Bytes) -> Bytes:
        """Shrinks at once; rises from what is free now."""
        lower_bytes = np.minimum(ideal_bytes, balloon_bytes)
        return _part(lower_bytes, ideal_bytes, max(0, self._capacity_bytes - int(balloon_bytes.sum())))


def _part(floor_bytes: Bytes, whole_bytes: Bytes, room_bytes: int) -> Bytes:
    """Floor, and the same share of every VM's way to the whole."""
    way_bytes = whole_bytes - floor_bytes
    total_bytes = int(way_bytes.sum())
    if total_bytes <= room_bytes:
        return whole_bytes
    return floor_bytes + (way_bytes * (room_bytes / total_bytes)).astype(np.int64)
