"""What one snapshot teaches about one guest: its use, how fast that rises, whether it is pressed or silent.

Called once per guest and interval by decide.memory; every lasting observation goes through here.
"""

from __future__ import annotations

from vmpack.decide.lesson import fitting, kills_taken_up, taken_up
from vmpack.decide.sizes import Sizes
from vmpack.decide.stance import STANCES
from vmpack.decide.volatility import learned
from vmpack.model.action import ARRIVED_BYTES
from vmpack.model.guest import GuestSnapshot, MemoryStats
from vmpack.model.plan import LearnedUse, RememberedGuest, Rises
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
    balloon, target = guest.balloon_bytes, before.target_bytes
    changed_s, stands_since_s, stood_at = (
        before.balloon_changed_s,
        before.stands_since_s,
        before.stood_at_bytes,
    )
    calm_since_s = before.calm_since_s
    moved = balloon - before.balloon_bytes
    if target is not None:
        if abs(balloon - target) <= ARRIVED_BYTES:
            target = stands_since_s = stood_at = None
            changed_s = now_s
        elif stood_at is None or stands_since_s is None or abs(balloon - stood_at) > ARRIVED_BYTES:
            changed_s = stands_since_s = now_s
            stood_at = balloon
    elif moved:
        changed_s = now_s
        if moved > 0 and (before.asked_s is None or now_s - before.asked_s > SETTLING_S):
            calm_since_s = now_s
    reports = guest.stats_period_s != 0 or before.asked_s is not None
    undisturbed = guest.state == "running" and guest.job is None and reports
    stood_s = 0.0 if stands_since_s is None else now_s - stands_since_s
    settles = target is None or stood_s >= settings.interval_s / 2
    floor, floor_until_s = before.learned_floor_bytes, before.learned_floor_until_s
    works = guest.stats is not None and stands_since_s is not None and guest.stats.sampled_s > stands_since_s
    if target is not None and balloon > target and stood_s >= stuck_s(settings) and works:
        # A driver that is not up yet, or hangs, says nothing of what the guest can give.
        floor, floor_until_s = balloon, now_s + settings.learned_floor_s
    elif floor_until_s is not None and now_s >= floor_until_s:
        floor = floor_until_s = None
    kills, killed_s, kill_floor_until_s = _learn_kills(guest, before, now_s, settings)
    use = _learn_use(guest, before.use, changed_s if settles else now_s, now_s, limits, settings)
    carried = before.carried
    if carried is not None and use is not None:
        use, carried = taken_up(use, carried, now_s, STANCES[settings.stance].rises_per_day), None
    return RememberedGuest(
        guest.name,
        guest.nominal_bytes,
        balloon,
        changed_s,
        before.awake_since_s if undisturbed else now_s,
        calm_since_s,
        use,
        target,
        before.asked_s,
        before.safe_bytes,
        stands_since_s,
        stood_at,
        floor,
        floor_until_s,
        before.stats_period_before_s,
        before.stats_period_set_s,
        guest.rss_bytes,
        before.oom_kills if guest.oom_kills is None else guest.oom_kills,
        kills,
        killed_s,
        kill_floor_until_s,
        carried,
    )


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
    if stats is None or (before is not None and stats.sampled_s < before.sampled_s + SAME_REPORT_S):
        return before
    available = stats.available_bytes
    peak = (
        available
        if before is None or before.available_peak_bytes < available
        else before.available_peak_bytes
    )
    settled = stats.sampled_s >= changed_s + REPORT_LAG_S
    used, kernel, counts = _use(guest, stats, before, peak, settled)
    hidden = _hidden_need(guest, stats, limits)
    if before is None:
        return LearnedUse(
            stats.sampled_s, used, kernel, peak, counts, 0.0, stats.sampled_s, used, hidden,
            stats.swap_in_bytes, stats.major_faults, None, float(used), 0.0,
        )  # fmt: skip
    # Exponentially weighted mean and variance (West 1979), by the time between reports.
    weight = (stats.sampled_s - before.sampled_s) / USE_MEMORY_S
    if weight > 1.0:
        weight = 1.0
    off = used - before.mean_bytes
    pressed = _pressed(stats, before, STANCES[settings.stance].heeds_faults)
    floor, floor_until_s, presses = 0, None, 0
    if pressed or before.pressed_floor_until_s is not None:
        floor, floor_until_s, presses = _pressed_floor(guest, before, pressed, now_s, limits)
    return LearnedUse(
        stats.sampled_s,
        used,
        kernel,
        peak,
        counts,
        _rise(used, stats.sampled_s, before, limits.band_bytes, settings.interval_s),
        *_anchor(stats.sampled_s, before, settings.interval_s),
        hidden,
        stats.swap_in_bytes,
        stats.major_faults,
        now_s + settings.calm_s if pressed else before.pressed_until_s,
        before.mean_bytes + weight * off,
        (1 - weight) * (before.variance + weight * off * off),
        _rises(stats.sampled_s, before, settings),
        floor,
        floor_until_s,
        presses,
    )


