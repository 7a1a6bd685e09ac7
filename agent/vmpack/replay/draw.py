"""Draws from a trace: some of its VMs, and two of its days in a row.

The first day is there to learn from and is not scored. Same trace, seed and number: same draw, whatever the
overcommitment, demand or policy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vmpack.errors import BadDataError
from vmpack.replay.policy import Bytes
from vmpack.replay.trace import DAY_S, Trace

WARM_UP_S = DAY_S
SCORED_S = DAY_S


@dataclass(frozen=True, slots=True)
class Draw:
    """VMs and their use over a day of warm-up and a scored day."""

    number: int
    day: int
    """The scored one, counted from the trace's beginning."""
    names: tuple[str, ...]
    nominal_bytes: Bytes
    used_bytes: Bytes
    """[VM, slot]"""
    slot_s: int
    order: NDArray[np.int64]
    """The VMs in an order by chance: where a share of them is to be different, it is the first of these."""

    def demand_bytes(self, step_s: float, ramp_s: float, scale: float, most_bytes: Bytes) -> Bytes:
        """[step, VM]: use at each step, with the last one's end, times `scale`, at most `most_bytes` [VM].

        A change from one slot to the next takes `ramp_s`, or the slot where that is shorter, from the slot's
        beginning, in a straight line.
        """
        ramp_s = min(ramp_s, self.slot_s)
        time = np.arange(round((WARM_UP_S + SCORED_S) / step_s) + 1) * step_s
        slot = np.minimum((time // self.slot_s).astype(np.int64), self.used_bytes.shape[1] - 1)
        use = np.minimum(self.used_bytes.T * scale, most_bytes)
        before, now = use[np.maximum(slot - 1, 0)], use[slot]
        into_s = time - slot * self.slot_s
        done = np.minimum(1.0, into_s / ramp_s) if ramp_s > 0 else np.ones(len(time))
        return np.asarray((before + (now - before) * done[:, None]).astype(np.int64))


def draw(trace: Trace, vms: int, seed: int, number: int) -> Draw:
    """Draw `vms` VMs (all, where there are fewer) and a day that has one before it.

    Raises BadDataError for a trace of less than two days.
    """
    days = trace.days
    if days < 2:
        hours = trace.used_bytes.shape[1] * trace.slot_s / 3600
        raise BadDataError(
            f"the trace is {hours:.0f} hours long", "a draw needs two whole days: one to learn, one to score"
        )
    random = np.random.default_rng([seed, number])
    chosen = np.sort(random.permutation(len(trace.names))[:vms])
    day = int(random.integers(1, days))
    begin, end = ((day - 1) * DAY_S // trace.slot_s, (day + 1) * DAY_S // trace.slot_s)
    return Draw(
        number,
        day,
        tuple(trace.names[i] for i in chosen),
        trace.nominal_bytes[chosen],
        trace.used_bytes[chosen, begin:end],
        trace.slot_s,
        random.permutation(len(chosen)),
    )
