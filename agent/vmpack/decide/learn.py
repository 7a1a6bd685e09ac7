"""What one snapshot teaches about one guest: its use, how fast that rises, whether it is pressed or silent.

Called once per guest and interval by decide.memory; every lasting observation goes through here.
"""

from __future__ import annotations

from vmpack.decide.lesson import fitting, kills_taken_up, taken_up
from vmpack.decide.sizes import Sizes
from vmpack.decide.stance import STANCES
from vmpack.decide.strain import has_free_memory, strain
from vmpack.decide.volatility import JUDGE_EVERY_S, SMALLEST_BYTES, learned
from vmpack.model.action import ARRIVED_BYTES
from vmpack.model.guest import GuestSnapshot, MemoryStats
from vmpack.model.plan import LearnedUse, RememberedGuest
from vmpack.model.settings import MemorySettings
from vmpack.units import KIB, MIB

REPORT_LAG_S = 1.0
"""Reports carry whole seconds: one is surely younger than a balloon move only if it is a second later."""
SWAP_IN_PRESSED_BYTES_PER_S = 50 * KIB
MAJOR_FAULTS_PRESSED_PER_S = 50.0
STUCK_INTERVALS = 1.5
"""A balloon that stands still this long short of its target has stopped."""
SETTLING_S = 3.0
"""The hypervisor tells of balloon moves at most once a second: this soon after our own, a move is not
the guest's."""
SAME_REPORT_S = 0.5
"""Reports are whole seconds apart; less is the same report seen through a clock that was slewed."""
KILL_TOLD_S = 120.0
"""A guest's count of kills is asked for now and then, so it may tell of a moment this long ago."""
KILL_FLOOR_MAX_S = 7 * 86400.0
KILLS_FORGOTTEN_S = 7 * 86400.0
"""After so long without a further kill the next one is the first again."""
PRESSED_FLOOR_S = 1800.0
PRESSES_FORGOTTEN_S = 86400.0
PRESSED_STEP = 4
"""A guest that is pressed wants a quarter more than it has."""
USE_MEMORY_S = 300.0
"""Time constant of the mean and variance of use."""


def counts_balloon(guest: GuestSnapshot, stats: MemoryStats, peak_bytes: int) -> bool | None:
    """Does this guest's MemTotal still count pages that the balloon took?

    Linux lowers MemTotal as the balloon inflates, except with autodeflate (VIRTIO_BALLOON_F_DEFLATE_ON_OOM:
    drivers/virtio/virtio_balloon.c skips adjust_managed_page_count). Windows never lowers it. A total above
    the balloon proves that it counts; below, it counts when autodeflate is on and it has not fallen by half
    of what the balloon took.
    None when the balloon has taken nothing, so nothing can be told.
    """
    taken = guest.built_bytes - guest.balloon_bytes
    if taken <= 0:
        return None
    if stats.available_bytes > guest.balloon_bytes:
        return True
    return guest.autodeflate and 2 * (peak_bytes - stats.available_bytes) < taken


def used_bytes(available_bytes: int, usable_bytes: int, taken_bytes: int, counts: bool) -> int:
    """Memory the guest uses: available - usable, less what the balloon took if MemTotal still counts it."""
    used = available_bytes - usable_bytes - (taken_bytes if counts else 0)
    return used if used > 0 else 0