def _rises(sampled_s: float, before: LearnedUse, settings: MemorySettings) -> Rises | None:
    """Count what use rose by from anchor to anchor: intervals that do not overlap."""
    if sampled_s - before.anchor_s < settings.interval_s:
        return before.rises
    rise = before.used_bytes - before.anchor_bytes
    return learned(before.rises, rise, before.sampled_s, STANCES[settings.stance].rises_per_day)


def _pressed_floor(
    guest: GuestSnapshot, before: LearnedUse, pressed: bool, now_s: float, limits: Sizes
) -> tuple[int, float | None, int]:
    """What it wants because it swapped in or faulted hard when it had less; until when; how often in a row.

    Page cache that is used counts as free, and only faults tell of it. The size is tried again after a while
    that doubles each time.
    """
    floor, until_s, presses = before.pressed_floor_bytes, before.pressed_floor_until_s, before.presses
    if not pressed or guest.balloon_bytes >= guest.nominal_bytes:
        if until_s is not None and now_s - until_s > PRESSES_FORGOTTEN_S:
            return 0, None, 0
        return floor, until_s, presses
    if until_s is None or now_s >= until_s:
        presses, floor = presses + 1, 0
    step = max(limits.band_bytes, guest.balloon_bytes // PRESSED_STEP)
    kept_s = min(PRESSED_FLOOR_S * 2.0 ** min(presses - 1, 20), PRESSES_FORGOTTEN_S)
    return max(floor, guest.balloon_bytes + step), now_s + kept_s, presses


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


def _rise(used: int, sampled_s: float, before: LearnedUse, band: int, interval_s: float) -> float:
    """How fast use rises, since the last report or since the anchor; an old rise halves twice per interval.

    Small changes are noise; a rise that is small from report to report shows against the anchor.
    """
    seconds = sampled_s - before.sampled_s
    faded = before.rise_bytes_per_s * 0.5 ** (2 * seconds / interval_s)
    rise = faded if faded >= MIB / 4 else 0.0
    if 2 * (used - before.used_bytes) >= band:
        rise = max(rise, (used - before.used_bytes) / seconds)
    if 2 * (used - before.anchor_bytes) >= band and used > before.used_bytes:
        rise = max(rise, (used - before.anchor_bytes) / (sampled_s - before.anchor_s))
    return rise


def _anchor(sampled_s: float, before: LearnedUse, interval_s: float) -> tuple[float, int]:
    """The report that the next one is compared with: kept for an interval, then the last one before this."""
    if sampled_s - before.anchor_s < interval_s:
        return before.anchor_s, before.anchor_bytes
    return before.sampled_s, before.used_bytes


def _hidden_need(guest: GuestSnapshot, stats: MemoryStats, limits: Sizes) -> int | None:
    """With nothing free, use is all that the guest has and its need unknown: a large step instead."""
    if 4 * stats.usable_bytes > limits.fixed_headroom_bytes:
        return None
    return guest.balloon_bytes + max(limits.band_bytes, guest.nominal_bytes // 4)


def _pressed(stats: MemoryStats, before: LearnedUse, heeds_faults: bool) -> bool:
    """Swap-in and hard faults are need, whatever the free memory says."""
    seconds = stats.sampled_s - before.sampled_s
    swapped = (
        stats.swap_in_bytes is not None
        and before.swap_in_bytes is not None
        and stats.swap_in_bytes - before.swap_in_bytes >= SWAP_IN_PRESSED_BYTES_PER_S * seconds
    )
    if swapped or not heeds_faults:
        return swapped
    if stats.major_faults is not None and before.major_faults is not None:
        return stats.major_faults - before.major_faults >= MAJOR_FAULTS_PRESSED_PER_S * seconds
    return False
