"""XenServer's squeezed, from xapi-project/squeezed@1c23bfe lib/squeeze.ml and src/squeeze_xen.ml.

Looks at no guest: (target - min) / (max - min) is the same gamma for all. Surplus = host free + what all
would free by going to their minimum (each less twice the 4 KiB that a balloon may miss by) - 9 MiB kept for
Xen; gamma = surplus / sum of (max - min), within 0 and 1.
  First those that shrink are told, and the others only when nobody has to shrink any more.
  A balloon that has moved nowhere for 5 s though it should is left out and the others take its part.
Xen gives a domain its memory whole, so the host's free memory is capacity - balloons. Max is nominal; the
minimum is the administrator's guess, 25 % of nominal here.

Worked by hand: two VMs of 4096 and 8192 MiB at nominal, minimum 1024 and 2048, host of 6153 MiB. Surplus =
6153 - 3072 - 9 = 3072 MiB (less 16 KiB), gamma = 3072 / 9216 = 1/3: targets 2048 and 4096 MiB (less 6 and 11
KiB), whether the first idles and the second starves or not.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vmpack.replay.facts import DrawFacts
from vmpack.replay.policy import Bytes, Policy, Seen
from vmpack.units import KIB

HOST_KEEPS_KIB = 9 * 1024
INACCURACY_KIB = 4
STUCK_S = 5.0
MIN_RATIO = 0.25


class Squeezed:
    """The same part of its range for everyone."""

    name = "squeezed"
    stance = ""

    def __init__(self, facts: DrawFacts) -> None:
        self._max_kib = facts.nominal_bytes // KIB
        self._min_kib = (self._max_kib * MIN_RATIO).astype(np.int64)
        self._capacity_kib = facts.capacity_bytes // KIB
        self._target_kib: Bytes | None = None
        self._actual_kib = self._max_kib
        self._moved_s = np.zeros(0)

    def decide(self, seen: Seen) -> Bytes:
        """One iteration of the balancing."""
        actual_kib = seen.balloon_bytes // KIB
        held_kib = actual_kib if self._target_kib is None else self._target_kib
        active = ~self._stuck(actual_kib, held_kib, seen.time_s)
        wanted_kib = self._min_kib + (self._gamma(actual_kib, active) * self._range_kib).astype(np.int64)
        frees = active & (wanted_kib < actual_kib - INACCURACY_KIB)
        told = frees if frees.any() else active
        self._target_kib = np.where(told, wanted_kib, held_kib)
        return self._target_kib * KIB

    def carried_out(self, balloon_bytes: Bytes) -> None:
        """The balloons are read anew at each step."""

    @property
    def _range_kib(self) -> Bytes:
        return self._max_kib - self._min_kib

    def _gamma(self, actual_kib: Bytes, active: NDArray[np.bool_]) -> float:
        freeable_kib = np.maximum(0, actual_kib - self._min_kib - 2 * INACCURACY_KIB)
        free_kib = self._capacity_kib - int(actual_kib.sum())
        surplus_kib = max(0, free_kib + int(freeable_kib[active].sum()) - HOST_KEEPS_KIB)
        range_kib = int(self._range_kib[active].sum())
        return min(1.0, surplus_kib / range_kib) if range_kib else 0.0

    def _stuck(self, actual_kib: Bytes, target_kib: Bytes, now_s: float) -> NDArray[np.bool_]:
        if self._target_kib is None:
            self._moved_s = np.full(len(actual_kib), now_s)
        should = np.abs(target_kib - actual_kib) > INACCURACY_KIB
        nearer = (actual_kib - self._actual_kib) * np.sign(target_kib - actual_kib) > 0
        self._moved_s = np.where(nearer | ~should, now_s, self._moved_s)
        self._actual_kib = actual_kib
        stuck: NDArray[np.bool_] = should & (now_s - self._moved_s > STUCK_S)
        return stuck


POLICIES: dict[str, Callable[[DrawFacts], Policy]] = {Squeezed.name: Squeezed}
