"""The unavoidable minimum: a policy that knows what every VM will need.

It keeps vmpack's reserve, gives each VM what it needs at the next step, and of what is left what it will need
in the steps after that, since a balloon takes time. Where not even the next need fits, all fall short in
proportion to need; no division of the same memory has a smaller shortage in all.
"""

from __future__ import annotations

import numpy as np

from vmpack.decide.share import fill
from vmpack.replay.facts import DrawFacts
from vmpack.replay.policy import Bytes, Seen
from vmpack.replay.simulation import for_vms_bytes

AHEAD_STEPS = 3


class Oracle:
    """See replay/policy.py."""

    name = "oracle"
    stance = ""

    def __init__(self, facts: DrawFacts) -> None:
        need = facts.future_need_bytes
        self._step_s = facts.step_s
        self._need_bytes = need
        later = np.vstack([need, np.repeat(need[-1:], AHEAD_STEPS, axis=0)])
        self._ahead_bytes = np.maximum.reduce([later[i : i + len(need)] for i in range(AHEAD_STEPS + 1)])
        self._spendable_bytes = for_vms_bytes(facts.capacity_bytes)
        self._next_total = need.sum(axis=1)
        self._ahead_total = self._ahead_bytes.sum(axis=1)

    def decide(self, seen: Seen) -> Bytes:
        """What each VM will need, as far as it fits."""
        step = min(round(seen.time_s / self._step_s) + 1, len(self._need_bytes) - 1)
        if self._ahead_total[step] <= self._spendable_bytes:
            return self._ahead_bytes[step]
        most, least = self._ahead_bytes[step].tolist(), self._need_bytes[step].tolist()
        if self._next_total[step] > self._spendable_bytes:
            most, least = least, [0] * len(least)
        return np.array(fill(self._spendable_bytes, least, most, [1] * len(least)), dtype=np.int64)

    def carried_out(self, balloon_bytes: Bytes) -> None:
        """Nothing to remember."""
