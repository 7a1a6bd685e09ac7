"""vCPUs and their pins in words. Called by `status`, `explain` and the pCPU page of `top`.

Promises: what it says is safe to print, and a change that was made in the newest turn is told as made.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from vmpack.cli.safe_text import shown
from vmpack.decide.explain import words
from vmpack.host.vcpu_loop import (
    CHANGES_KEPT,
    change_text,
    outcome_line,
    reasons_of,
)
from vmpack.model.pins import format_cpus
from vmpack.model.plan import Reason
from vmpack.model.vcpu import MaskOwner, PinChange, VcpuInterval, VcpuStatus

HOUR_S = 3600.0
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


def all_done(interval: VcpuInterval) -> bool:
    """Has the newest turn changed all that it wanted to? Then loads are as it planned them."""
    return bool(interval.outcomes) and all(one.status == "done" for one in interval.outcomes)


def std_points(interval: VcpuInterval) -> float:
    """How uneven the loads are now."""
    plan = interval.plan
    return plan.std_points_after if all_done(interval) else plan.std_points_before


def pins_now(interval: VcpuInterval) -> int:
    """How many vCPUs vmpack has pinned."""
    return sum(vcpu.mask_of == "vmpack" for vm in interval.vms_now() for vcpu in vm.vcpus)


def changed_lately(status: VcpuStatus, now_s: float) -> int:
    """Pins that were changed within the last hour, as far as they are kept."""
    return sum(
        change.outcome.status == "done" and change.wall_s > now_s - HOUR_S for change in status.changed
    )


def changed_words(status: VcpuStatus, now_s: float) -> str:
    """The same in words: `3 pins changed in the last hour`."""
    count = changed_lately(status, now_s)
    all_are_new = len(status.changed) >= CHANGES_KEPT and status.changed[0].wall_s > now_s - HOUR_S
    return f"{'at least ' if all_are_new else ''}{_pins(count)} changed in the last hour"


def target_points(interval: VcpuInterval) -> float | None:
    """The standard deviation that is wanted at most; None where the plan does not tell."""
    targets = [reason.numbers.get("target_points") for reason in interval.plan.reasons]
    return next((float(points) for points in targets if points is not None), None)


def counts(interval: VcpuInterval) -> str:
    """`8 vCPUs of 4 VMs on 2 pCPUs`."""
    vms = interval.snapshot.vms
    vcpus = sum(len(vm.vcpus) for vm in vms)
    numbers = ((vcpus, "vCPU"), (len(vms), "VM"), (len(interval.snapshot.pcpus), "pCPU"))
    return "{} of {} on {}".format(*(f"{count} {name}{'' if count == 1 else 's'}" for count, name in numbers))


def uneven_words(interval: VcpuInterval) -> str:
    """`uneven by 7.3 points (wanted 5.0)`, after the changes of the newest turn."""
    target = target_points(interval)
    wanted = "" if target is None else f" (wanted {target:.1f})"
    return f"uneven by {std_points(interval):.1f} points{wanted}"


def status_line(status: VcpuStatus, now_s: float) -> str:
    """All of it in one line, for `status`."""
    interval = status.interval
    failed = f"; the newest turn failed: {shown(status.last_error)}" if status.last_error else ""
    if interval is None:
        return f"vCPUs: {status.mode}, not looked at yet{failed}"
    pins = f"{changed_words(status, now_s)}, {pins_now(interval)} held"
    return f"vCPUs: {status.mode}, {uneven_words(interval)}, {pins}; {counts(interval)}{failed}"


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
    host = f"{state(status)}: {status.mode}, {counts(interval)}, {uneven_words(interval)}"
    return [f"{clock_text(interval.snapshot.wall_s)} {line}" for line in (host, *turn_lines(interval))]


def clock_text(wall_s: float) -> str:
    """The time of day."""
    return time.strftime("%H:%M:%S", time.localtime(wall_s))


def why_words(reason: Reason | None) -> str:
    """The reason of a change in words."""
    return shown(words(reason)[0]) if reason is not None else ""


def _pins(count: int) -> str:
    return f"{count} pin{'' if count == 1 else 's'}"
