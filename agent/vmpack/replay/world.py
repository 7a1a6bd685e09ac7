"""The numbers of the simulated guests and their host, each with where it comes from.

What was measured, was on Linux 6.1 guests under QEMU 7.2 without hardware acceleration: KVM is faster.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vmpack.replay.policy import Bytes
from vmpack.units import MIB

INFLATE_BYTES_PER_S = 128 * MIB / 0.15
"""How fast a balloon takes: 128 MiB in 0.15 s. Measured."""


@dataclass(frozen=True, slots=True)
class World:
    """How guests behave and how well they are seen."""

    step_s: float = 10.0
    """One decision each."""
    ramp_s: float = 60.0
    """How long a change from one slot of the trace to the next takes."""
    cache_ratio: float = 0.30
    """Of nominal: the page cache that a guest grows to where it has the room. An assumption."""
    hot_ratio: float = 0.10
    """Of that page cache: the working set, whose loss costs throughput. An assumption."""
    report_period_s: float = 1.0
    """Between two reports of a guest; taken up to whole steps."""
    delay_s: float = 0.0
    """How old a report is when it is seen; in whole steps."""
    silent_ratio: float = 0.0
    """Of the VMs: those that never report."""
    kernel_fixed_bytes: int = 34 * MIB
    """A guest of 256 MiB shows a MemTotal of 218 MiB: 38, less its struct pages. Measured."""
    kernel_ratio: float = 64 / 4096
    """struct page: 64 bytes for each page of 4096 (Linux, mm_types.h), for all that the VM was built with."""
    inflate_bytes_per_s: float = INFLATE_BYTES_PER_S
    deflate_bytes_per_s: float = 128 * MIB / 0.09
    """How fast a balloon gives: 128 MiB in 0.09 s. Measured."""
    fill_bytes_per_s: float = 20 * MIB
    """How fast page cache grows: a guest that reads so much. An assumption."""
    swap_in_bytes_per_s: float = 100 * MIB
    """The most that a guest that is short swaps in. An assumption: a disk without hurry."""
    hot_cycle_s: float = 60.0
    """Within this the page cache's working set is used once. An assumption."""
    hot_read_bytes_per_s: float = 100 * MIB
    """How fast what is lost of that is read back each time. An assumption: the same disk as for swap."""

    def kernel_bytes(self, nominal_bytes: Bytes) -> Bytes:
        """What each guest's kernel keeps for itself: never in MemTotal, always in the balloon."""
        return np.minimum(
            nominal_bytes, self.kernel_fixed_bytes + (self.kernel_ratio * nominal_bytes).astype(np.int64)
        )

    def delay_steps(self) -> int:
        """How many steps old a report is when it is seen."""
        return -int(-self.delay_s // self.step_s)

    def period_steps(self) -> int:
        """How many steps lie between reports."""
        return max(1, -int(-self.report_period_s // self.step_s))


SQUEEZED_USABLE_BYTES = 2 * MIB
"""What a guest that is short still shows as free: 1.4 to 2.6 MiB. Measured."""
SWAP_FAULT_BYTES = 4096
"""Swapped in by one major fault: 1228 KiB by 297. Measured."""
FILE_FAULT_BYTES = 128 * 1024
"""Read back by one major fault on a file: Linux's default read_ahead_kb."""
