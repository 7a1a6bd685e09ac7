"""How much memory many VMs used over days: what a simulation is run on.

Made by replay/trace_file.py from a file and by replay/workload.py from a seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vmpack.errors import BadDataError
from vmpack.replay.policy import Bytes

DAY_S = 86400
LEAST_PRESENT_RATIO = 0.5
"""A VM that was there for less of the time is left out; shorter gaps keep the value before them."""
MOST_CELLS = 100_000_000


@dataclass(frozen=True, slots=True)
class Trace:
    """Use of memory, VM by VM and slot by slot; no gaps."""

    names: tuple[str, ...]
    nominal_bytes: Bytes
    """[VM]; the largest that it ever had."""
    used_bytes: Bytes
    """[VM, slot]"""
    slot_s: int
    left_out: int = 0
    """VMs of the source that were there too seldom, or had no size."""

    @property
    def days(self) -> int:
        """Whole days."""
        return self.used_bytes.shape[1] * self.slot_s // DAY_S


def from_rows(
    names: Sequence[str],
    vm: NDArray[np.int64],
    slot: NDArray[np.int64],
    nominal_bytes: NDArray[np.int64],
    used_bytes: NDArray[np.int64],
    slot_s: int,
) -> Trace:
    """Order rows, one per VM and slot; `vm` is an index into `names`, `slot` counts from anywhere.

    Raises BadDataError when nothing usable is left.
    """
    if not len(vm):
        raise BadDataError("the trace has no rows", "each row tells one VM's memory in one slot of time")
    slot = slot - slot.min()
    slots = int(slot.max()) + 1
    if slots * len(names) > MOST_CELLS:
        hint = "see that its times are of one kind and have a common distance"
        raise BadDataError(f"the trace would have {slots} slots for {len(names)} VMs", hint)
    used = np.full((len(names), slots), -1, dtype=np.int64)
    used[vm, slot] = used_bytes
    nominal = np.zeros(len(names), dtype=np.int64)
    np.maximum.at(nominal, vm, nominal_bytes)
    keep = (nominal > 0) & ((used >= 0).mean(axis=1) >= LEAST_PRESENT_RATIO)
    if not keep.any():
        raise BadDataError("no VM of the trace has a size and was there for half of its time")
    kept = np.flatnonzero(keep)
    used = np.minimum(_without_gaps(used[kept]), nominal[kept][:, None])
    left_out = len(names) - len(kept)
    return Trace(tuple(names[i] for i in kept.tolist()), nominal[kept], used, slot_s, left_out)


def _without_gaps(used: Bytes) -> Bytes:
    """A gap (-1) keeps the value before it; one at the beginning takes the first value."""
    there = used >= 0
    last = np.maximum.accumulate(np.where(there, np.arange(used.shape[1]), -1), axis=1)
    last = np.where(last < 0, there.argmax(axis=1)[:, None], last)
    return np.take_along_axis(used, last, axis=1)
