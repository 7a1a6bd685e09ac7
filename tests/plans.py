"""Decisions, read and carried on by tests."""

from __future__ import annotations

from tests.builders import carried_out
from vmpack.decide.memory import remember
from vmpack.model.action import Outcome, SetMemory
from vmpack.model.host import HostSnapshot
from vmpack.model.plan import GuestPlan, Plan, Remembered
from vmpack.units import MIB


def of(decided: Plan, name: str) -> GuestPlan:
    """What was decided of this VM."""
    return next(entry for entry in decided.guests if entry.name == name)


def targets(decided: Plan) -> dict[str, int]:
    """MiB each VM is sent to, for those that move."""
    return {
        action.name: action.to_bytes // MIB for action in decided.actions if isinstance(action, SetMemory)
    }


def rules(decided: Plan, name: str) -> list[str]:
    """The rules that spoke for this VM, in order."""
    return [reason.rule for reason in of(decided, name).reasons]


def done(decided: Plan) -> tuple[Outcome, ...]:
    """All of it was carried out."""
    return tuple(
        Outcome(action, "done", "", action.to_bytes if isinstance(action, SetMemory) else None)
        for action in decided.actions
    )


def after(snapshot: HostSnapshot, decided: Plan, later_s: float = 5.0) -> tuple[HostSnapshot, Remembered]:
    """The next interval's snapshot and memory, the plan having been carried out whole."""
    return carried_out(snapshot, decided, later_s), remember(decided, done(decided), snapshot.time_s)
