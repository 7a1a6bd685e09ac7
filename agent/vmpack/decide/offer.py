"""What the host can promise beyond what it has promised.

    offer = budget - what the VMs need - growth reserve - claims

the largest for which the chance that the VMs need more than what is left, at any moment within the time that
the cloud takes to react, stays under the bound that the administrator set. Guests' growth outranks every
claim, so its reserve is never offered. What it is: see decide/host_rises.

A newcomer counts with its whole nominal, until it is known how it behaves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from vmpack.decide.day_peaks import DAY_S, expected_ratio
from vmpack.decide.host_rises import (
    MARGIN,
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
from vmpack.model.plan import Budget, GuestPlan, HostRises, Offer, Reason, RememberedGuest
from vmpack.model.settings import OfferSettings


class Needs(NamedTuple):
    """What the VMs of a host need now, and may come to need."""

    need_bytes: int
    """Of all of them; of a newcomer its nominal."""
    known_need_bytes: int
    """Of those that are neither newcomers nor may not be moved."""
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
    due = MARGIN * expected_ratio(rises.peaks, wall_s) * needs.extent.together_bytes
    return math.ceil(min(most, max(least, usual, due)))


def learned_rises(
    snapshot: HostSnapshot,
    known: Mapping[str, RememberedGuest],
    now: Mapping[str, RememberedGuest],
    before: HostRises | None,
    settings: OfferSettings,
) -> HostRises:
    """Take one interval into account: `known` is what was known of the VMs before it, `now` what is now."""
    arrived = newcomers(before, known.keys(), now.keys(), snapshot.time_s, settings.reaction_s)
    change = largest = 0
    nominals = []
    for uuid, entry in now.items():
        use = entry.use
        if use is None or uuid in arrived:
            continue
        nominals.append(entry.nominal_bytes)
        old = known[uuid].use
        if old is not None and old is not use:
            more = use.used_bytes + use.kernel_bytes - old.used_bytes - old.kernel_bytes
            change += more
            if more > largest:
                largest = more
    changed = Change(change, largest)
    return learned(
        before, changed, extent(nominals), arrived, snapshot.time_s, snapshot.wall_s, settings.reaction_s
    )


def offer(
    snapshot: HostSnapshot,
    guests: Sequence[GuestPlan],
    rises: HostRises | None,
    budget: Budget,
    kept_bytes: int,
    claimed_bytes: int,
    settings: OfferSettings,
) -> Offer:
    """The host's offer of memory and idle GPUs. `kept_bytes` is held by VMs that may not be moved."""
    needs, newcomers_bytes, packed = _needs(snapshot, guests, rises, kept_bytes)
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


def _needs(
    snapshot: HostSnapshot, guests: Sequence[GuestPlan], rises: HostRises | None, kept_bytes: int
) -> tuple[Needs, int, int]:
    """What the VMs need, what of that is newcomers', and what is packed."""
    sizes = {guest.uuid: guest for guest in snapshot.guests}
    arrived = sizes if rises is None else rises.newcomers
    newcomers_bytes = need = packed = 0
    nominals = []
    for guest in guests:
        size = sizes[guest.uuid]
        if size.nominal_bytes > size.balloon_bytes:
            packed += size.nominal_bytes - size.balloon_bytes
        if guest.verdict == "excluded":
            continue
        if guest.uuid in arrived:
            newcomers_bytes += max(size.nominal_bytes, guest.minimum_bytes)
        else:
            need += guest.minimum_bytes
            nominals.append(size.nominal_bytes)
    needs = Needs(kept_bytes + newcomers_bytes + need, need, sum(nominals), extent(nominals))
    return needs, newcomers_bytes, packed
