"""What the host can promise beyond what it has promised.

    offer = budget - what the VMs want - growth reserve - claims

The growth reserve pays for rises until the cloud can react; guests' growth outranks every claim, so it is
never offered.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from vmpack.model.gpu import idle_names
from vmpack.model.host import HostSnapshot
from vmpack.model.plan import Budget, GuestPlan, Offer, Reason, RememberedGuest
from vmpack.model.settings import OfferSettings


def offer(
    snapshot: HostSnapshot,
    guests: Sequence[GuestPlan],
    known: Mapping[str, RememberedGuest],
    budget: Budget,
    kept_bytes: int,
    claimed_bytes: int,
    settings: OfferSettings,
) -> Offer:
    """The host's offer of memory and idle GPUs. `kept_bytes` is held by VMs that may not be moved.

    The chance of a shortage takes the VMs' use as independent and normally distributed about its recent mean:
    a first estimate, good for comparing hosts, too rosy where peaks coincide.
    """
    movable = [guest for guest in guests if guest.verdict != "excluded"]
    wanted = kept_bytes + sum(guest.wanted_bytes for guest in movable)
    rises = sum(entry.use.rise_bytes_per_s for entry in known.values() if entry.use is not None)
    growth = max(int(settings.growth_reserve_ratio * wanted), int(rises * settings.reaction_s))
    free = max(0, budget.budget_bytes - wanted - growth - claimed_bytes)
    packed = sum(max(0, guest.nominal_bytes - guest.balloon_bytes) for guest in snapshot.guests)
    return Offer(
        memory_bytes=free,
        packed_bytes=packed,
        growth_reserve_bytes=growth,
        claimed_bytes=claimed_bytes,
        shortage_probability_ratio=_shortage(
            movable, known, budget.budget_bytes - kept_bytes - free - claimed_bytes
        ),
        reasons=(
            Reason(
                "offer",
                {
                    "budget_bytes": budget.budget_bytes,
                    "wanted_bytes": wanted,
                    "growth_reserve_bytes": growth,
                    "claimed_bytes": claimed_bytes,
                },
            ),
        ),
        gpus=tuple(name for gpu in snapshot.gpus for name in idle_names(gpu)),
    )


def _shortage(
    movable: Sequence[GuestPlan], known: Mapping[str, RememberedGuest], room_bytes: int
) -> float | None:
    """P(use of the movable VMs > room), None when nothing is known of their use."""
    mean = variance = 0.0
    seen = False
    for guest in movable:
        use = known[guest.uuid].use
        if use is None:
            mean += guest.minimum_bytes
            continue
        seen = True
        mean += use.mean_bytes + use.kernel_bytes
        variance += use.variance
    if not seen:
        return None
    if variance <= 0:
        return 0.0 if mean <= room_bytes else 1.0
    return round(0.5 * math.erfc((room_bytes - mean) / math.sqrt(2 * variance)), 6)
