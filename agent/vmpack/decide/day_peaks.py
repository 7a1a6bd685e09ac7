"""When in the day many VMs of a host rise together: learned from the days before, by the quarter hour.

Called by decide/host_rises, which tells of such rises, and by decide/offer, which keeps room for one that is
due: so that what was lent at night is back in the morning. A day later a peak counts whole, then half with
each day that it does not come.
"""

from __future__ import annotations

from collections.abc import Sequence

from vmpack.model.plan import DayPeak

DAY_S = 86400.0
SLOT_S = 900.0
SLOTS = int(DAY_S / SLOT_S)
LEAST_RATIO = 2.0**-6
"""Of the VMs' nominals: smaller ones are no peaks."""
CAME_RATIO = 0.5
"""Once so much of it has come today, it is no longer waited for."""


def noted(peaks: tuple[DayPeak, ...], ratio: float, wall_s: float) -> tuple[DayPeak, ...]:
    """Take a rise by this share of nominals into account."""
    if ratio < LEAST_RATIO:
        return peaks
    slot, day = int(wall_s % DAY_S // SLOT_S), int(wall_s // DAY_S)
    before = next((peak for peak in peaks if peak.slot == slot), DayPeak(slot, day, 0.0, 0.0))
    if before.day == day and before.today_ratio >= ratio:
        return peaks
    today = max(ratio, before.today_ratio if before.day == day else 0.0)
    others = [peak for peak in peaks if peak.slot != slot]
    others = [peak for peak in others if _earlier_ratio(peak, day + 1) >= LEAST_RATIO]
    return tuple(sorted([*others, DayPeak(slot, day, today, _earlier_ratio(before, day))]))


def expected_ratio(peaks: Sequence[DayPeak], wall_s: float) -> float:
    """The share of nominals by which all may rise about now, as on days before; 0 when that has come."""
    now = int(wall_s // SLOT_S)
    expected = came = 0.0
    for peak in peaks:
        ahead = (peak.slot - now + 1) % SLOTS - 1
        if ahead > 1:
            continue
        day = (now + ahead) // SLOTS
        expected = max(expected, _earlier_ratio(peak, day))
        if peak.day == day:
            came = max(came, peak.today_ratio)
    return 0.0 if came >= CAME_RATIO * expected else expected


def _earlier_ratio(peak: DayPeak, day: int) -> float:
    """What the days before this one showed."""
    days = max(0, day - peak.day)
    if not days:
        return peak.earlier_ratio
    return max(2.0 * peak.today_ratio, peak.earlier_ratio) * 2.0 ** -min(days, 60)
