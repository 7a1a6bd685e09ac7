"""oVirt MoM's balloon rules, from oVirt/mom@3de1c8e doc/balloon.rules and doc/mom-balloon.conf.

Host free = MemFree + Buffers + Cached as a share of MemTotal. A guest's used = balloon - MemFree: its page
cache counts as used. All three are averages of the last 10 collections of 5 s each: of 50 s here, whatever
the step.
  Host free under 20 %: every guest may shrink to used + g of its balloon, by 5 % at most. g is 20 % scaled
  with host free / 20 %; at 5 % host free or less it is host free - 5 %, so that guests swap.
  Else every ballooned guest grows by 5 %, or at once to used + 20 % of its balloon where that is more.
  Changes of 0.25 % of the balloon or less are left out. Nominal is the upper end; libvirt with QEMU has no
  lower one.
A guest without statistics is not in the policy at all. Nothing grows while the host is short.

Worked by hand, host free 10 % (g = 10 %): 1000 MiB of balloon, used 700: wants 800, gets 950 by the 5 %. Used
880: 980. Used 930 (starving): would want 1030, more than it has: left alone, though a neighbour idles. Host
free 30 %, 1000 MiB, used 700: 1050; used 900: 1100.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vmpack.replay.facts import DrawFacts
from vmpack.replay.policy import Bytes, Policy, Seen
from vmpack.units import KIB

PRESSURE_RATIO = 0.20
CRITICAL_RATIO = 0.05
CRITICAL_OFFSET_RATIO = -0.05
GUEST_FREE_RATIO = 0.20
MAX_CHANGE_RATIO = 0.05
MIN_CHANGE_RATIO = 0.0025
HISTORY_S = 10 * 5.0

Kib = NDArray[np.float64]


class Mom:
    """Shrinks all alike while the host is short, grows all alike while it is not."""

    name = "mom"
    stance = ""

    def __init__(self, facts: DrawFacts) -> None:
        samples = max(1, round(HISTORY_S / facts.step_s))
        self._nominal_kib = facts.nominal_bytes / KIB
        self._capacity_kib = facts.capacity_bytes / KIB
        self._host_kib: deque[float] = deque(maxlen=samples)
        self._used_kib: deque[Kib] = deque(maxlen=samples)
        self._target_bytes: Bytes | None = None

    def decide(self, seen: Seen) -> Bytes:
        """One evaluation of the rules."""
        reports = ~np.isnan(seen.sampled_s)
        used_now_kib = seen.sampled_balloon_bytes // KIB - seen.unused_bytes // KIB
        self._host_kib.append(seen.host_available_bytes // KIB)
        self._used_kib.append(np.where(reports, used_now_kib, np.nan))
        current_kib = seen.balloon_bytes // KIB
        used_kib = _mean(self._used_kib)
        host_free_ratio = sum(self._host_kib) / len(self._host_kib) / self._capacity_kib
        if host_free_ratio < PRESSURE_RATIO:
            wanted_kib = self._shrunk(current_kib, used_kib, host_free_ratio)
            allowed = wanted_kib <= current_kib
        else:
            wanted_kib = self._grown(current_kib, used_kib)
            allowed = current_kib < self._nominal_kib
        worth_it = np.abs(wanted_kib - current_kib) > MIN_CHANGE_RATIO * current_kib
        held_bytes = seen.balloon_bytes if self._target_bytes is None else self._target_bytes
        wanted_bytes = np.where(reports, wanted_kib, 0).astype(np.int64) * KIB
        self._target_bytes = np.where(reports & allowed & worth_it, wanted_bytes, held_bytes)
        return self._target_bytes

    def carried_out(self, balloon_bytes: Bytes) -> None:
        """The balloons are read anew at each step."""

    def _shrunk(self, current_kib: Bytes, used_kib: Kib, host_free_ratio: float) -> Kib:
        guest_free_ratio = GUEST_FREE_RATIO * (host_free_ratio / PRESSURE_RATIO)
        if host_free_ratio <= CRITICAL_RATIO:
            guest_free_ratio = CRITICAL_OFFSET_RATIO + host_free_ratio
        least_kib = np.maximum(0, used_kib + guest_free_ratio * current_kib)
        shrunk_kib: Kib = np.maximum(current_kib * (1 - MAX_CHANGE_RATIO), least_kib)
        return shrunk_kib

    def _grown(self, current_kib: Bytes, used_kib: Kib) -> Kib:
        least_kib = used_kib + GUEST_FREE_RATIO * current_kib
        grown_kib = np.maximum(current_kib * (1 + MAX_CHANGE_RATIO), least_kib)
        return np.minimum(grown_kib, self._nominal_kib)


def _mean(rows: deque[Kib]) -> Kib:
    """Average over the collections that a guest has reported in; NaN where there is none."""
    known = ~np.isnan(rows)
    with np.errstate(invalid="ignore"):
        return np.where(known, rows, 0.0).sum(axis=0) / known.sum(axis=0)


POLICIES: dict[str, Callable[[DrawFacts], Policy]] = {Mom.name: Mom}
