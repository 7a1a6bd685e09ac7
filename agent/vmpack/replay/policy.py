"""What a memory policy is shown of one simulated host, and what it answers.

Implemented by the shipped policies in this room and by those in tests/benchmarks/rivals; called by the
simulation once per step. Arrays have one entry per VM, always in the same order, and must not be changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.int64]
Seconds = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Seen:
    """One host at one moment."""

    time_s: float
    nominal_bytes: Bytes
    balloon_bytes: Bytes
    """What each VM has now."""
    sampled_s: Seconds
    """When each VM's newest report was made; NaN for one that never reports. All below are of that moment."""
    sampled_balloon_bytes: Bytes
    available_bytes: Bytes
    """MemTotal as the guest sees it."""
    usable_bytes: Bytes
    """MemAvailable."""
    unused_bytes: Bytes
    """MemFree."""
    caches_bytes: Bytes
    """Cached and Buffers."""
    swap_in_bytes: Bytes
    """Counter since the guest's start."""
    major_faults: Bytes
    capacity_bytes: int
    """The host's memory."""
    host_available_bytes: int
    """MemAvailable of the host."""
    committed_bytes: Bytes | None = None
    """What each guest has promised its programs and kernel; more than its balloon when it is short. Hyper-V's
    guests report it; libvirt's do not, and then it is None."""
    swap_out_bytes: Bytes | None = None
    """Counter since the guest's start."""


class Policy(Protocol):
    """One way of dividing a host's memory. Made anew for every draw; may remember what it wants."""

    name: str
    stance: str
    """Empty for a policy without stances."""

    def decide(self, seen: Seen) -> Bytes:
        """The balloon that each VM shall have, between 0 and nominal."""

    def carried_out(self, balloon_bytes: Bytes) -> None:
        """Where the balloons are at the end of the step."""
