"""One VM's balloon set by hand: whether it may be, and the plan that does it. Pure.

Called by service.py and, without an agent, by offline.py; so both refuse the same.
"""

from __future__ import annotations

import dataclasses

from vmpack.decide.explain import words
from vmpack.errors import UnavailableError, UsageError
from vmpack.host.loop import PlanFunction, printable
from vmpack.model.action import SetMemory
from vmpack.model.guest import GuestSnapshot
from vmpack.model.host import HostSnapshot
from vmpack.model.plan import Plan, Remembered
from vmpack.model.settings import Settings
from vmpack.units import format_bytes

SIZE_LARGEST_BYTES = 2**63 - 1


def refuse_frozen(snapshot: HostSnapshot) -> None:
    """Raises UnavailableError where the administrator stopped all changes."""
    if snapshot.frozen:
        raise UnavailableError("this host is frozen, so nothing is changed", "vmpack freeze --off")


def plan_by_hand(
    snapshot: HostSnapshot,
    guest: GuestSnapshot,
    size_bytes: int,
    remembered: Remembered,
    settings: Settings,
    plan: PlanFunction,
) -> Plan:
    """The plan that sets just this balloon.

    Raises UsageError with the numbers when the size is below what the VM needs (a VM that does not report may
    need all that it has), above its nominal memory or beyond the host's budget.
    """
    if not 0 < size_bytes <= SIZE_LARGEST_BYTES:
        raise UsageError("no VM can have a balloon of that size", "name a size such as 512MiB")
    decided = plan(_without_hold(snapshot, guest), remembered, settings)
    mine = next(entry for entry in decided.guests if entry.uuid == guest.uuid)
    if mine.verdict == "excluded" and (guest.exclusions or guest.job or guest.state != "running"):
        raise UsageError(f"{printable(guest.name)} is left alone: {words(mine.reasons[0])[0]}")
    _check_size(guest, max(mine.floor_bytes, mine.minimum_bytes), decided.room_bytes, size_bytes)
    known = decided.remembered.guests.get(guest.uuid)
    action = SetMemory(
        guest.uuid,
        guest.name,
        guest.balloon_bytes,
        size_bytes,
        guest.nominal_bytes,
        known.promised_bytes if known else 0,
    )
    return dataclasses.replace(decided, actions=(action,))


def _without_hold(snapshot: HostSnapshot, guest: GuestSnapshot) -> HostSnapshot:
    """The same host, with this VM not held: so the decision says what the VM needs."""
    policy = dataclasses.replace(guest.policy, hold_until_s=None, action_until_s=None)
    free = dataclasses.replace(guest, policy=policy)
    guests = tuple(free if other.uuid == guest.uuid else other for other in snapshot.guests)
    return dataclasses.replace(snapshot, guests=guests)


def _check_size(guest: GuestSnapshot, least_bytes: int, room_bytes: int, size_bytes: int) -> None:
    name, shown = printable(guest.name), format_bytes(size_bytes)
    if size_bytes > guest.nominal_bytes:
        raise UsageError(
            f"{name} was promised {format_bytes(guest.nominal_bytes)}, so it cannot get {shown}",
            "name a smaller size",
        )
    if size_bytes < least_bytes:
        raise UsageError(
            f"{name} needs {format_bytes(least_bytes)}, so it is not taken down to {shown}",
            f"vmpack explain {name} shows where that comes from",
        )
    growth_bytes = size_bytes - guest.balloon_bytes
    if growth_bytes > max(0, room_bytes):
        left = format_bytes(max(0, room_bytes))
        raise UsageError(
            f"{name} would grow by {format_bytes(growth_bytes)}, but the host has {left} left",
            "free memory on the host first",
        )
