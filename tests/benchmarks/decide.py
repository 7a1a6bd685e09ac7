"""How long one memory decision takes per guest, from 1 to 1000 guests.

Every guest has a fresh report that differs a little from the one before, as on a living host.
"""

from __future__ import annotations

from typing import Any

from tests.benchmarks.calibration import best_s, report
from tests.builders import NOW_S, SETTINGS, guest, host
from vmpack.decide.memory import plan
from vmpack.model.host import HostSnapshot
from vmpack.model.plan import Remembered

SIZES = (1, 10, 200, 1000)
DECISIONS = 60_000
"""Guests decided for at each size, in all: enough repeats that some run undisturbed."""


def snapshot(count: int, now_s: float, extra: int) -> HostSnapshot:
    """A host with room for 140 MiB of every guest's 256."""
    guests = (
        guest(f"g{number:04}", balloon=130, used=40 + (number + extra) % 3, now_s=now_s)
        for number in range(count)
    )
    return host(*guests, budget=count * 140, now_s=now_s)


def us_per_guest(count: int) -> float:
    """Best of many decisions on a host of so many guests."""
    remembered = plan(snapshot(count, NOW_S, 0), Remembered(), SETTINGS).remembered
    seen = snapshot(count, NOW_S + 5, 1)
    return round(best_s(lambda: plan(seen, remembered, SETTINGS), DECISIONS // count) / count * 1e6, 2)


def measure() -> dict[str, Any]:
    """Microseconds per guest, by number of guests."""
    return {"us_per_guest": {str(count): us_per_guest(count) for count in SIZES}}


if __name__ == "__main__":
    report(__doc__ or "", measure)
