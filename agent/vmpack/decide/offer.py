"""What the host can promise beyond what it has promised.

    offer = budget - what the VMs need - growth reserve - claims

the largest for which the chance that the VMs need more than what is left, at any moment within the time that
the cloud takes to react, stays under the bound that the administrator set. Guests' growth outranks every
claim, so its reserve is never offered. What it is: see decide/host_rises.

A newcomer counts with its whole nominal, until it is known how it behaves.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import NamedTuple

from vmpack.decide.day_peaks import DAY_S, expected_ratio
from vmpack.decide.host_rises import (
    Change,
    Extent,
    chance_ratio,
    extent,
    learned,
    newcomers,
    usual_bytes,
)
from vmpack.model.gpu import idle_names
from vmpack.model.host import HostSnapshot
from vmpack.model.plan import Budget, GuestPlan, HostRises, LearnedUse, Offer, Reason, RememberedGuest
from vmpack.model.settings import OfferSettings


class Needs(NamedTuple):
    """What the VMs of a host need now, and may come to need."""

    need_bytes: int
    """Of all of them; of a newcomer its nominal."""
    known_need_bytes: int
    """Of those that are no newcomers."""
    known_nominal_bytes: int
    """Of the same."""
    extent: Extent
    """Of the same."""


def growth_bytes(needs: Needs, rises: HostRises | None, wall_s: float, settings: OfferSettings) -> int:
    """What to keep for a rise of the known VMs' need within the reaction time, or for one that is due.

    Never more than they can come to need. As long as less than a day is known, which may be the quiet part of
    it, growth_reserve_ratio of their nominals are the least, in proportion to what is missing of the day.
    """
    most = max(0, needs.known_nominal_bytes - needs.known_need_bytes)
    if rises is None:
        return most
    known_days = min(1.0, (rises.last_s - rises.since_s) / DAY_S)
    least = (1.0 - known_days) * settings.growth_reserve_ratio * needs.known_nominal_bytes
    usual = usual_bytes(rises, needs.extent, settings.bound_ratio)
    due = expected_ratio(rises.peaks, wall_s) * needs.extent.together_bytes
    return math.ceil(min(most, max(least, usual, due)))


def learned_rises(
    snapshot: HostSnapshot,
    known: Mapping[str, RememberedGuest],
    now: Mapping[str, RememberedGuest],
    before: HostRises | None,
    settings: OfferSettings,
) -> HostRises:
    """Take one interval into account: `known` is what was known of the VMs before it, `now` what is now."""
    changes = (
        (uuid, entry.nominal_bytes, _more_bytes(known.get(uuid), entry.use))
        for uuid, entry in now.items()
        if entry.use is not None
    )
    return rises_after(changes, known.keys(), now.keys(), before, snapshot.time_s, snapshot.wall_s, settings)


def rises_after(
    changes: Iterable[tuple[str, int, int]],
    known: Set[str],
    now: Set[str],
    before: HostRises | None,
    time_s: float,
    wall_s: float,
    settings: OfferSettings,
) -> HostRises:
    """Take these changes into account: uuid, nominal and by how much more it uses, of each VM that told.

    Of newcomers they do not count. `known` and `now` are uuids: those known before, and those of now.
    """
    arrived = newcomers(before, known, now, time_s, settings.reaction_s)
    change = largest = 0
    nominals = []
    for uuid, nominal, more in changes:
        if uuid in arrived:
            continue
        nominals.append(nominal)
        change += more
        if more > largest:
            largest = more
    changed = Change(change, largest)
    return learned(before, changed, extent(nominals), arrived, time_s, wall_s, settings.reaction_s)


def _more_bytes(before: RememberedGuest | None, use: LearnedUse) -> int:
    old = None if before is None else before.use
    if old is None or old is use:
        return 0
    return use.used_bytes + use.kernel_bytes - old.used_bytes - old.kernel_bytes


def offer(
    snapshot: HostSnapshot,
    guests: Sequence[GuestPlan],
    rises: HostRises | None,
    budget: Budget,
    kept_bytes: int,
    claimed_bytes: int,
    settings: OfferSettings,
) -> Offer:
    """The host's offer of memory and idle GPUs. `kept_bytes` is what VMs that told nothing may take.

    A VM that may not be moved now counts like any other, with what it holds: soon it may grow again.
    """
    sizes = {guest.uuid: guest for guest in snapshot.guests}
    needs, newcomers_bytes = needs_of(
        (
            (guest.uuid, sizes[guest.uuid].nominal_bytes, max(guest.minimum_bytes, guest.at_once_bytes))
            for guest in guests
        ),
        rises,
        kept_bytes,
    )
    packed = sum(max(0, guest.nominal_bytes - guest.balloon_bytes) for guest in snapshot.guests)
    growth = growth_bytes(needs, rises, snapshot.wall_s, settings)
    free = budget.budget_bytes - needs.need_bytes - growth - claimed_bytes
    left = budget.budget_bytes - needs.need_bytes - claimed_bytes - max(0, free)
    return Offer(
        memory_bytes=max(0, free),
        packed_bytes=packed,
        growth_reserve_bytes=growth,
        claimed_bytes=claimed_bytes,
        shortage_probability_ratio=shortage_ratio(needs, left, rises),
        reasons=(
            Reason(
                "offer",
                {
                    "budget_bytes": budget.budget_bytes,
                    "needed_bytes": needs.need_bytes,
                    "newcomers_bytes": newcomers_bytes,
                    "growth_reserve_bytes": growth,
                    "bound_pct": 100 * settings.bound_ratio,
                    "reaction_s": settings.reaction_s,
                    "claimed_bytes": claimed_bytes,
                },
            ),
        ),
        gpus=tuple(name for gpu in snapshot.gpus for name in idle_names(gpu)),
        lacking_bytes=max(0, -free),
    )


def shortage_ratio(needs: Needs, left_bytes: int, rises: HostRises | None) -> float | None:
    """The chance that the VMs come to need over `left_bytes` more than they do; None: not known yet."""
    if left_bytes < 0:
        return 1.0
    if left_bytes >= needs.known_nominal_bytes - needs.known_need_bytes:
        return 0.0
    if rises is None or not rises.seen:
        return None
    return round(chance_ratio(rises, needs.extent, left_bytes), 6)


def needs_of(
    vms: Iterable[tuple[str, int, int]], rises: HostRises | None, kept_bytes: int
) -> tuple[Needs, int]:
    """What these VMs need, and what of that is newcomers': uuid, nominal and need of each, in bytes."""
    arrived: Mapping[str, float] | None = None if rises is None else rises.newcomers
    newcomers_bytes = need = nominal_sum = 0
    nominals = []
    for uuid, nominal, needed in vms:
        if nominal < needed:
            nominal = needed
        if arrived is None or uuid in arrived:
            newcomers_bytes += nominal
        else:
            need += needed
            nominal_sum += nominal
            nominals.append(nominal)
    return Needs(kept_bytes + newcomers_bytes + need, need, nominal_sum, extent(nominals)), newcomers_bytes
