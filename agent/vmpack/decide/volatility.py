"""How far one guest's use jumps within one interval: learned from its own reports, forgotten within days.

Called by learn.py, which counts, and by demand.py, which asks for the room that a guest needs. Rises are
counted by size in quarters of an octave; a day later a rise counts half. The room for a guest is the size
that its rises pass less often than a stance allows: at one common rate for all guests the sum of what they
go short of is smallest, for a byte moved between two of them saves as much as it costs.
"""

from __future__ import annotations

import math

from vmpack.model.plan import Rises
from vmpack.units import MIB

HALF_LIFE_S = 86400.0
DAY_S = 86400.0
SMALLEST_BYTES = MIB
PER_OCTAVE = 4
READY_PER_DAY = 2.0
"""Room for rises that come less often than this is comfort, and gives way with the rest."""
JUDGE_EVERY_S = 600.0
MOST_SIZES = 80
"""Up to 2^19 MiB."""
STEADY_DAYS = HALF_LIFE_S / DAY_S / math.log(2)
"""What a rise of every day adds up to."""
_LARGEST_WEIGHT = 2.0**20
_MOST_DOUBLINGS = 1000.0
"""More than a floating-point number can hold comes of a guest that was quiet for three years."""


def learned(
    rises: Rises | None, rise_bytes: int, now_s: float, kept_per_day: float, interval_s: float
) -> Rises | None:
    """Take one interval's rise into account. Small ones are noise, what is known is judged now and then.

    What was counted over intervals of another length says nothing of these: it starts afresh.
    """
    rises = of_interval(rises, interval_s)
    if rise_bytes >= SMALLEST_BYTES:
        if rises is None:
            rises = Rises((), now_s, now_s, interval_s=interval_s)
        found = _counted(rises, rise_bytes, now_s)
        if rise_bytes <= found.usual_bytes and rise_bytes <= found.kept_bytes and not _is_due(found, now_s):
            return found
    elif rises is None or not _is_due(rises, now_s):
        return rises
    else:
        found = rises
    return found._replace(
        judged_s=now_s,
        usual_bytes=usual_bytes(found, READY_PER_DAY, now_s),
        kept_bytes=usual_bytes(found, kept_per_day, now_s),
    )


def of_interval(rises: Rises | None, interval_s: float) -> Rises | None:
    """The same where it was counted over such intervals, or nobody knows; else None."""
    if rises is None or rises.interval_s == interval_s:
        return rises
    return rises._replace(interval_s=interval_s) if rises.interval_s is None else None


def _is_due(rises: Rises, now_s: float) -> bool:
    return now_s - rises.judged_s >= JUDGE_EVERY_S


def _counted(rises: Rises, rise_bytes: int, now_s: float) -> Rises:
    weight = _weight(rises, now_s)
    if weight > _LARGEST_WEIGHT:
        rises = rises._replace(counts=faded_counts(rises, now_s), epoch_s=now_s)
        weight = 1.0
    size = min(MOST_SIZES - 1, math.ceil(PER_OCTAVE * math.log2(rise_bytes / MIB)))
    counts = [*rises.counts, *[0.0] * (size + 1 - len(rises.counts))]
    counts[size] += weight
    return rises._replace(counts=tuple(counts))


def _weight(rises: Rises, now_s: float) -> float:
    """Of a rise now."""
    return math.exp2(min((now_s - rises.epoch_s) / HALF_LIFE_S, _MOST_DOUBLINGS))


def faded_counts(rises: Rises, now_s: float) -> tuple[float, ...]:
    """The counts with the weights of now."""
    weight = _weight(rises, now_s)
    return tuple(entry / weight for entry in rises.counts)


def _known_days(rises: Rises, now_s: float) -> float:
    """For how long it is known, with faded days."""
    return (1.0 - math.exp2((rises.since_s - now_s) / HALF_LIFE_S)) * STEADY_DAYS


def times(rises: Rises, least_bytes: int, now_s: float) -> tuple[float, float]:
    """How often it rose by about so much or more, old times faded; and how often that is in a day."""
    first = round(PER_OCTAVE * math.log2(max(least_bytes, MIB) / MIB))
    found = sum(rises.counts[first:]) / _weight(rises, now_s)
    return found, found / max(_known_days(rises, now_s), 1e-6)


def usual_bytes(rises: Rises, per_day: float, now_s: float) -> int:
    """The smallest size that rises pass at most `per_day` times a day, as far as is known; at least 0.

    A guest that is known for a part of a day is judged by that part: then its largest rise counts.
    """
    allowed = per_day * _known_days(rises, now_s) * _weight(rises, now_s)
    passed = 0.0
    for size in range(len(rises.counts) - 1, -1, -1):
        passed += rises.counts[size]
        if passed > allowed:
            return int(2.0 ** (size / PER_OCTAVE) * MIB)
    return 0
