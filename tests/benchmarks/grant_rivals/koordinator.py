"""Koordinator's prediction of what production pods leave (koordinator, pkg/koordlet/prediction).

    reclaimable = min(by pod, by priority class)
    by pod      = sum over pods older than the cold start of max(0, request - p98 x (1 + margin)),
                  at most capacity - sum of their p98 x (1 + margin)
    by class    = sum of requests - (p98 of the sum of all pods' use + p98 of the system's) x (1 + margin),
                  at most capacity - the same peak

Constants from config.go: cold start 24 h, margin 10 %, half-life of the memory histograms 24 h, a sample a
minute; from predict_server.go: histograms begin at 5 MiB and grow by 5 %, the percentile is p98. A
percentile is the beginning of the bucket after the one that it falls in (pkg/util/histogram).

Here a pod is a VM and its request its nominal; what the host keeps for VMs is the capacity, so that the
system's own use is taken off already. What new VMs were promised is taken off what is reclaimable.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from vmpack.replay.grant_policy import GrantFactory, GrantFacts, GrantSeen, Offered
from vmpack.replay.policy import Bytes
from vmpack.units import MIB

COLD_START_S = 24 * 3600.0
MARGIN = 0.10
HALF_LIFE_S = 24 * 3600.0
SAMPLE_S = 60.0
FIRST_BUCKET_BYTES = 5 * MIB
GROWTH = 1.05
BUCKETS = 270
PERCENTILE = 0.98
SWEPT = (-0.5, -0.3, -0.2, -0.1, 0.0, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
_BOUNDS = FIRST_BUCKET_BYTES * (GROWTH ** np.arange(1, BUCKETS + 1) - 1) / (GROWTH - 1)
"""Where each bucket ends: their sizes grow by a twentieth."""


class Histograms:
    """Decaying histograms, one a row."""

    def __init__(self, rows: int) -> None:
        self._weights = np.zeros((rows, BUCKETS))

    def add(self, rows: NDArray[np.int64], values: Bytes, time_s: float) -> None:
        """One sample each."""
        buckets = np.minimum(np.searchsorted(_BOUNDS, values, side="right"), BUCKETS - 1)
        self._weights[rows, buckets] += 2.0 ** (time_s / HALF_LIFE_S)

    def percentile(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Of each row; 0 where there is no sample."""
        weights = self._weights[rows].cumsum(axis=1)
        buckets = (weights >= PERCENTILE * weights[:, -1:]).argmax(axis=1)
        return np.where(weights[:, -1] > 0, _BOUNDS[buckets], 0.0)


class Koordinator:
    """See replay/grant_policy.py."""

    def __init__(self, facts: GrantFacts, margin: float) -> None:
        vms = facts.future_need_bytes.shape[1]
        self._factor = 1 + margin
        self._pods = Histograms(vms)
        self._class = Histograms(1)
        self._since_s = np.full(vms, np.nan)
        self._sampled_s = -np.inf
        self._reclaimable = 0

    def offer(self, seen: GrantSeen) -> Offered:
        """What is reclaimable, less what was promised of it; worked out anew with every sample."""
        new = seen.vms[np.isnan(self._since_s[seen.vms])]
        self._since_s[new] = seen.time_s
        if seen.time_s - self._sampled_s >= SAMPLE_S:
            self._sampled_s = seen.time_s
            self._pods.add(seen.vms, seen.need_bytes, seen.time_s)
            self._class.add(np.zeros(1, dtype=np.int64), seen.need_bytes.sum(keepdims=True), seen.time_s)
            self._reclaimable = min(self._by_pod(seen), self._by_class(seen))
        promised = int(seen.nominal_bytes[seen.own :].sum())
        return Offered(max(0, self._reclaimable - promised))

    def _by_pod(self, seen: GrantSeen) -> int:
        warm = seen.time_s - self._since_s[seen.vms] > COLD_START_S
        peaks = self._pods.percentile(seen.vms[warm]) * self._factor
        reclaimable = int(np.maximum(seen.nominal_bytes[warm] - peaks, 0).sum())
        return min(reclaimable, max(0, seen.for_vms_bytes - int(peaks.sum())))

    def _by_class(self, seen: GrantSeen) -> int:
        peak = int(self._class.percentile(np.zeros(1, dtype=np.int64))[0] * self._factor)
        return min(max(0, int(seen.nominal_bytes.sum()) - peak), max(0, seen.for_vms_bytes - peak))


POLICIES: dict[str, GrantFactory] = {"koordinator": partial(Koordinator, margin=MARGIN)}
SWEEP: dict[str, GrantFactory] = {
    f"koordinator:{margin:g}": partial(Koordinator, margin=margin) for margin in SWEPT
}
