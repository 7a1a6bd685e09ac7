"""When the next turn of a loop is due: without drift, and rarer while turns fail."""

from __future__ import annotations

import math

BACK_OFF_MAX_S = 30.0


def next_turn_s(now_s: float, due_s: float, interval_s: float, failures: int) -> float:
    """After the turn that was due at `due_s` ended now, the `failures`-th in a row that failed.

    Turns that were slept through are left out, not made up for.
    """
    if failures:
        return now_s + min(interval_s * 2.0 ** min(failures - 1, 10), max(interval_s, BACK_OFF_MAX_S))
    missed = max(0, math.ceil((now_s - due_s) / interval_s) - 1)
    return due_s + (missed + 1) * interval_s
