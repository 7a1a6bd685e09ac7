"""One turn of the loop, whole; and what a running agent says of itself."""

from __future__ import annotations

from dataclasses import dataclass

from vmpack.model.action import Outcome
from vmpack.model.host import HostSnapshot
from vmpack.model.plan import Plan


@dataclass(frozen=True, slots=True)
class Interval:
    """Snapshot, plan and outcomes of one turn, in the order in which they came to be."""

    number: int
    """Counts from 1 since the agent's start."""
    snapshot: HostSnapshot
    plan: Plan
    outcomes: tuple[Outcome, ...]
    """One per action, in order; empty in observe mode and while frozen."""


@dataclass(frozen=True, slots=True)
class AgentStatus:
    """What a running agent says of itself; the answer of the service's `status`."""

    version: str
    pid: int
    uri: str
    observe_only: bool
    interval_s: float
    started_wall_s: float
    last_error: str | None
    """Why the newest interval failed, None when it went well."""
    interval: Interval | None
    """The newest turn that went through, None before the first."""
    frozen: bool = False
    """The administrator has stopped all changes; the newest interval may be from before that."""
