"""CloudVAMP's rule with its filter repaired: the strongest open rival. Made by the simulation, once per draw.

From grycap/cloudvamp@d58c678, cvem/cvem/Monitor.py, CMPInfo.py, etc/cvem.cfg and onegate_scripts/. Each VM by
itself:
  free = MemFree + Buffers + Cached - 80000 KiB, never below 0; used = MemTotal - free.
  Within 25 to 35 % free of MemTotal nothing happens. Else the VM gets used / 0.7, at least 256 MiB.
  With 20000 KiB free or less it gets used + half of what is left to its nominal, and all at the third such
  time.
  MemTotal's distance from the balloon, as first seen, is added; nominal is the upper end.
  A change waits 10 s after the one before (and after the first time that one was wanted), and is at least
  1024 KiB.
  A rise must leave the host more than 100 MiB; all rises of a round are measured against the same free
  memory.
  Else CloudVAMP would migrate the smallest other VM; with one host nothing happens, as on its only host.
The repair: a VM reporting no free memory is served too. As shipped it is dropped (tests/benchmarks/rivals).
The real loop runs every 5 s and this one at every step.

Worked by hand: 4194304 KiB nominal and balloon, MemTotal 4128768 (65536 less), free and caches 3151232. free
= 3071232 (74 %), used = 1057536, used / 0.7 = 1510765; with the 65536 the balloon becomes 1576301 KiB.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vmpack.replay.facts import DrawFacts
from vmpack.replay.policy import Bytes, Seen
from vmpack.units import KIB

SYSTEM_OFFSET_KIB = 80_000
MIN_KIB = 262_144
MIN_CHANGE_KIB = 1024
FREE_PCT = 30.0
FREE_MARGIN_PCT = 5
COOLDOWN_S = 10.0
HOST_MARGIN_KIB = 102_400
STARVING_KIB = 20_000
STARVING_SHARE = 0.5
STARVING_TURNS = 2
"""Half of the rest so many times, then all of it."""


class CloudVampFixed:
    """CloudVAMP, as its authors will have meant it."""

    name = "cloudvamp-fixed"
    stance = ""

    def __init__(self, facts: DrawFacts) -> None:
        count = len(facts.nominal_bytes)
        self._nominal_kib = facts.nominal_bytes // KIB
        self._target_bytes: Bytes | None = None
        self._known = np.zeros(count, dtype=bool)
        self._offset_kib = np.zeros(count, dtype=np.int64)
        self._changed_s = np.full(count, np.nan)
        self._starved = np.zeros(count, dtype=np.int64)

    def decide(self, seen: Seen) -> Bytes:
        """The rule, for all VMs at once."""
        free_kib = np.maximum(0, seen.unused_bytes // KIB + seen.caches_bytes // KIB - SYSTEM_OFFSET_KIB)
        total_kib = seen.available_bytes // KIB
        monitored = self.monitored(seen, free_kib) & (total_kib > 0)
        self._meet(monitored, seen.sampled_balloon_bytes // KIB - total_kib)
        due = self._due(monitored, free_kib, total_kib, seen.time_s)
        wanted_kib = self._wanted_kib(due, free_kib, total_kib)
        rise_kib = wanted_kib - (total_kib + self._offset_kib)
        fits = seen.host_available_bytes // KIB - rise_kib > HOST_MARGIN_KIB
        change = due & (np.abs(rise_kib) >= MIN_CHANGE_KIB) & ((rise_kib <= 0) | fits)
        self._changed_s = np.where(change, seen.time_s, self._changed_s)
        held_bytes = seen.balloon_bytes if self._target_bytes is None else self._target_bytes
        self._target_bytes = np.where(change, wanted_kib * KIB, held_bytes)
        return self._target_bytes

    def monitored(self, seen: Seen, free_kib: Bytes) -> NDArray[np.bool_]:
        """Which VMs the rule serves in this round."""
        return ~np.isnan(seen.sampled_s)

    def carried_out(self, balloon_bytes: Bytes) -> None:
        """A changed VM's own MemTotal tells."""

    def _meet(self, monitored: NDArray[np.bool_], offset_kib: Bytes) -> None:
        """A VM's state begins when it is first monitored and is lost when it no longer is."""
        self._offset_kib = np.where(monitored & ~self._known, offset_kib, self._offset_kib)
        self._changed_s = np.where(monitored, self._changed_s, np.nan)
        self._starved = np.where(monitored, self._starved, 0)
        self._known = monitored

    def _due(
        self, monitored: NDArray[np.bool_], free_kib: Bytes, total_kib: Bytes, now_s: float
    ) -> NDArray[np.bool_]:
        """VMs outside the band whose cooldown is over; being outside for the first time starts one."""
        free_pct = free_kib / np.where(monitored, total_kib, 1) * 100.0
        outside = monitored & (
            (free_pct < FREE_PCT - FREE_MARGIN_PCT) | (free_pct > FREE_PCT + FREE_MARGIN_PCT)
        )
        self._changed_s = np.where(outside & np.isnan(self._changed_s), now_s, self._changed_s)
        return outside & (now_s - self._changed_s >= COOLDOWN_S)

    def _wanted_kib(self, due: NDArray[np.bool_], free_kib: Bytes, total_kib: Bytes) -> Bytes:
        """The balloon that the rule wants for each VM that is due; counts the starving turns."""
        used_kib = total_kib - free_kib
        starving = free_kib <= STARVING_KIB
        all_of_it = self._starved >= STARVING_TURNS
        half_kib = (used_kib + (self._nominal_kib - used_kib) * STARVING_SHARE).astype(np.int64)
        plenty_kib = (used_kib / (1.0 - FREE_PCT / 100.0)).astype(np.int64)
        wanted_kib = np.where(starving, np.where(all_of_it, self._nominal_kib, half_kib), plenty_kib)
        self._starved = np.where(due & starving, np.where(all_of_it, 0, self._starved + 1), self._starved)
        wanted_kib = np.maximum(wanted_kib, MIN_KIB) + self._offset_kib
        return np.minimum(wanted_kib, self._nominal_kib)
