"""Proxmox VE's automatic ballooning, from pve-manager@14a22df PVE/AutoBalloon.pm and PVE/Service/pvestatd.pm.

Every 10 s. Goal = 80 % of the host's memory - used (MemTotal - MemAvailable); within 10 MiB nothing happens.
  The goal is spread so that balloon - minimum is the same for all (shares alike), within minimum and nominal,
  and by 100 MiB per VM at most; the part of one at its end goes to the others. Growing also shrinks those
  above their part.
  Growing serves first the VMs with MemFree of a quarter of their minimum or less, or that report none;
  shrinking first the others. Only when that comes to nothing, all.
The minimum is the administrator's guess: 25 % of nominal here, and 10 % under a second name.

Worked by hand, host of 10 GiB: used 8 GiB is the goal itself, nothing happens. Used 9 GiB, two VMs of 4 GiB
at 4 GiB, minimum 1 GiB, both with much free: each would go down by 512 MiB and goes by 100. One of them with
nothing free: only the other shrinks by 100. Both with nothing free: both shrink by 100 all the same.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vmpack.replay.facts import DrawFacts
from vmpack.replay.policy import Bytes, Policy, Seen
from vmpack.units import MIB

HOST_TARGET_PCT = 80
DEAD_BAND_BYTES = 10 * MIB
MAX_CHANGE_BYTES = 100 * MIB
FREE_OF_MIN_RATIO = 0.25
SHARES = 1000
MIN_RATIO = 0.25
LOW_MIN_RATIO = 0.10

Which = NDArray[np.bool_]


class Proxmox:
    """Keeps the host at four fifths; guests' free memory decides the order alone."""

    stance = ""

    def __init__(self, facts: DrawFacts, min_ratio: float = MIN_RATIO, name: str = "proxmox") -> None:
        self.name = name
        self._nominal_bytes = facts.nominal_bytes
        self._min_bytes = (facts.nominal_bytes * min_ratio).astype(np.int64) // MIB * MIB
        self._target_bytes: Bytes | None = None

    def decide(self, seen: Seen) -> Bytes:
        """One round of the daemon."""
        used_bytes = seen.capacity_bytes - seen.host_available_bytes
        goal_bytes = int(seen.capacity_bytes * HOST_TARGET_PCT / 100 - used_bytes)
        served = (seen.balloon_bytes > 0) & (self._min_bytes > 0)
        reports = ~np.isnan(seen.sampled_s)
        easy = served & reports & (seen.unused_bytes > self._min_bytes * FREE_OF_MIN_RATIO)
        easy &= seen.balloon_bytes >= self._min_bytes
        new_bytes = seen.balloon_bytes.copy()
        if abs(goal_bytes) > DEAD_BAND_BYTES:
            first = served & ~easy if goal_bytes > 0 else easy
            rest_bytes = self._spread(new_bytes, seen.balloon_bytes, first, goal_bytes)
            if abs(rest_bytes) >= abs(goal_bytes) and rest_bytes * goal_bytes > 0:
                self._spread(new_bytes, seen.balloon_bytes, served, rest_bytes)
        held_bytes = seen.balloon_bytes if self._target_bytes is None else self._target_bytes
        self._target_bytes = np.where(new_bytes != seen.balloon_bytes, new_bytes, held_bytes)
        return self._target_bytes

    def carried_out(self, balloon_bytes: Bytes) -> None:
        """The balloons are read anew at each step."""

    def _spread(self, new_bytes: Bytes, balloon_bytes: Bytes, which: Which, amount_bytes: int) -> int:
        """Spreads an amount over some VMs, in `new_bytes`; what could not be placed."""
        rest_bytes, open_, again = amount_bytes, which.copy(), True
        while rest_bytes and again and open_.any():
            part = (int((new_bytes - self._min_bytes)[open_].sum()) + rest_bytes) / (
                SHARES * int(open_.sum())
            )
            desired_bytes = np.clip(
                self._min_bytes + int(part * SHARES), self._min_bytes, self._nominal_bytes
            )
            grows = open_ & (desired_bytes > balloon_bytes) & (amount_bytes > 0)
            moves = grows | (open_ & (desired_bytes < balloon_bytes))
            reach_bytes = np.clip(
                desired_bytes, balloon_bytes - MAX_CHANGE_BYTES, balloon_bytes + MAX_CHANGE_BYTES
            )
            change_bytes = np.where(moves, reach_bytes - new_bytes, 0)
            new_bytes += change_bytes
            open_ &= moves
            rest_bytes -= int(change_bytes.sum())
            again = bool(change_bytes.any())
        return rest_bytes


POLICIES: dict[str, Callable[[DrawFacts], Policy]] = {
    "proxmox": Proxmox,
    "proxmox-min10": lambda facts: Proxmox(facts, LOW_MIN_RATIO, "proxmox-min10"),
}
