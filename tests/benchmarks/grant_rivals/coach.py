"""A time-of-day rule in the manner of Azure's Coach (Reidys and others, ASPLOS 2025, arXiv 2501.11179).

A day is cut into windows; for each a VM's need is predicted. What a percentile of its need reaches in its
worst window is guaranteed to it; what its peaks in a window need beyond that comes from a pool, which is
shared: it is as large as the sum of all VMs' in the window that needs most. A VM without history gets all
that it asked for.

    offer = host - sum of guaranteed - max over windows of sum(peak in the window - guaranteed, at least 0)

Six windows of four hours, the 95th percentile, and amounts taken up to steps of 5 % of nominal are the
paper's. Its predictions come from a forest trained on millions of VMs, by their owners' and sizes' history;
here each VM's own past days stand for it, which a host has, so a new VM is unknown until it has lived for a
whole day. The paper's scheduler reserves for as long as the VM lives; so what new VMs were promised stays
theirs whole until they are known.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from vmpack.replay.grant_policy import GrantFactory, GrantFacts, GrantSeen, Offered
from vmpack.replay.policy import Bytes
from vmpack.replay.trace import DAY_S

WINDOWS = 6
PERCENTILE = 95
STEP_RATIO = 0.05
SAMPLE_S = 300.0
MARGIN = 0.0
SWEPT = (-0.5, -0.3, -0.2, -0.1, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)


class Coach:
    """See replay/grant_policy.py. `margin` is on what is predicted; the paper has none."""

    def __init__(self, facts: GrantFacts, margin: float) -> None:
        vms = facts.future_need_bytes.shape[1]
        self._factor = 1 + margin
        self._samples: list[list[list[int]]] = [[[] for _ in range(WINDOWS)] for _ in range(vms)]
        self._since_s = np.full(vms, np.nan)
        self._sampled_s = -np.inf
        self._guaranteed = np.zeros(vms)
        self._peaks = np.zeros((vms, WINDOWS))
        self._learned = np.zeros(vms, dtype=np.bool_)

    def offer(self, seen: GrantSeen) -> Offered:
        """What is left beside guaranteed parts and the pool."""
        self._since_s[seen.vms[np.isnan(self._since_s[seen.vms])]] = seen.time_s
        if seen.time_s - self._sampled_s >= SAMPLE_S:
            self._sample(seen)
        known = self._learned[seen.vms]
        vms, nominal = seen.vms[known], seen.nominal_bytes[known]
        guaranteed = np.minimum(self._stepped(self._guaranteed[vms], nominal), nominal)
        peaks = np.minimum(self._stepped(self._peaks[vms].T, nominal), nominal)
        pool = np.maximum(peaks - guaranteed, 0).sum(axis=1).max() if len(vms) else 0.0
        unknown = int(seen.nominal_bytes[~known].sum())
        return Offered(max(0, seen.for_vms_bytes - int(guaranteed.sum() + pool) - unknown))

    def _stepped(self, amounts: NDArray[np.float64], nominal: Bytes) -> NDArray[np.float64]:
        step = STEP_RATIO * nominal
        return np.asarray(np.ceil(amounts * self._factor / step) * step)

    def _sample(self, seen: GrantSeen) -> None:
        """Take a sample of each VM; whoever has lived for a day is predicted from all that he showed."""
        self._sampled_s = seen.time_s
        window = int(seen.time_s % DAY_S * WINDOWS // DAY_S)
        for vm, need in zip(seen.vms.tolist(), seen.need_bytes.tolist(), strict=True):
            self._samples[vm][window].append(need)
            if seen.time_s - self._since_s[vm] >= DAY_S and all(self._samples[vm]):
                self._predict(vm, window)

    def _predict(self, vm: int, window: int) -> None:
        windows = range(WINDOWS) if not self._learned[vm] else (window,)
        for number in windows:
            self._peaks[vm, number] = max(self._samples[vm][number])
        percentiles = [np.percentile(samples, PERCENTILE) for samples in self._samples[vm]]
        self._guaranteed[vm] = max(percentiles)
        self._learned[vm] = True


POLICIES: dict[str, GrantFactory] = {"coach": partial(Coach, margin=MARGIN)}
SWEEP: dict[str, GrantFactory] = {f"coach:{margin:g}": partial(Coach, margin=margin) for margin in SWEPT}
