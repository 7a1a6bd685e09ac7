"""vmpack itself: the agent's own decide.memory, fed from the simulated host.

Plays the parts around it: what the agent would observe, and what its executor would get done.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from vmpack.decide.memory import plan, remember
from vmpack.decide.stance import STANCES as ALL_STANCES
from vmpack.model.action import ARRIVED_BYTES, Outcome, SetMemory
from vmpack.model.guest import GuestSnapshot, MemoryStats
from vmpack.model.host import HostSnapshot
from vmpack.model.plan import Plan, Remembered
from vmpack.model.settings import MemorySettings, Settings
from vmpack.replay.facts import DrawFacts
from vmpack.replay.policy import Bytes, Policy, Seen
from vmpack.replay.world import INFLATE_BYTES_PER_S

LAST_TURN_S = 2.0
"""Turns follow each other while VMs wait for what shrinks free: only what comes later must wait a step."""

STANCES: dict[str, MemorySettings] = {name: MemorySettings(stance=name) for name in ALL_STANCES}


class VmpackPolicy:
    """See replay/policy.py. One interval a step, with no glances in between."""

    name = "vmpack"

    def __init__(self, facts: DrawFacts, stance: str) -> None:
        self.stance = stance
        memory = replace(STANCES[stance], interval_s=facts.step_s, glance_s=0.0)
        self._settings = Settings(memory=memory)
        self._nominal = facts.nominal_bytes.tolist()
        self._uuids = [f"{number:08d}" for number in range(len(self._nominal))]
        self._places = {uuid: place for place, uuid in enumerate(self._uuids)}
        self._asked: list[int] = []
        self._stats: list[MemoryStats | None] = [None] * len(self._nominal)
        self._sampled_s = math.nan
        self._remembered = Remembered()
        self._decided: Plan | None = None
        self._orders: list[tuple[SetMemory, int]] = []
        self._now_s = 0.0
        self._freed_most = int(INFLATE_BYTES_PER_S * max(LAST_TURN_S, facts.step_s - LAST_TURN_S))

    def decide(self, seen: Seen) -> Bytes:
        """One interval of the agent."""
        self._now_s = seen.time_s
        if not self._asked:
            self._asked = seen.balloon_bytes.tolist()
        snapshot = self._snapshot(seen)
        self._decided = plan(snapshot, self._remembered, self._settings)
        self._orders = self._paid(self._decided)
        for action, to_bytes in self._orders:
            self._asked[self._places[action.uuid]] = to_bytes
        return np.array(self._asked, dtype=np.int64)

    def carried_out(self, balloon_bytes: Bytes) -> None:
        """What the executor would have answered."""
        assert self._decided is not None
        outcomes = []
        for action, asked in self._orders:
            reached = int(balloon_bytes[self._places[action.uuid]])
            done = asked == action.to_bytes and abs(reached - asked) <= ARRIVED_BYTES
            whole = None if asked == action.to_bytes else asked
            outcomes.append(
                Outcome(action, "done" if done else "partial", "", reached, self._now_s, asked_bytes=whole)
            )
        self._remembered = remember(self._decided, outcomes, self._now_s)

    def _paid(self, decided: Plan) -> list[tuple[SetMemory, int]]:
        """The orders that are given: shrinks whole, grows as far as room and what is freed in time go."""
        purse = decided.room_bytes
        orders = []
        for action in decided.actions:
            if not isinstance(action, SetMemory):
                continue
            to_bytes = action.to_bytes
            if action.grows:
                to_bytes = min(to_bytes, action.held_bytes + purse)
                if to_bytes <= action.held_bytes:
                    continue
                purse -= to_bytes - action.held_bytes
            else:
                purse += action.held_bytes - max(action.from_bytes - self._freed_most, to_bytes)
            orders.append((action, to_bytes))
        return orders

    def _snapshot(self, seen: Seen) -> HostSnapshot:
        period_s = self._look_at_reports(seen)
        guests = tuple(
            [
                GuestSnapshot(
                    uuid, uuid, "running", nominal, balloon, False, period_s, stats, None, balloon, balloon
                )
                for uuid, nominal, balloon, stats in zip(
                    self._uuids, self._nominal, seen.balloon_bytes.tolist(), self._stats, strict=True
                )
            ]
        )
        return HostSnapshot(
            seen.time_s, seen.time_s, seen.capacity_bytes, seen.host_available_bytes, guests=guests
        )

    def _look_at_reports(self, seen: Seen) -> int:
        """Take new reports; the seconds between two, as libvirt would tell them: no less than their age."""
        sampled = seen.sampled_s.tolist()
        newest_s = max((moment for moment in sampled if moment == moment), default=math.nan)
        if newest_s != newest_s:
            return 1
        if newest_s != self._sampled_s:
            self._sampled_s = newest_s
            self._stats = [
                None if moment != moment else MemoryStats(moment, *values)
                for moment, *values in zip(
                    sampled,
                    seen.available_bytes.tolist(),
                    seen.usable_bytes.tolist(),
                    seen.unused_bytes.tolist(),
                    seen.caches_bytes.tolist(),
                    seen.swap_in_bytes.tolist(),
                    [None] * len(sampled) if seen.swap_out_bytes is None else seen.swap_out_bytes.tolist(),
                    seen.major_faults.tolist(),
                    strict=True,
                )
            ]
        return max(1, math.ceil(seen.time_s - newest_s))


POLICIES: dict[str, Callable[[DrawFacts], Policy]] = {
    f"vmpack:{stance}": partial(VmpackPolicy, stance=stance) for stance in STANCES
}
