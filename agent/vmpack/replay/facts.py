"""What a memory policy is told before the first step of a draw.

Made by the simulation; given to each policy's factory (replay/policies.py), which takes what it needs.
"""

from __future__ import annotations

from dataclasses import dataclass

from vmpack.replay.policy import Bytes


@dataclass(frozen=True, slots=True)
class DrawFacts:
    """One host and its VMs."""

    nominal_bytes: Bytes
    capacity_bytes: int
    """The host's memory."""
    step_s: float
    future_need_bytes: Bytes
    """[step, VM]: the balloon that each VM will need, the first row at time 0. For the oracle alone."""
