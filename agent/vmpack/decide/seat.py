"""One VM at the table where a host's memory is divided."""

from __future__ import annotations

from typing import NamedTuple

from vmpack.decide.demand import Demand
from vmpack.decide.sizes import Sizes
from vmpack.model.guest import GuestSnapshot
from vmpack.model.plan import RememberedGuest


class Seat(NamedTuple):
    """One VM at the table: what is known, what it needs, what it holds."""

    guest: GuestSnapshot
    known: RememberedGuest
    need: Demand
    held_bytes: int
    """Balloon, or the larger size it was already promised and may take at any moment."""
    limits: Sizes
    band_bytes: int
    """Half-width of the dead band: half of its elastic headroom, so that small changes move no balloon."""