def learn(
    guest: GuestSnapshot,
    before: RememberedGuest | None,
    now_s: float,
    limits: Sizes,
    settings: MemorySettings,
) -> RememberedGuest:
    """Take one snapshot of one guest into memory.

    A guest never seen, or with a new nominal, starts afresh, but for what vmpack did to it and must undo.
    `limits` are those of its nominal.
    """
    if before is None:
        before = _unknown(guest, now_s)
    elif before.nominal_bytes != guest.nominal_bytes:
        before = _unknown(guest, now_s)._replace(
            asked_s=before.asked_s,
            stats_period_before_s=before.stats_period_before_s,
            stats_period_set_s=before.stats_period_set_s,
        )
    (
        _, _, was_balloon, changed_s, awake_since_s, calm_since_s, use, target, asked_s, safe, stands_since_s,
        stood_at, floor, floor_until_s, period_before_s, period_set_s, _, kills_told, kills, killed_s,
        kill_floor_until_s, carried,
    ) = before  # fmt: skip
    balloon = guest.balloon_bytes
    settles = True
    if target is not None:
        if abs(balloon - target) <= ARRIVED_BYTES:
            target = stands_since_s = stood_at = None
            changed_s = now_s
        elif stood_at is None or stands_since_s is None or abs(balloon - stood_at) > ARRIVED_BYTES:
            changed_s = stands_since_s = now_s
            stood_at = balloon
            settles = False
        else:
            settles = now_s - stands_since_s >= settings.interval_s / 2
    elif balloon != was_balloon:
        changed_s = now_s
        if balloon > was_balloon and (asked_s is None or now_s - asked_s > SETTLING_S):
            calm_since_s = now_s
    if guest.state != "running" or guest.job is not None or (guest.stats_period_s == 0 and asked_s is None):
        awake_since_s = now_s
    if floor_until_s is not None and now_s >= floor_until_s:
        floor = floor_until_s = None
    if target is not None and balloon > target and _stopped(guest, stands_since_s, now_s, settings):
        floor, floor_until_s = balloon, now_s + settings.learned_floor_s
    if guest.oom_kills is not None or kill_floor_until_s is not None:
        kills, killed_s, kill_floor_until_s = _learn_kills(guest, before, now_s, settings)
        kills_told = kills_told if guest.oom_kills is None else guest.oom_kills
    use = _learn_use(guest, use, changed_s if settles else now_s, now_s, limits, settings)
    if carried is not None and use is not None:
        kept_per_day = STANCES[settings.stance].rises_per_day
        use, carried = taken_up(use, carried, now_s, kept_per_day, settings.interval_s), None
    return RememberedGuest(
        guest.name, guest.nominal_bytes, balloon, changed_s, awake_since_s, calm_since_s, use,
        target, asked_s, safe, stands_since_s, stood_at, floor, floor_until_s, period_before_s, period_set_s,
        guest.rss_bytes, kills_told, kills, killed_s, kill_floor_until_s, carried,
    )  # fmt: skip


def _stopped(
    guest: GuestSnapshot, stands_since_s: float | None, now_s: float, settings: MemorySettings
) -> bool:
    """Does the balloon under way stand still while its driver works?

    A driver that is not up yet, or hangs, says nothing of what the guest can give.
    """
    if stands_since_s is None or now_s - stands_since_s < stuck_s(settings):
        return False
    return guest.stats is not None and guest.stats.sampled_s > stands_since_s


def stuck_s(settings: MemorySettings) -> float:
    """A balloon that has not moved for so long, short of its target, has stopped."""
    return STUCK_INTERVALS * settings.interval_s


def is_stuck(known: RememberedGuest, now_s: float, settings: MemorySettings) -> bool:
    """Has the balloon under way stopped short?"""
    return known.stands_since_s is not None and now_s - known.stands_since_s >= stuck_s(settings)


def _learn_kills(
    guest: GuestSnapshot, before: RememberedGuest, now_s: float, settings: MemorySettings
) -> tuple[int, float | None, float | None]:
    """Kills seen lately, when the last was seen, and until when the guest keeps its nominal for it."""
    kills, killed_s, until_s = before.kills_seen, before.killed_s, before.kill_floor_until_s
    if _killed(guest, before, now_s):
        if killed_s is not None and now_s - killed_s > KILLS_FORGOTTEN_S:
            kills = 0
        return kills + 1, now_s, now_s + _kill_floor_s(kills + 1, settings)
    if until_s is not None and now_s >= until_s:
        until_s = None
    return kills, killed_s, until_s


def _killed(guest: GuestSnapshot, before: RememberedGuest, now_s: float) -> bool:
    """Did the guest kill a process for want of memory while vmpack kept some from it, or had a moment ago?

    A count that fell is that of a new boot. The first count tells nothing: it may be old.
    """
    if guest.oom_kills is None or before.oom_kills is None or guest.oom_kills <= before.oom_kills:
        return False
    was_packed = guest.nominal_bytes - before.balloon_bytes > ARRIVED_BYTES
    return was_packed or (before.asked_s is not None and now_s - before.asked_s <= KILL_TOLD_S)


def _kill_floor_s(kills: int, settings: MemorySettings) -> float:
    """Doubles with each time, up to a week."""
    return min(settings.kill_floor_s * 2.0 ** min(kills - 1, 20), KILL_FLOOR_MAX_S)


