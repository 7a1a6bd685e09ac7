"""Giving memory back: plan_release(...) grows VMs to nominal as far as the host can really hold it."""

from __future__ import annotations

from vmpack.decide.budget import budget
from vmpack.decide.learn import learn
from vmpack.decide.offer import offer
from vmpack.decide.share import fill
from vmpack.decide.sizes import sizes
from vmpack.model.action import SetMemory, SetStatsPeriod
from vmpack.model.guest import GuestSnapshot
from vmpack.model.host import HostSnapshot
from vmpack.model.plan import GuestPlan, Plan, Reason, Remembered, RememberedGuest
from vmpack.model.settings import Settings


def plan_release(
    snapshot: HostSnapshot, remembered: Remembered, settings: Settings, uuids: frozenset[str] | None
) -> Plan:
    """Plan to give memory and statistics periods back to these VMs, or to all with None.

    An overcommitted host cannot hold every nominal: what does not fit stays packed, fairly by shares, and the
    VM's reason is `release_does_not_fit`. VMs that vmpack has seen and never moved keep what their owner gave
    them. Nothing shrinks.
    """
    now_s = snapshot.time_s
    guests = sorted(snapshot.guests, key=lambda guest: guest.uuid)
    known = {}
    for guest in guests:
        limits = sizes(guest.nominal_bytes, settings.memory)
        before = remembered.guests.get(guest.uuid)
        known[guest.uuid] = learn(guest, before, now_s, limits, settings.memory)
    held = {guest.uuid: max(guest.balloon_bytes, known[guest.uuid].target_bytes or 0) for guest in guests}
    chosen = [
        guest
        for guest in guests
        if (uuids is None or guest.uuid in uuids) and _is_ours(guest, remembered.guests.get(guest.uuid))
    ]
    money = budget(snapshot, settings.host)
    room = money.budget_bytes - sum(held.values())
    given = fill(
        room + sum(held[guest.uuid] for guest in chosen),
        [held[guest.uuid] for guest in chosen],
        [guest.nominal_bytes for guest in chosen],
        [guest.policy.shares or settings.memory.shares for guest in chosen],
    )
    targets = {guest.uuid: size for guest, size in zip(chosen, given, strict=True)}
    grows = tuple(
        SetMemory(guest.uuid, guest.name, guest.balloon_bytes, targets[guest.uuid], guest.nominal_bytes)
        for guest in chosen
        if targets[guest.uuid] > guest.balloon_bytes and guest.job is None
    )
    periods = tuple(
        SetStatsPeriod(guest.uuid, guest.name, period)
        for guest in chosen
        if (period := known[guest.uuid].stats_period_before_s) is not None
        and guest.stats_period_s != period
        and guest.job is None
    )
    plans = tuple(_guest_plan(guest, known[guest.uuid], targets.get(guest.uuid)) for guest in guests)
    return Plan(
        actions=(*grows, *periods),
        room_bytes=room,
        guests=plans,
        budget=money,
        offer=offer(snapshot, plans, known, money, 0, 0, settings.offer),
        reasons=(),
        migration=None,
        remembered=Remembered(known, remembered.scarce),
    )


def _is_ours(guest: GuestSnapshot, known: RememberedGuest | None) -> bool:
    return known is None or known.asked_s is not None or known.stats_period_before_s is not None


def _guest_plan(guest: GuestSnapshot, known: RememberedGuest, target_bytes: int | None) -> GuestPlan:
    balloon, nominal = guest.balloon_bytes, guest.nominal_bytes
    numbers = {"balloon_bytes": balloon, "nominal_bytes": nominal, "target_bytes": target_bytes or balloon}
    if target_bytes is None:
        rule = "release_not_asked"
    elif guest.job is not None:
        rule = "job_running"
    elif target_bytes < nominal:
        rule = "release_does_not_fit"
    else:
        rule = "released"
    grows = target_bytes is not None and target_bytes > balloon and guest.job is None
    size = target_bytes if grows and target_bytes is not None else balloon
    return GuestPlan(
        guest.uuid,
        guest.name,
        "grow" if grows else "hold",
        size,
        0,
        size,
        size,
        known.use.used_bytes if known.use is not None else None,
        (Reason(rule, numbers, guest.job or ""),),
    )
