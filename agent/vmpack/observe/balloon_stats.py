"""What a guest's balloon driver reported, checked: a guest can send anything.

Called by source.py for every VM and interval. Pure. Promises that a MemoryStats made here is possible
(no negative size, no more usable than available, no more available than the VM was built with) and never
from the future.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vmpack.model.guest import MemoryStats
from vmpack.units import KIB

FUTURE_TOLERANCE_S = 5.0
LARGEST_KIB = 2**53
_PREFIX = "balloon."


@dataclass(frozen=True, slots=True)
class Sighting:
    """When a report was first seen: QEMU's stamp of it, and the same moment on the monotonic clock."""

    stamp_s: int
    sampled_s: float
    looked_s: float
    """When we last looked, on the monotonic clock."""


def date_report(
    stats: Mapping[str, Any], last: Sighting | None, time_s: float, wall_s: float
) -> tuple[Sighting | None, str | None]:
    """Put the report's wall-clock stamp on the monotonic clock; None and a fault when that is impossible.

    A report seen before keeps its date, and a new one cannot be older than our last look, so stepping the
    wall clock shifts no age except that of a report seen for the first time.
    """
    stamp_s = stats.get(f"{_PREFIX}last-update")
    if stamp_s is None or stamp_s == 0:
        return None, None
    if not _is_count(stamp_s):
        return None, f"the time of the report is {stamp_s!r:.40}"
    if last is not None and last.stamp_s == stamp_s:
        return Sighting(stamp_s, last.sampled_s, time_s), None
    if last is None and stamp_s > wall_s + FUTURE_TOLERANCE_S:
        return None, f"the report is {stamp_s - wall_s:.0f} s from the future"
    sampled_s = time_s - max(0.0, wall_s - stamp_s)
    if last is not None:
        sampled_s = max(sampled_s, last.looked_s - 1.0)
    return Sighting(stamp_s, sampled_s, time_s), None


def read_stats(
    stats: Mapping[str, Any], built_bytes: int, sampled_s: float
) -> tuple[MemoryStats | None, str | None]:
    """The report in libvirt's bulk statistics, None and the fault, or None and None without one."""
    values: dict[str, int | None] = {}
    for name in ("available", "usable", "unused", "disk_caches", "swap_in", "swap_out"):
        raw = stats.get(_PREFIX + name)
        if raw is not None and not _is_count(raw):
            return None, f"{name} is {raw!r:.40}"
        values[name] = None if raw is None else raw * KIB
    available, usable, unused = values["available"], values["usable"], values["unused"]
    if available is None or usable is None:
        return None, None if available is usable else "the driver does not report what is usable"
    fault = _impossible(available, usable, unused, built_bytes)
    if fault is not None:
        return None, fault
    return MemoryStats(
        sampled_s=sampled_s,
        available_bytes=available,
        usable_bytes=usable,
        unused_bytes=unused,
        caches_bytes=values["disk_caches"],
        swap_in_bytes=values["swap_in"],
        swap_out_bytes=values["swap_out"],
        major_faults=_count(stats.get(f"{_PREFIX}major_fault")),
        minor_faults=_count(stats.get(f"{_PREFIX}minor_fault")),
    ), None


def _impossible(available: int, usable: int, unused: int | None, built: int) -> str | None:
    if available == 0:
        return "available is 0"
    if available > built:
        return f"available ({available} B) is above what the VM was built with ({built} B)"
    if usable > available:
        return f"usable ({usable} B) is above available ({available} B)"
    if unused is not None and unused > available:
        return f"unused ({unused} B) is above available ({available} B)"
    return None


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= LARGEST_KIB


def _count(value: Any) -> int | None:
    return value if _is_count(value) else None
