"""No ballooning: every VM has its nominal."""

from __future__ import annotations

from vmpack.replay.facts import DrawFacts
from vmpack.replay.policy import Bytes, Seen


class StaticPolicy:
    """See replay/policy.py."""

    name = "static"
    stance = ""

    def __init__(self, facts: DrawFacts) -> None:
        self._nominal_bytes = facts.nominal_bytes

    def decide(self, seen: Seen) -> Bytes:
        """Nominal, always."""
        return self._nominal_bytes

    def carried_out(self, balloon_bytes: Bytes) -> None:
        """Nothing to remember."""
