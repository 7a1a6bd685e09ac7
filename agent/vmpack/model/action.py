"""What vmpack can do to a host, as values; and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vmpack.units import MIB

ARRIVED_BYTES = 4 * MIB
"""A balloon this near to where it was sent has arrived: guests give and take whole blocks."""


@dataclass(frozen=True, slots=True)
class SetMemory:
    """Move one VM's balloon.

    Preconditions: running, no job, nominal unchanged, balloon still near `from_bytes`. A move to where the
    balloon is (`to_bytes == from_bytes`) stops a squeeze that is under way and must reach the hypervisor.
    """

    uuid: str
    name: str
    from_bytes: int
    to_bytes: int
    nominal_bytes: int
    promised_bytes: int = 0
    """An older order that lets the VM grow this far and that it has not used up; 0 where there is none."""
    kind: Literal["set_memory"] = "set_memory"

    @property
    def held_bytes(self) -> int:
        """What the host must reckon with before this action: the balloon, or the larger promise."""
        return max(self.from_bytes, self.promised_bytes)

    @property
    def grows(self) -> bool:
        """True when the host must reckon with more after it."""
        return self.to_bytes > self.held_bytes


@dataclass(frozen=True, slots=True)
class SetStatsPeriod:
    """Make the VM's balloon driver report every `period_s` seconds (0: never)."""

    uuid: str
    name: str
    period_s: int
    before_s: int = 0
    """The period that was found: put back on release."""
    gives_back: bool = False
    """The owner's period is put back."""
    kind: Literal["set_stats_period"] = "set_stats_period"


Action = SetMemory | SetStatsPeriod

Status = Literal["done", "partial", "skipped", "failed"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one action."""

    action: SetMemory | SetStatsPeriod
    status: Status
    """`partial`: accepted, but the balloon had not arrived when we stopped watching.

    `skipped`: a precondition no longer held.
    """
    detail: str = ""
    reached_bytes: int | None = None
    """Where the balloon stood when we stopped watching."""
    ended_s: float | None = None
    """When we stopped watching, on the clock of HostSnapshot.time_s."""
    asked_bytes: int | None = None
    """What the hypervisor was really asked for, None when that is the whole of the action."""
