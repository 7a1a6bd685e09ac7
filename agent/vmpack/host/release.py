"""Gives memory back: used by the agent when asked and when it stops, and without an agent when it is dead.

Promises that nothing shrinks, that no more is given than the host can hold, and that every VM that did not
get its nominal back is named with the reason and with what would clear it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vmpack.decide.explain import words
from vmpack.host.loop import Actuator, RememberFunction, Source
from vmpack.host.messages import GivenBack, StillPacked
from vmpack.model.action import Outcome
from vmpack.model.host import HostSnapshot
from vmpack.model.plan import Plan, Remembered
from vmpack.model.settings import Settings

ROUNDS_MAX = 4
"""A balloon that deflates frees no other memory, so more rounds only help against busy VMs."""
TOLERANCE_BYTES = 4 * 2**20

PlanReleaseFunction = Callable[[HostSnapshot, Remembered, Settings, frozenset[str] | None], Plan]


@dataclass(frozen=True, slots=True)
class Release:
    """Everything that a release needs."""

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
        outcomes: list[Outcome] = []
        first: dict[str, int] = {}
        for _ in range(ROUNDS_MAX):
            snapshot = self.source.observe()
            first = first or _balloons(snapshot)
            plan = self.plan(snapshot, remembered, settings, uuids)
            done = self.actuator.carry_out(plan) if plan.actions else ()
            remembered = self.remember(plan, done, snapshot.time_s)
            outcomes += done
            if not any(outcome.status in ("done", "partial") for outcome in done):
                break
        snapshot = self.source.observe()
        last = _balloons(snapshot)
        given = sum(max(0, size - first.get(uuid, size)) for uuid, size in last.items())
        left = self.plan(snapshot, remembered, settings, uuids)
        return GivenBack(given, tuple(outcomes), still_packed(snapshot, left, uuids)), remembered


def still_packed(snapshot: HostSnapshot, plan: Plan, uuids: frozenset[str] | None) -> tuple[StillPacked, ...]:
    """Those of the asked VMs that stand below their nominal, with the reason."""
    why = {guest.uuid: guest.reasons[-1] for guest in plan.guests if guest.reasons}
    packed = []
    for guest in snapshot.guests:
        missing = guest.nominal_bytes - guest.balloon_bytes
        if missing <= TOLERANCE_BYTES or (uuids is not None and guest.uuid not in uuids):
            continue
        reason = why.get(guest.uuid)
        told = words(reason) if reason else ("it could not be decided", "vmpack release, once more")
        packed.append(StillPacked(guest.uuid, guest.name, missing, *told))
    silent = ("its QEMU gives no answer", "vmpack doctor, then vmpack release once more")
    if uuids is None:
        packed += [StillPacked("", name, 0, *silent) for name in snapshot.unreadable]
    return tuple(packed)


def _balloons(snapshot: HostSnapshot) -> dict[str, int]:
    return {guest.uuid: guest.balloon_bytes for guest in snapshot.guests}
