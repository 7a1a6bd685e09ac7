"""How often a VM's balloon driver shall report: set when vmpack begins to pack it, given back on release."""

from __future__ import annotations

from vmpack.model.action import SetStatsPeriod
from vmpack.model.guest import GuestSnapshot
from vmpack.model.plan import RememberedGuest
from vmpack.model.settings import MemorySettings


def wanted_period_s(rules: MemorySettings) -> int:
    """One report a glance, else two an interval; between 1 and 5 seconds apart."""
    return max(1, min(5, int(rules.glance_s or rules.interval_s / 2)))


def set_period(guest: GuestSnapshot, known: RememberedGuest, wanted_s: int) -> SetStatsPeriod | None:
    """The order to report, or to report more often: need would be seen late otherwise.

    A longer period that somebody set after vmpack did is theirs and stays.
    """
    found_s = guest.stats_period_s
    if found_s is None or 0 < found_s <= 2 * wanted_s:
        return None
    if found_s > 0 and known.stats_period_set_s not in (None, found_s):
        return None
    return SetStatsPeriod(guest.uuid, guest.name, wanted_s, found_s)


def give_back_period(
    guest: GuestSnapshot, known: RememberedGuest, rules: MemorySettings
) -> SetStatsPeriod | None:
    """The owner's period, where the one in force is still vmpack's.

    A VM that came from another host was set there: its lasting definition tells what its owner wanted.
    """
    found_s, before_s = guest.stats_period_s, known.stats_period_before_s
    if before_s is not None:
        is_ours = found_s == known.stats_period_set_s
    else:
        before_s = guest.configured_period_s
        is_ours = known.asked_s is not None and found_s == wanted_period_s(rules)
    if before_s is None or before_s == found_s or not is_ours:
        return None
    return SetStatsPeriod(guest.uuid, guest.name, before_s, found_s or 0, gives_back=True)
