"""How far the use of all VMs of a host, taken together, rises within the reaction time: learned there.

Called by decide/memory once per interval, which keeps what is returned, and by decide/offer. Peaks that
coincide show only here: statistics of single VMs cannot tell them.

The series is chained: each interval adds the changes of the VMs that were there before and are still there,
so that one that leaves is no fall and one that comes no rise. A newcomer is not counted at all: its whole
nominal is kept (decide/offer). Rises are counted as shares of those VMs' extent, which makes them hold when
there are more or fewer VMs: one that was never seen is expected to behave as the others do, for its size.

A window begins at every quarter of the reaction time, and tells by how much use was above its beginning at
most. Windows overlap, so four of them count as one.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Set
from typing import NamedTuple

from vmpack.decide.day_peaks import noted
from vmpack.model.plan import HostRises, RiseWindow

HALF_LIFE_S = 7 * 86400.0
PER_REACTION = 4
PER_OCTAVE = 4
SMALLEST_RATIO = 2.0**-10
"""Of the VMs' extent: smaller rises are counted as none."""
MOST_SIZES = PER_OCTAVE * 14
RATIOS = tuple(SMALLEST_RATIO * 2.0 ** (size / PER_OCTAVE) for size in range(MOST_SIZES + 1))
"""The largest rise that is counted under each size."""
TOGETHER_RATIO = 0.5
"""Where those that rose most in each interval make less of a rise than this, it came of many VMs together."""
NEWCOMER_REACTIONS = 10
"""For so many reaction times a VM is a newcomer."""
PAUSE_S = 60.0
"""When so much more than a reaction time passed unseen, nothing is made of what changed meanwhile."""
TAIL_EXPONENT = 2.0
"""Beyond the largest rise ever seen: twice as large comes a fourth as often."""
MARGIN = 1.1
"""On the sizes seen: tomorrow is not today."""
_LARGEST_WEIGHT = 2.0**20


class Extent(NamedTuple):
    """What the rises of some VMs are measured by."""

    together_bytes: int
    """The sum of their nominals: rises that coincide grow with it."""
    alone_bytes: int
    """Rises of single VMs come more often where there are more VMs, which makes the seldom ones larger: by
    how much depends on their tail, from the root of the sum of squares to the sum. This is the geometric
    mean of both."""


def extent(nominals: Iterable[int]) -> Extent:
    """Of VMs with these nominals."""
    total = squares = 0
    for nominal in nominals:
        total += nominal
        squares += nominal * nominal
    return Extent(total, int(math.sqrt(total * math.sqrt(squares))))


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


class Change(NamedTuple):
    """What one interval brought to the VMs that were and are there, and are no newcomers."""

    all_bytes: int
    """By how much they use more."""
    largest_bytes: int
    """By how much the one that rose most uses more; 0 where none rose."""


def learned(
    before: HostRises | None,
    change: Change,
    size: Extent,
    arrived: Mapping[str, float],
    now_s: float,
    wall_s: float,
    reaction_s: float,
) -> HostRises:
    """Take one interval into account; `size` is that of the VMs that changed, `arrived` are the newcomers.

    `now_s` is monotonic, `wall_s` Unix time of the same moment.

    After a pause windows begin anew; with another reaction time everything does.
    """
    if before is None or before.reaction_s != reaction_s:
        before = HostRises((), (), 0.0, now_s, now_s, now_s, reaction_s, 0, 0, ())
        change = Change(0, 0)
    level, largest = before.level_bytes + change.all_bytes, before.largest_bytes + change.largest_bytes
    paused = now_s - before.last_s > reaction_s + PAUSE_S
    ended: list[RiseWindow] = []
    kept: list[RiseWindow] = []
    for window in () if paused else before.windows:
        if level - window.level_bytes > window.rise_bytes:
            window = window._replace(
                rise_bytes=level - window.level_bytes, largest_rise_bytes=largest - window.largest_bytes
            )
        (kept if now_s - window.begun_s < reaction_s else ended).append(window)
    if not kept or now_s - kept[-1].begun_s >= reaction_s / PER_REACTION:
        kept.append(RiseWindow(now_s, level, largest, size.together_bytes, size.alone_bytes))
    rises = before._replace(
        last_s=now_s, level_bytes=level, largest_bytes=largest, windows=tuple(kept), newcomers=dict(arrived)
    )
    for window in ended:
        if window.together_bytes:
            rises = _with(rises, window, wall_s - (now_s - window.begun_s))
    return rises


