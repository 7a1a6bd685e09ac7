"""Gives memory back: used by the agent when asked and when it stops, and without an agent when it is dead.

Promises that nothing shrinks, that no more is given than the host can hold, and that every VM that did not
get its nominal back is named with the reason and with what would clear it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vmpack.clock import Clock
from vmpack.decide.explain import words
from vmpack.host.loop import Actuator, RememberFunction, Source
from vmpack.host.messages import GivenBack, StillPacked
from vmpack.model.action import ARRIVED_BYTES, Outcome, SetMemory
from vmpack.model.host import HostSnapshot
from vmpack.model.plan import Plan, Remembered
from vmpack.model.settings import Settings

PATIENCE_S = 3.0
"""How long no balloon may move before the rest is said to be still packed."""
ANSWER_S = 1.0
"""How long a VM without an answer is asked again: most likely another program asks it just now."""
POLL_S = 0.1
MOST_BYTES = 2**63

PlanReleaseFunction = Callable[[HostSnapshot, Remembered, Settings, frozenset[str] | None], Plan]


@dataclass(frozen=True, slots=True)
class Release:
    """Everything that a release needs."""

    clock: Clock
    source: Source
    actuator: Actuator
    plan: PlanReleaseFunction
    remember: RememberFunction

    def look(self, remembered: Remembered, settings: Settings, uuids: frozenset[str] | None) -> Plan:
        """What would be given back now; changes nothing. Raises VmpackError when the host cannot be seen."""
        return self.plan(self.source.observe(), remembered, settings, uuids)

    def carry_out(
        self, remembered: Remembered, settings: Settings, uuids: frozenset[str] | None
    ) -> tuple[GivenBack, Remembered]:
        """Give these VMs (None: all) their nominal memory and their statistics periods back.

        Returns what was done and what is to be remembered after it. Raises VmpackError when the host
        cannot be seen.
        """
        before = self._look_at_all()
        plan = self.plan(before, remembered, settings, uuids)
        outcomes = self.actuator.carry_out(plan) if plan.actions else ()
        remembered = self.remember(plan, outcomes, before.time_s)
        after = self._arrival(outcomes)
        was = {guest.uuid: guest.balloon_bytes for guest in before.guests}
        now = {guest.uuid: guest.balloon_bytes for guest in after.guests if guest.uuid in was}
        given = sum(max(0, size - was[uuid]) for uuid, size in now.items())
        return GivenBack(given, outcomes, still_packed(after, plan, uuids)), remembered

    def _look_at_all(self) -> HostSnapshot:
        """The host once every VM has answered; one that stays silent is done without."""
        deadline_s = self.clock.time_s() + ANSWER_S
        while True:
            snapshot = self.source.observe()
            if not snapshot.unreadable or self.clock.time_s() >= deadline_s or self.clock.wait(POLL_S):
                return snapshot

    def _arrival(self, outcomes: tuple[Outcome, ...]) -> HostSnapshot:
        """The host once every balloon that was asked has arrived, or none has moved for PATIENCE_S."""
        asked = {
            outcome.action.uuid: outcome.action.to_bytes
            for outcome in outcomes
            if isinstance(outcome.action, SetMemory) and outcome.status in ("done", "partial")
        }
        least, moved_s = MOST_BYTES, 0.0
        while True:
            snapshot = self.source.observe()
            missing = sum(
                max(0, asked.get(guest.uuid, 0) - guest.balloon_bytes - ARRIVED_BYTES)
                for guest in snapshot.guests
            )
            if missing < least:
                least, moved_s = missing, snapshot.time_s
            if missing == 0 or snapshot.time_s - moved_s >= PATIENCE_S or self.clock.wait(POLL_S):
                return snapshot


def still_packed(snapshot: HostSnapshot, plan: Plan, uuids: frozenset[str] | None) -> tuple[StillPacked, ...]:
    """Those of the asked VMs that stand below their nominal, with the reason."""
    why = {guest.uuid: guest.reasons[-1] for guest in plan.guests if guest.reasons}
    packed = []
    for guest in snapshot.guests:
        missing = guest.nominal_bytes - guest.balloon_bytes
        if missing <= ARRIVED_BYTES or (uuids is not None and guest.uuid not in uuids):
            continue
        reason = why.get(guest.uuid)
        told = words(reason) if reason and reason.rule != "released" else _SLOW
        packed.append(StillPacked(guest.uuid, guest.name, missing, *told))
    if uuids is None:
        packed += [StillPacked(guest.uuid, guest.name, 0, *_SILENT) for guest in snapshot.unreadable]
    return tuple(packed)


_SLOW = ("its balloon was asked to give way and has not yet", "time; or `vmpack doctor`, if it stays so")
_SILENT = ("its QEMU gives no answer", "vmpack doctor, then vmpack release once more")
