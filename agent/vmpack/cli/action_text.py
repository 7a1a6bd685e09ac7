"""Actions and their outcomes in words. Called by every command that tells what was done."""

from __future__ import annotations

from vmpack.cli.safe_text import shown
from vmpack.model.action import Outcome, SetMemory, SetStatsPeriod
from vmpack.units import format_bytes, format_seconds


def asked_words(action: SetMemory | SetStatsPeriod) -> str:
    """What was asked of the VM: `256 MiB to 200 MiB`, `statistics every 1.0 s`."""
    if isinstance(action, SetMemory):
        return f"{format_bytes(action.from_bytes)} to {format_bytes(action.to_bytes)}"
    return "statistics off" if action.period_s == 0 else f"statistics every {format_seconds(action.period_s)}"


def outcome_words(outcome: Outcome) -> str:
    """What came of it: `done`, `partial at 220 MiB: detail`."""
    words = str(outcome.status)
    if outcome.status == "partial" and outcome.reached_bytes is not None:
        words += f" at {format_bytes(outcome.reached_bytes)}"
    return f"{words}: {shown(outcome.detail)}" if outcome.detail else words


def outcome_line(outcome: Outcome) -> str:
    """The VM, what was asked, what came of it, in one line that is safe to print."""
    return f"{shown(outcome.action.name)}: {asked_words(outcome.action)}, {outcome_words(outcome)}"