def _unknown(guest: GuestSnapshot, now_s: float) -> RememberedGuest:
    """A guest seen for the first time: its last report, however old, is taken to fit its balloon.

    What was learned of it elsewhere comes with it.
    """
    sampled_s = now_s if guest.stats is None else guest.stats.sampled_s
    carried = fitting(guest.learned, guest.nominal_bytes, now_s)
    kills, killed_s, kill_floor_until_s = kills_taken_up(carried, now_s)
    return RememberedGuest(
        guest.name,
        guest.nominal_bytes,
        guest.balloon_bytes,
        balloon_changed_s=sampled_s - REPORT_LAG_S,
        awake_since_s=now_s,
        calm_since_s=now_s,
        kills_seen=kills,
        killed_s=killed_s,
        kill_floor_until_s=kill_floor_until_s,
        carried=carried,
    )


def _learn_use(
    guest: GuestSnapshot,
    before: LearnedUse | None,
    changed_s: float,
    now_s: float,
    limits: Sizes,
    settings: MemorySettings,
) -> LearnedUse | None:
    """Take the newest report into memory; without a new one what was learned stays as it was."""
    stats = guest.stats
    if stats is None:
        return before
    sampled_s, available = stats.sampled_s, stats.available_bytes
    if before is None:
        used, kernel, counts = _use(guest, stats, None, available, True)
        return LearnedUse(
            sampled_s, used, kernel, available, counts, 0.0, sampled_s, used,
            _hidden_need(guest, stats, None, limits), stats.swap_in_bytes, stats.major_faults, None,
            float(used), 0.0, swapped_bytes=_swapped(stats), kernel=guest.kernel,
            kernel_balloon_bytes=guest.balloon_bytes,
        )  # fmt: skip
    # Taken apart at once: one by one the fields of a named tuple cost twice the time.
    (
        was_s, was_used, _, peak, _, fading, anchor_s, anchor_used, _, was_swap_in, was_faults,
        pressed_until_s, mean, variance, rises, floor, floor_until_s, presses, swapped,
        counted, counted_balloon, pressed_by,
    ) = before  # fmt: skip
    seconds = sampled_s - was_s
    if seconds < SAME_REPORT_S:
        return before
    if available > peak:
        peak = available
    used, kernel, counts = _use(guest, stats, before, peak, sampled_s >= changed_s + REPORT_LAG_S)
    rise = _rise(used, seconds, sampled_s - anchor_s, was_used, anchor_used, fading, limits, settings)
    if sampled_s - anchor_s >= settings.interval_s:
        # From anchor to anchor: intervals that do not overlap.
        step = was_used - anchor_used
        if step >= SMALLEST_BYTES or (rises is not None and was_s - rises.judged_s >= JUDGE_EVERY_S):
            kept_per_day = STANCES[settings.stance].rises_per_day
            rises = learned(rises, step, was_s, kept_per_day, settings.interval_s)
        anchor_s, anchor_used = was_s, was_used
    swaps = _many(stats.swap_in_bytes, was_swap_in, SWAP_IN_PRESSED_BYTES_PER_S * seconds)
    faults = swaps or _many(stats.major_faults, was_faults, MAJOR_FAULTS_PRESSED_PER_S * seconds)
    by, heeds = "", STANCES[settings.stance].heeds_faults
    hidden = _hidden_need(guest, stats, swapped, limits)
    if faults and not has_free_memory(stats):
        # Where use rises, or all is used, that is why it faults: no page cache is kept for it.
        by = "faults" if heeds and not rise and hidden is None else ""
        if swaps:
            pressed_until_s = now_s + settings.calm_s
    told = guest.kernel
    if told is not None and (counted is None or told.sampled_s != counted.sampled_s):
        by = by or strain(guest, stats, before, changed_s, heeds)
        counted, counted_balloon = told, guest.balloon_bytes
    if by:
        pressed_by = by
        floor, floor_until_s, presses = _pressed_floor(guest, before, now_s, limits, settings)
    elif floor_until_s is not None and now_s - floor_until_s > PRESSES_FORGOTTEN_S:
        floor, floor_until_s, presses = 0, None, 0
    # Exponentially weighted mean and variance (West 1979), by the time between reports.
    weight = seconds / USE_MEMORY_S
    if weight > 1.0:
        weight = 1.0
    off = used - mean
    if hidden is None:
        swapped = _swapped(stats)
    return LearnedUse(
        sampled_s, used, kernel, peak, counts, rise, anchor_s, anchor_used, hidden,
        stats.swap_in_bytes, stats.major_faults, pressed_until_s,
        mean + weight * off, (1 - weight) * (variance + weight * off * off),
        rises, floor, floor_until_s, presses, swapped, counted, counted_balloon, pressed_by,
    )  # fmt: skip


