"""Whether something seen between two intervals cannot wait for the next one.

Called by the loop with each glance. An alarm costs one turn and decides nothing itself; lines fall with what
was seen, so a lasting trouble rings once and not at every glance.
"""

from __future__ import annotations

from vmpack.decide.brake import reserve_bytes
from vmpack.decide.demand import GRAIN_BYTES
from vmpack.decide.sizes import size_table
from vmpack.model.action import ARRIVED_BYTES, SetMemory
from vmpack.model.glance import Glance, GuestGlance
from vmpack.model.guest import GuestSnapshot
from vmpack.model.interval import Interval
from vmpack.model.plan import Reason, Remembered, RememberedGuest
from vmpack.model.settings import Settings


def alarm(last: Interval, remembered: Remembered, glance: Glance, settings: Settings) -> Reason | None:
    """The first reason to take a turn now, None when there is none. Pure; the order is that of uuids.

    `last` is the newest turn, `remembered` what was known after it.
    """
    host = _host_alarm(last, glance, settings) or _room_alarm(last, glance)
    if host is not None:
        return host
    limits_of = size_table(settings.memory)
    excluded = {guest.uuid for guest in last.plan.guests if guest.verdict == "excluded"}
    for guest in sorted(last.snapshot.guests, key=lambda guest: guest.uuid):
        seen, known = glance.guests.get(guest.uuid), remembered.guests.get(guest.uuid)
        if seen is None or known is None or guest.uuid in excluded:
            continue
        reason = _guest_alarm(guest, known, seen, limits_of[guest.nominal_bytes].band_bytes)
        if reason is not None:
            return reason
    return None


def _host_alarm(last: Interval, glance: Glance, settings: Settings) -> Reason | None:
    available, before = glance.host_available_bytes, last.snapshot.memory_available_bytes
    reserve = reserve_bytes(last.snapshot.memory_total_bytes, settings.host)
    if available is None or available >= reserve or 4 * available >= 3 * before:
        return None
    return Reason("host_memory_falls", {"available_bytes": available, "before_bytes": before})


def _room_alarm(last: Interval, glance: Glance) -> Reason | None:
    """Have balloons that were not waited for given what others, who still lack it, can be paid with?"""
    unpaid = freed = 0
    for outcome in last.outcomes:
        action, reached = outcome.action, outcome.reached_bytes
        if (
            not isinstance(action, SetMemory)
            or reached is None
            or outcome.status not in ("partial", "skipped")
        ):
            continue
        if action.grows:
            got = reached if outcome.status == "skipped" else outcome.asked_bytes
            unpaid += 0 if got is None else max(0, action.to_bytes - got)
        elif outcome.status == "partial" and action.uuid in glance.guests:
            freed += max(0, reached - max(glance.guests[action.uuid].balloon_bytes, action.to_bytes))
    if not unpaid or freed < GRAIN_BYTES:
        return None
    return Reason("room_has_come_free", {"freed_bytes": freed, "unpaid_bytes": unpaid})


def _guest_alarm(
    guest: GuestSnapshot, known: RememberedGuest, seen: GuestGlance, band_bytes: int
) -> Reason | None:
    # libvirt's word on a balloon is up to a second old: the size before our own move is no surprise.
    expected = max(guest.balloon_bytes, known.balloon_bytes, known.target_bytes or 0)
    if seen.balloon_bytes > expected + ARRIVED_BYTES:
        numbers = {"balloon_bytes": seen.balloon_bytes, "expected_bytes": expected}
        return Reason("balloon_grew_by_itself", numbers, guest.name)
    least = (
        known.balloon_bytes if known.target_bytes is None else min(known.balloon_bytes, known.target_bytes)
    )
    is_whole = guest.nominal_bytes - least <= ARRIVED_BYTES
    if guest.stats is None or seen.usable_bytes is None or is_whole:
        return None
    # With our own move: what was given a moment ago may be eaten already.
    usable = max(0, guest.stats.usable_bytes + least - guest.balloon_bytes)
    is_old_news = seen.usable_bytes == guest.stats.usable_bytes
    if is_old_news or seen.usable_bytes >= usable - min(band_bytes, usable // 2):
        return None
    numbers = {"usable_bytes": seen.usable_bytes, "before_bytes": usable}
    return Reason("need_rises_fast", numbers, guest.name)
