"""What a guest's own kernel tells of its want of memory, where its balloon driver shows nothing.

Page cache that is used counts as free memory: a guest that loses it does not swap and takes no hard faults
where it reads files by calls. Called by decide.learn for every report. Pure.
"""

from __future__ import annotations

from vmpack.model.guest import GuestSnapshot, MemoryStats
from vmpack.model.plan import LearnedUse

REFAULTS_PER_S = 50.0
"""As many as hard faults: each waits for a page from the disk. A guest whose cache of 100 MiB fitted had
none, and more than 40 000 once its balloon took a part of that."""
ALLOCATION_STALLS_PER_S = 10.0
"""At 0.2 ms each, what they cost is STALLED_RATIO."""
STALLED_RATIO = 0.01 / 6
"""Senpai gives memory back from here: 10 ms of stalls in 6 s."""
FREE_RATIO = 1 / 8
"""A guest with so much free memory lacks none: what is counted is of a part of it at its own limit."""


def has_free_memory(stats: MemoryStats) -> bool:
    """Is so much of it unused, even as page cache, that nothing in it can be for want of memory?"""
    return stats.unused_bytes is not None and stats.unused_bytes > FREE_RATIO * stats.available_bytes


def strain(
    guest: GuestSnapshot, stats: MemoryStats, before: LearnedUse, changed_s: float, heeds_cache: bool
) -> str:
    """Which count of this guest shows want since its last answer; empty for none, or where none can be told.

    `changed_s` is when its balloon last moved: one that inflates makes the kernel free memory for it, so
    those stalls are its own; and what was lost before it grew may be cured. Unless `heeds_cache` only the
    time in which nothing at all went on counts.
    """
    now, then = guest.kernel, before.kernel
    if now is None or then is None or now.sampled_s <= then.sampled_s:
        return ""
    if has_free_memory(stats):
        return ""
    seconds = now.sampled_s - then.sampled_s
    grown = guest.balloon_bytes > before.kernel_balloon_bytes
    if heeds_cache and not grown and _rose(now.refaults, then.refaults, REFAULTS_PER_S * seconds):
        return "refaults"
    if then.sampled_s < changed_s:
        return ""
    stalled_us = 1e6 * STALLED_RATIO * seconds
    if heeds_cache:
        if _rose(now.allocation_stalls, then.allocation_stalls, ALLOCATION_STALLS_PER_S * seconds):
            return "allocation_stalls"
        if _rose(now.stalled_some_us, then.stalled_some_us, stalled_us):
            return "stalled"
    return "stalled" if _rose(now.stalled_full_us, then.stalled_full_us, stalled_us) else ""


def _rose(now: int | None, before: int | None, least: float) -> bool:
    """False, too, where a count fell: that of a new boot."""
    return now is not None and before is not None and now - before >= least