def _pressed_floor(
    guest: GuestSnapshot, before: LearnedUse, now_s: float, limits: Sizes, settings: MemorySettings
) -> tuple[int, float | None, int]:
    """What it wants because it was pressed when it had less; until when; how often in a row.

    Page cache that is used counts as free, and only faults and its kernel tell of it. Each step is given
    calm_s to help before there is another: what was lost is read again when there is room for it, and a
    program that starts faults too. The size is tried again after a while that doubles each time.
    """
    floor, until_s, presses = before.pressed_floor_bytes, before.pressed_floor_until_s, before.presses
    if guest.balloon_bytes >= guest.nominal_bytes:
        return floor, until_s, presses
    if until_s is None or now_s >= until_s:
        presses, floor = presses + 1, 0
    elif now_s < until_s - _pressed_floor_s(presses) + settings.calm_s:
        return floor, until_s, presses
    step = max(limits.band_bytes, guest.balloon_bytes // PRESSED_STEP)
    return max(floor, guest.balloon_bytes + step), now_s + _pressed_floor_s(presses), presses


def _pressed_floor_s(presses: int) -> float:
    return min(PRESSED_FLOOR_S * 2.0 ** min(presses - 1, 20), PRESSES_FORGOTTEN_S)


def _use(
    guest: GuestSnapshot, stats: MemoryStats, before: LearnedUse | None, peak_bytes: int, settled: bool
) -> tuple[int, int, bool | None]:
    """Use, the kernel's own part, and whether MemTotal counts the balloon.

    A report from before the balloon's last move is only trusted where MemTotal follows the balloon, because
    then its numbers fit each other whatever the balloon is now.
    """
    available, usable, balloon = stats.available_bytes, stats.usable_bytes, guest.balloon_bytes
    counts = None if before is None else before.counts_balloon
    if settled or before is None:
        told = counts_balloon(guest, stats, peak_bytes)
        counts = counts if told is None else told
        kernel = (guest.built_bytes if counts else balloon) - available
        used = used_bytes(available, usable, guest.built_bytes - balloon, bool(counts))
        return used, kernel if kernel > 0 else 0, counts
    if not (guest.autodeflate if counts is None else counts):
        return used_bytes(available, usable, 0, False), before.kernel_bytes, counts
    return before.used_bytes, before.kernel_bytes, counts


def _rise(
    used: int,
    seconds: float,
    since_anchor_s: float,
    was_used: int,
    anchor_used: int,
    fading: float,
    limits: Sizes,
    settings: MemorySettings,
) -> float:
    """How fast use rises, since the last report or since the anchor; an old rise halves twice per interval.

    Small changes are noise; a rise that is small from report to report shows against the anchor.
    """
    rise = 0.0
    if fading:
        faded = fading * 0.5 ** (2 * seconds / settings.interval_s)
        if faded >= MIB / 4:
            rise = faded
    if used <= was_used:
        return rise
    band = limits.band_bytes
    if 2 * (used - was_used) >= band:
        rise = max(rise, (used - was_used) / seconds)
    if 2 * (used - anchor_used) >= band:
        rise = max(rise, (used - anchor_used) / since_anchor_s)
    return rise


def _hidden_need(
    guest: GuestSnapshot, stats: MemoryStats, swapped_before: int | None, limits: Sizes
) -> int | None:
    """With nothing free, use is all that the guest has and its need unknown.

    What it has swapped out since it last had something free tells how much more it needs, and it needs ever
    more; else a large step.
    """
    if 4 * stats.usable_bytes > limits.fixed_headroom_bytes:
        return None
    gone = swapped_since(stats, swapped_before)
    step = gone + gone // 2 if gone else guest.nominal_bytes // 4
    return guest.balloon_bytes + max(limits.band_bytes, step)


def swapped_since(stats: MemoryStats, swapped_before: int | None) -> int:
    """What it has swapped out since it last had something free; 0 when nothing, or not known."""
    swapped = _swapped(stats)
    return 0 if swapped is None or swapped_before is None else max(0, swapped - swapped_before)


def _swapped(stats: MemoryStats) -> int | None:
    """What is swapped out and has not come back; pages that are freed there stay counted."""
    if stats.swap_out_bytes is None or stats.swap_in_bytes is None:
        return None
    return stats.swap_out_bytes - stats.swap_in_bytes


def _many(count: int | None, before: int | None, least: float) -> bool:
    """Did a counter grow by so much?"""
    return count is not None and before is not None and count - before >= least
