"""What a policy of offers is shown of one simulated host, and what it answers.

Implemented by the shipped policies in this room and by those in tests/benchmarks/rivals; called by
replay/grant_simulation once per step. Arrays must not be changed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from vmpack.replay.policy import Bytes


@dataclass(frozen=True, slots=True)
class GrantSeen:
    """One host at one moment."""

    time_s: float
    vms: NDArray[np.int64]
    """Which VMs are there: a number for each that stays the same. Its own VMs first."""
    nominal_bytes: Bytes
    """[VM]; so are the others."""
    need_bytes: Bytes
    """Use and what the kernel keeps."""
    leaving: NDArray[np.bool_]
    """[VM]: those that are on their way out, and gone within the reaction time."""
    own: int
    """How many of them are the host's own; the others came into what was offered."""
    for_vms_bytes: int
    """What of the host's memory may go to VMs."""


class Offered(NamedTuple):
    """What the policy says now."""

    memory_bytes: int
    """New VMs may come whose nominals fit in here."""
    lacking_bytes: int = 0
    """VMs that need so much in all should leave, beside those that are leaving."""


@dataclass(frozen=True, slots=True)
class GrantFacts:
    """What a policy is told before the first step of a draw."""

    step_s: float
    reaction_s: float
    """How long a VM stays after it was decided that it leaves."""
    future_need_bytes: Bytes
    """[step, VM] by the VMs' numbers. For the oracle alone."""


class GrantPolicy(Protocol):
    """One way of making offers. Made anew for every draw; may remember what it wants."""

    def offer(self, seen: GrantSeen) -> Offered:
        """What can be promised now, beyond what was promised."""


GrantFactory = Callable[[GrantFacts], GrantPolicy]
