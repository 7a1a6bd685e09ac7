"""How far the use of all VMs of a host, taken together, rises within the reaction time: learned there.

Called by decide/memory once per interval, which keeps what is returned, and by decide/offer. Peaks that
coincide show only here: statistics of single VMs cannot tell them.

The series is chained: each interval adds the changes of the VMs that were there before and are still there,
so that one that leaves is no fall and one that comes no rise. Rises are counted as shares of those VMs'
`extent`, which makes them hold when there are more or fewer VMs: one that was never seen is expected to
behave as the others do, for its size. A newcomer is not counted at all: its whole nominal is kept
(decide/offer).

A window begins at every quarter of the reaction time, and tells by how much use was above its beginning at
most. Windows overlap, so four of them count as one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Set

from vmpack.model.plan import HostRises, RiseWindow

HALF_LIFE_S = 7 * 86400.0
DAY_S = 86400.0
PER_REACTION = 4
PER_OCTAVE = 4
SMALLEST_RATIO = 2.0**-10
"""Of the VMs' extent: smaller rises are counted as none."""
MOST_SIZES = PER_OCTAVE * 14
NEWCOMER_REACTIONS = 10
"""For so many reaction times a VM is a newcomer."""
PAUSE_S = 60.0
"""When so much more than a reaction time passed unseen, nothing is made of what changed meanwhile."""
TAIL_EXPONENT = 2.0
"""Beyond the largest rise ever seen: twice as large comes a fourth as often."""
MARGIN = 1.1
"""On the sizes seen: tomorrow is not today."""
_LARGEST_WEIGHT = 2.0**20


def extent_bytes(nominals: Iterable[int]) -> int:
    """What the rises of VMs with these nominals are measured by.

    Rises that coincide grow with the sum of nominals, independent ones with the root of the sum of squares:
    the geometric mean of both lies between.
    """
    total = squares = 0
    for nominal in nominals:
        total += nominal
        squares += nominal * nominal
    return int(math.sqrt(total * math.sqrt(squares)))


def newcomers(
    before: HostRises | None,
    known: Set[str],
    uuids: Set[str],
    now_s: float,
    reaction_s: float,
) -> dict[str, float]:
    """When each VM that is still a newcomer was first seen, by uuid; `known` were known before now."""
    if before is None:
        return dict.fromkeys(uuids, now_s)
    since = before.newcomers
    if not since and known >= uuids:
        return {}
    lasts_s = NEWCOMER_REACTIONS * reaction_s
    found = {}
    for uuid in uuids:
        if uuid not in known:
            found[uuid] = now_s
        elif uuid in since and now_s - since[uuid] < lasts_s:
            found[uuid] = since[uuid]
    return found


def learned(
    before: HostRises | None,
    change_bytes: int,
    extent: int,
    arrived: Mapping[str, float],
    now_s: float,
    reaction_s: float,
) -> HostRises:
    """Take one interval into account.

    `change_bytes` is by how much the VMs that were and are there, and are no newcomers, use more than in the
    interval before; `extent` that of their nominals; `arrived` the newcomers. After a pause windows begin
    anew; with another reaction time everything does.
    """
    if before is None or before.reaction_s != reaction_s:
        window = RiseWindow(now_s, 0, 0, extent)
        return HostRises((), 0.0, now_s, now_s, now_s, reaction_s, 0, (window,), dict(arrived))
    level = before.level_bytes + change_bytes
    seen, epoch_s, counts = before.seen, before.epoch_s, before.counts
    kept: list[RiseWindow] = []
    if now_s - before.last_s <= reaction_s + PAUSE_S:
        for window in before.windows:
            if level > window.highest_bytes:
                window = window._replace(highest_bytes=level)
            if now_s - window.begun_s < reaction_s:
                kept.append(window)
                continue
            if not window.extent_bytes:
                continue
            weight = 2.0 ** ((window.begun_s - epoch_s) / HALF_LIFE_S)
            if weight > _LARGEST_WEIGHT:
                counts = tuple(entry / weight for entry in counts)
                seen, epoch_s, weight = seen / weight, window.begun_s, 1.0
            seen += weight / PER_REACTION
            counts = _counted(counts, window, weight / PER_REACTION)
    if not kept or now_s - kept[-1].begun_s >= reaction_s / PER_REACTION:
        kept.append(RiseWindow(now_s, level, level, extent))
    return HostRises(
        counts, seen, before.since_s, epoch_s, now_s, reaction_s, level, tuple(kept), dict(arrived)
    )


def _counted(counts: tuple[float, ...], window: RiseWindow, weight: float) -> tuple[float, ...]:
    rise = window.highest_bytes - window.level_bytes
    if rise <= SMALLEST_RATIO * window.extent_bytes:
        return counts
    ratio = rise / window.extent_bytes
    size = min(MOST_SIZES, math.ceil(PER_OCTAVE * math.log2(ratio / SMALLEST_RATIO)))
    longer = [*counts, *[0.0] * (size + 1 - len(counts))]
    longer[size] += weight
    return tuple(longer)


def known_windows(rises: HostRises) -> float:
    """How many windows, one after the other, were seen; old ones count less."""
    return float(rises.seen * 2.0 ** ((rises.epoch_s - rises.last_s) / HALF_LIFE_S))


def usual_ratio(rises: HostRises, bound_ratio: float) -> float:
    """The share of the extent that a rise within one reaction time passes with at most this chance.

    As far as is known: the rate of each size is taken at the upper end of what the sample allows, and beyond
    the largest rise seen the tail is drawn on. Infinite while nothing is known.
    """
    total = known_windows(rises)
    allowed = bound_ratio * total
    if allowed <= 0:
        return math.inf
    if allowed < _upper(0.0):
        largest = _size_ratio(len(rises.counts) - 1)
        return MARGIN * largest * math.pow(_upper(0.0) / allowed, 1 / TAIL_EXPONENT)
    fading = total / rises.seen
    passed = 0.0
    for size in range(len(rises.counts) - 1, -1, -1):
        passed += rises.counts[size] * fading
        if _upper(passed) > allowed:
            return MARGIN * _size_ratio(size)
    return MARGIN * SMALLEST_RATIO


def chance_ratio(rises: HostRises, kept_ratio: float) -> float:
    """The chance that a rise within one reaction time passes this share of the extent."""
    total = known_windows(rises)
    if total <= 0:
        return 1.0
    size_ratio = kept_ratio / MARGIN
    largest = _size_ratio(len(rises.counts) - 1)
    if size_ratio > largest:
        return min(1.0, _upper(0.0) / total * math.pow(largest / size_ratio, TAIL_EXPONENT))
    fading = total / rises.seen
    passed = sum(count * fading for size, count in enumerate(rises.counts) if _size_ratio(size) > size_ratio)
    return min(1.0, _upper(passed) / total)


def _size_ratio(size: int) -> float:
    """The largest rise that is counted under this size."""
    return float(SMALLEST_RATIO * 2.0 ** (max(0, size) / PER_OCTAVE))


def _upper(passed: float) -> float:
    """What a count may come to be in another sample of the same length: one standard deviation, and one."""
    return passed + math.sqrt(passed) + 1.0
