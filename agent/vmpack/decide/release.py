"""Giving memory back: plan_release(...) grows VMs to nominal as far as the host can really hold it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from vmpack.decide.budget import budget, unseen
from vmpack.decide.demand import ceiling_bytes
from vmpack.decide.learn import learn
from vmpack.decide.node_budget import NodePool, node_pools
from vmpack.decide.offer import offer
from vmpack.decide.report_period import give_back_period
from vmpack.decide.share import fill
from vmpack.decide.sizes import size_table
from vmpack.model.action import SetMemory, SetStatsPeriod
from vmpack.model.guest import GuestSnapshot
from vmpack.model.host import HostSnapshot
from vmpack.model.plan import GuestPlan, Plan, Reason, Remembered, RememberedGuest
from vmpack.model.settings import MemorySettings, Settings


class _Place(NamedTuple):
    """One VM at the release."""

    guest: GuestSnapshot
    known: RememberedGuest
    held_bytes: int
    """Its balloon, or the larger size that it was promised."""
    most_bytes: int | None
    """What it is to have in the end, None for a VM that was not asked for."""


def plan_release(
    snapshot: HostSnapshot, remembered: Remembered, settings: Settings, uuids: frozenset[str] | None
) -> Plan:
    """Plan to give memory and statistics periods back to these VMs, or to all with None.

    An overcommitted host cannot hold every nominal: what does not fit stays packed, by shares, and the reason
    is `release_does_not_fit`. With None, a VM that its owner starts smaller than nominal, and that vmpack is
    not known to have moved, keeps that size. Nothing shrinks, and a shrink under way is stopped.
    """
    places = [
        _place(guest, remembered, snapshot.time_s, settings.memory, uuids)
        for guest in sorted(snapshot.guests, key=lambda guest: guest.uuid)
    ]
    silent = unseen(snapshot, remembered, settings.host)
    money = budget(snapshot, settings.host, silent)
    room = money.budget_bytes - silent.held_bytes - sum(place.held_bytes for place in places)
    pools, _ = node_pools(places, snapshot, settings.host)
    targets = _targets(places, pools, room, settings.memory.shares)
    plans = tuple(_guest_plan(place, target) for place, target in zip(places, targets, strict=True))
    known = {place.guest.uuid: place.known for place in places}
    return Plan(
        actions=(*_orders(places, targets), *_periods(places, settings.memory)),
        room_bytes=room,
        guests=plans,
        budget=money,
        offer=offer(snapshot, plans, remembered.rises, money, silent.most_bytes, 0, settings.offer),
        reasons=(),
        migration=None,
        remembered=replace(remembered, guests={**known, **silent.known}),
    )


def _place(
    guest: GuestSnapshot,
    remembered: Remembered,
    now_s: float,
    rules: MemorySettings,
    uuids: frozenset[str] | None,
) -> _Place:
    before = remembered.guests.get(guest.uuid)
    known = learn(guest, before, now_s, size_table(rules)[guest.nominal_bytes], rules)
    held = known.promised_bytes or guest.balloon_bytes
    if uuids is None:
        return _Place(guest, known, held, max(held, ceiling_bytes(guest, known)))
    return _Place(guest, known, held, max(held, guest.nominal_bytes) if guest.uuid in uuids else None)


def _targets(places: list[_Place], pools: Sequence[NodePool], room: int, shares: int) -> list[int]:
    """What each VM gets: all of what it is to have, or its fair part of the host and of its nodes."""
    least = [place.held_bytes for place in places]
    most = [place.held_bytes if place.most_bytes is None else place.most_bytes for place in places]
    weights = [place.guest.policy.shares or shares for place in places]
    for pool in pools:
        there = pool.places
        sizes = fill(
            pool.budget_bytes,
            [least[i] for i in there],
            [most[i] for i in there],
            [weights[i] for i in there],
        )
        for i, size in zip(there, sizes, strict=True):
            most[i] = size
    return fill(room + sum(least), least, most, weights)


def _orders(places: list[_Place], targets: list[int]) -> list[SetMemory]:
    """A grow for each that is to have more, and a halt for each whose balloon still shrinks."""
    orders = []
    for (guest, known, _, most), target in zip(places, targets, strict=True):
        shrinks = known.target_bytes is not None and known.target_bytes < guest.balloon_bytes
        if most is None or guest.job is not None or not (target > guest.balloon_bytes or shrinks):
            continue
        orders.append(
            SetMemory(
                guest.uuid,
                guest.name,
                guest.balloon_bytes,
                target,
                guest.nominal_bytes,
                known.promised_bytes,
            )
        )
    return orders


def _periods(places: list[_Place], rules: MemorySettings) -> list[SetStatsPeriod]:
    """Statistics periods put back."""
    free = [place for place in places if place.most_bytes is not None and place.guest.job is None]
    orders = [give_back_period(place.guest, place.known, rules) for place in free]
    return [order for order in orders if order is not None]


def _guest_plan(place: _Place, target: int) -> GuestPlan:
    guest, known, _, most = place
    balloon = guest.balloon_bytes
    numbers = {"balloon_bytes": balloon, "nominal_bytes": guest.nominal_bytes, "target_bytes": target}
    if most is None:
        rule = "release_not_asked"
    elif guest.job is not None:
        rule = "job_running"
    elif target < most:
        rule = "release_does_not_fit"
    elif guest.state != "running" and target > balloon:
        rule = "released_when_it_goes_on"
    else:
        rule = "released"
    grows = most is not None and target > balloon and guest.job is None
    size = target if grows else balloon
    used = known.use.used_bytes if known.use is not None else None
    reason = Reason(rule, numbers, guest.job or "")
    return GuestPlan(
        guest.uuid, guest.name, "grow" if grows else "hold", size, 0, size, size, used, (reason,)
    )
