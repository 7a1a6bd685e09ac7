"""The vCPU part of `vmpack explain`: what each vCPU of a VM wants, where it may run, who says so, and why.

Pure; called by explain.py with the newest answer of the vCPU loop.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vmpack.cli import vcpu_text
from vmpack.cli.reason_text import reason_lines, reason_record
from vmpack.cli.safe_text import shown
from vmpack.model.codec import encode
from vmpack.model.thread import thread_name
from vmpack.model.vcpu import PinChange, ThreadMask, VcpuInterval, VcpuState, VcpuStatus, VmVcpuPlan, VmVcpus
from vmpack.units import format_ratio, format_seconds

CHANGES_TOLD = 5


def record(status: VcpuStatus | None, uuid: str, now_s: float) -> dict[str, Any] | None:
    """The documented JSON form; None where the agent knows no vCPUs of this VM."""
    found = _found(status, uuid)
    if status is None or found is None:
        return None
    interval, vm, plan = found
    return {
        "mode": status.mode,
        "age_s": vcpu_text.age_s(status, now_s),
        "last_error": status.last_error,
        "left_alone": vm.left_alone,
        "vcpus": [
            {
                "number": vcpu.number,
                "demand_ratio": demand,
                "wait_ratio": wait,
                "cpus": list(vcpu.cpus),
                "mask_of": vcpu.mask_of,
                "seat": vcpu.seat,
            }
            for vcpu, demand, wait in _vcpus(vm, plan)
        ],
        "threads": encode(vm.threads),
        "reasons": [reason_record(reason) for reason in plan.reasons],
        "host_reasons": [reason_record(reason) for reason in interval.plan.reasons],
        "changes": [
            {
                "wall_s": change.wall_s,
                **encode(change.outcome),
                "why": reason_record(change.why) if change.why else None,
            }
            for change in _changes(status, uuid)
        ],
    }


def lines(status: VcpuStatus | None, uuid: str, now_s: float) -> list[str]:
    """The same for people, safe to print; nothing where the agent knows no vCPUs of this VM."""
    found = _found(status, uuid)
    if status is None or found is None:
        return []
    interval, vm, plan = found
    age = format_seconds(vcpu_text.age_s(status, now_s) or 0.0)
    text = ["", f"its vCPUs ({status.mode}, {vcpu_text.state(status)}, looked at {age} ago):"]
    if status.last_error:
        text.append(f"  the newest look failed: {shown(status.last_error)}")
    text += [
        f"  vCPU {vcpu.number}: {_use(demand, wait)}; {_place(vcpu)}"
        for vcpu, demand, wait in _vcpus(vm, plan)
    ]
    text += [f"  {_thread(thread)}" for thread in vm.threads]
    for reason in (*plan.reasons, *interval.plan.reasons):
        text += reason_lines(reason)
    changes = _changes(status, uuid)[-CHANGES_TOLD:]
    text += ["  its last changes:"] if changes else []
    for change in changes:
        text.append(f"    {vcpu_text.clock_text(change.wall_s)} {vcpu_text.change_line(change)}")
    return text


def _found(status: VcpuStatus | None, uuid: str) -> tuple[VcpuInterval, VmVcpus, VmVcpuPlan] | None:
    interval = status.interval if status is not None else None
    if interval is None:
        return None
    vm = next((vm for vm in interval.vms_now() if vm.uuid == uuid), None)
    plan = next((plan for plan in interval.plan.vms if plan.uuid == uuid), None)
    return (interval, vm, plan) if vm is not None and plan is not None else None


def _vcpus(vm: VmVcpus, plan: VmVcpuPlan) -> Iterator[tuple[VcpuState, float, float]]:
    return zip(vm.vcpus, plan.demand_ratios, plan.wait_ratios, strict=False)


def _changes(status: VcpuStatus, uuid: str) -> list[PinChange]:
    return [change for change in status.changed if change.outcome.action.uuid == uuid]


def _use(demand: float, wait: float) -> str:
    return f"wants {format_ratio(demand)} of a pCPU, waits {format_ratio(wait)} of the time"


def _place(vcpu: VcpuState) -> str:
    return f"may run {vcpu_text.place_words(vcpu.cpus, vcpu.mask_of, vcpu.seat)}"


def _thread(thread: ThreadMask) -> str:
    name = thread_name((thread.kind, thread.number))
    return f"{name}: may run {vcpu_text.place_words(thread.cpus, thread.mask_of)}"
