"""A reason as `vmpack explain` tells it. Called by explain.py and its vCPU part."""

from __future__ import annotations

from typing import Any

from vmpack.cli.safe_text import shown
from vmpack.decide.explain import words
from vmpack.model.plan import Reason


def reason_record(reason: Reason) -> dict[str, Any]:
    """The documented JSON form."""
    what, change = words(reason)
    return {
        "rule": reason.rule,
        "note": reason.note,
        "numbers": dict(reason.numbers),
        "what": what,
        "change": change,
    }


def reason_lines(reason: Reason) -> list[str]:
    """For people, safe to print."""
    what, change = words(reason)
    told = [f"  - {shown(what)}", f"      [{shown(reason.rule)}]"]
    return [*told, f"      would change it: {shown(change)}"] if change else told
