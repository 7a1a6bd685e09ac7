"""What was done in one interval, or would have been, as lines for people.

Called by `top` and the demo. Promises: one line per action, safe to print, with the reason beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

from vmpack.cli.action_text import asked_words, outcome_words
from vmpack.cli.bars import plans_by_uuid, short_reason
from vmpack.cli.safe_text import shown
from vmpack.model.action import Outcome, SetMemory
from vmpack.model.interval import Interval


@dataclass(frozen=True, slots=True)
class MoveLine:
    """One action: the VM, what was asked, what came of it, why."""

    name: str
    asked: str
    result: str
    """`done`, `partial`, `skipped`, `failed`, or `not done` in observe mode and while frozen."""
    why: str

    def __str__(self) -> str:
        return f"{self.name}: {self.asked}, {self.result}{f' ({self.why})' if self.why else ''}"


def move_lines(interval: Interval) -> tuple[MoveLine, ...]:
    """The interval's actions in order; without outcomes they are what would have been done."""
    plans = plans_by_uuid(interval)
    outcomes: tuple[Outcome | None, ...] = interval.outcomes or (None,) * len(interval.plan.actions)
    actions = [outcome.action for outcome in interval.outcomes] or list(interval.plan.actions)
    return tuple(
        MoveLine(
            name=shown(action.name),
            asked=asked_words(action),
            result="not done" if outcome is None else outcome_words(outcome),
            why=short_reason(plans.get(action.uuid)) if isinstance(action, SetMemory) else "",
        )
        for action, outcome in zip(actions, outcomes, strict=True)
    )