def _with(rises: HostRises, window: RiseWindow, begun_wall_s: float) -> HostRises:
    """Count a window that has ended."""
    weight = 2.0 ** ((window.begun_s - rises.epoch_s) / HALF_LIFE_S)
    if weight > _LARGEST_WEIGHT:
        rises = rises._replace(
            alone=tuple(count / weight for count in rises.alone),
            together=tuple(count / weight for count in rises.together),
            seen=rises.seen / weight,
            epoch_s=window.begun_s,
        )
        weight = 1.0
    weight /= PER_REACTION
    rises = rises._replace(seen=rises.seen + weight)
    if window.largest_rise_bytes < TOGETHER_RATIO * window.rise_bytes:
        return rises._replace(
            together=_counted(rises.together, window.rise_bytes, window.together_bytes, weight),
            peaks=noted(rises.peaks, window.rise_bytes / window.together_bytes, begun_wall_s),
        )
    return rises._replace(alone=_counted(rises.alone, window.rise_bytes, window.alone_bytes, weight))


def _counted(counts: tuple[float, ...], rise: int, extent_bytes: int, weight: float) -> tuple[float, ...]:
    if rise <= SMALLEST_RATIO * extent_bytes:
        return counts
    size = min(MOST_SIZES, math.ceil(PER_OCTAVE * math.log2(rise / extent_bytes / SMALLEST_RATIO)))
    longer = [*counts, *[0.0] * (size + 1 - len(counts))]
    longer[size] += weight
    return tuple(longer)


def known_windows(rises: HostRises) -> float:
    """How many windows, one after the other, were seen; old ones count less."""
    return float(rises.seen * 2.0 ** ((rises.epoch_s - rises.last_s) / HALF_LIFE_S))


def usual_bytes(rises: HostRises, size: Extent, bound_ratio: float) -> float:
    """What a rise of these VMs within one reaction time passes with at most this chance.

    As far as is known: the rate of each size is taken at the upper end of what the sample allows, and beyond
    the largest rise seen the tail is drawn on. Infinite while nothing is known.
    """
    total = known_windows(rises)
    allowed = bound_ratio * total
    if allowed <= 0:
        return math.inf
    sizes = _sizes(rises.alone, rises.together, size)
    if allowed < _upper(0.0):
        return MARGIN * sizes[0][0] * math.pow(_upper(0.0) / allowed, 1 / TAIL_EXPONENT)
    fading = total / rises.seen
    passed = 0.0
    for size_bytes, count in sizes:
        passed += count * fading
        if _upper(passed) > allowed:
            return MARGIN * size_bytes
    return MARGIN * sizes[-1][0]


def chance_ratio(rises: HostRises, size: Extent, kept_bytes: float) -> float:
    """The chance that a rise of these VMs within one reaction time passes this."""
    total = known_windows(rises)
    if total <= 0:
        return 1.0
    sizes = _sizes(rises.alone, rises.together, size)
    largest, kept = sizes[0][0], kept_bytes / MARGIN
    if kept > largest:
        return min(1.0, _upper(0.0) / total * math.pow(largest / kept, TAIL_EXPONENT))
    fading = total / rises.seen
    return min(1.0, _upper(sum(count * fading for size_bytes, count in sizes if size_bytes > kept)) / total)


@functools.lru_cache(maxsize=4)
def _sizes(
    alone: tuple[float, ...], together: tuple[float, ...], size: Extent
) -> tuple[tuple[float, float], ...]:
    """For these VMs the largest rise that is counted under each size, and its count; the largest first.

    Kept, for it changes only when a window ends.
    """
    sizes = [(SMALLEST_RATIO * size.alone_bytes, 0.0)]
    for counts, extent_bytes in ((alone, size.alone_bytes), (together, size.together_bytes)):
        sizes += [(RATIOS[place] * extent_bytes, count) for place, count in enumerate(counts) if count]
    return tuple(sorted(sizes, reverse=True))


def _upper(passed: float) -> float:
    """What a count may come to be in another sample of the same length: one standard deviation, and one."""
    return passed + math.sqrt(passed) + 1.0
