"""vCPUs and their pins in words. Called by `status`, `explain` and the pCPU page of `top`.

Promises: what it says is safe to print, and a change that was made in the newest turn is told as made.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from vmpack.cli.safe_text import shown
from vmpack.decide.explain import words
from vmpack.host.messages import VcpuSummary, VcpuSums
from vmpack.host.vcpu_answers import sums
from vmpack.host.vcpu_loop import change_text, outcome_line, reasons_of
from vmpack.model.pins import format_cpus
from vmpack.model.plan import Reason
from vmpack.model.vcpu import MaskOwner, PinChange, VcpuInterval, VcpuStatus

STALE_INTERVALS = 3
STALE_SLACK_S = 5.0

_WHOSE = {
    "nobody": "",
    "vmpack": ", pinned by vmpack",
    "run_time": ", pinned at run time, not by vmpack",
    "owner": ", pinned by its owner or its cloud",
}


def state(status: VcpuStatus) -> str:
    """`active`, `observe` or `frozen`, as the newest turn was."""
    if status.interval is not None and status.interval.snapshot.frozen:
        return "frozen"
    return "observe" if status.observe_only else "active"


def age_s(status: VcpuStatus, now_s: float) -> float | None:
    """How old the newest turn is; None before the first. `now_s` is Unix time."""
    return None if status.interval is None else max(0.0, now_s - status.interval.snapshot.wall_s)


def is_stale(status: VcpuStatus, now_s: float) -> bool:
    """True when the newest turn is too old for a healthy loop."""
    return (age_s(status, now_s) or 0.0) > STALE_INTERVALS * status.interval_s + STALE_SLACK_S


def place_words(cpus: Sequence[int], mask_of: MaskOwner, seat: int | None = None) -> str:
    """Where a thread may run, and who says so: `on pCPUs 0-7 (was on 3), pinned by vmpack`."""
    was = "" if seat is None or list(cpus) == [seat] else f" (was on {seat})"
    if not cpus:
        return f"on any pCPU{was}{_WHOSE[mask_of]}"
    return f"on pCPU{'' if len(cpus) == 1 else 's'} {format_cpus(cpus)}{was}{_WHOSE[mask_of]}"


def changed_words(summary: VcpuSummary) -> str:
    """`3 pins changed in the last hour`."""
    count = summary.changed_last_hour
    pins = f"{count} pin{'' if count == 1 else 's'}"
    return f"{'at least ' if summary.more_changed else ''}{pins} changed in the last hour"


def counts(sums: VcpuSums) -> str:
    """`8 vCPUs of 4 VMs on 2 pCPUs`."""
    numbers = ((sums.vcpus, "vCPU"), (sums.vms, "VM"), (sums.pcpus, "pCPU"))
    return "{} of {} on {}".format(*(f"{count} {name}{'' if count == 1 else 's'}" for count, name in numbers))


def uneven_words(sums: VcpuSums) -> str:
    """`uneven by 7.3 points (wanted 5.0)`, after the changes of the newest turn."""
    wanted = "" if sums.target_points is None else f" (wanted {sums.target_points:.1f})"
    return f"uneven by {sums.std_points:.1f} points{wanted}"


def status_line(summary: VcpuSummary) -> str:
    """All of it in one line, for `status`."""
    found = summary.sums
    failed = f"; the newest turn failed: {shown(summary.last_error)}" if summary.last_error else ""
    if found is None:
        return f"vCPUs: {summary.mode}, not looked at yet{failed}"
    pins = f"{changed_words(summary)}, {found.pins} held"
    return f"vCPUs: {summary.mode}, {uneven_words(found)}, {pins}; {counts(found)}{failed}"


def change_line(change: PinChange) -> str:
    """`web1: vCPU 0: pCPU 3 -> 1, done`."""
    return shown(outcome_line(change.outcome))


def planned_changes(interval: VcpuInterval) -> list[tuple[str, Reason | None]]:
    """What would have been changed and was not, in observe mode or while frozen."""
    if interval.outcomes:
        return []
    why = reasons_of(interval.plan)
    return [(f"{shown(change_text(one))}, not done", why(one)) for one in interval.plan.actions]


def turn_lines(interval: VcpuInterval) -> list[str]:
    """A turn's changes, done or not, each with its reason."""
    why = reasons_of(interval.plan)
    told = [(shown(outcome_line(one)), why(one.action)) for one in interval.outcomes]
    return [
        line + (f": {why_words(reason)}" if reason else "")
        for line, reason in told or planned_changes(interval)
    ]


def plain_lines(status: VcpuStatus | None) -> list[str]:
    """The newest turn as lines: the pCPUs, then each change."""
    if status is None or status.interval is None:
        return ["the vCPUs have not been looked at yet"]
    interval = status.interval
    found = sums(interval)
    host = f"{state(status)}: {status.mode}, {counts(found)}, {uneven_words(found)}"
    return [f"{clock_text(interval.snapshot.wall_s)} {line}" for line in (host, *turn_lines(interval))]


def clock_text(wall_s: float) -> str:
    """The time of day."""
    return time.strftime("%H:%M:%S", time.localtime(wall_s))


def why_words(reason: Reason | None) -> str:
    """The reason of a change in words."""
    return shown(words(reason)[0]) if reason is not None else ""
