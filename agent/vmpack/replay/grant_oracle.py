"""The offers of one who knows what will be needed within the reaction time, and no further.

It charges a new VM no longer than until it is there, offers whatever will not be needed, and warns so that
who is to leave is gone just in time: no shortage is its own. It is greedy, as all are: it takes a VM that
fits now, even one that will drive others out in an hour, so that another policy may come to more VM-hours.
"""

from __future__ import annotations

from vmpack.replay.grant_policy import GrantFacts, GrantSeen, Offered
from vmpack.replay.policy import Bytes


class GrantOracle:
    """See replay/grant_policy.py."""

    def __init__(self, facts: GrantFacts) -> None:
        self._need_bytes = facts.future_need_bytes
        self._step_s = facts.step_s
        self._ahead = max(1, round(facts.reaction_s / facts.step_s))

    def offer(self, seen: GrantSeen) -> Offered:
        """Who leaves is gone one reaction time from now: need is known up to there."""
        now = round(seen.time_s / self._step_s) + 1
        ahead: Bytes = self._need_bytes[now : now + self._ahead, seen.vms]
        free = seen.for_vms_bytes - int(ahead.sum(axis=1).max())
        lacking = int(ahead[-1, ~seen.leaving].sum()) - seen.for_vms_bytes
        return Offered(max(0, free), max(0, lacking))
