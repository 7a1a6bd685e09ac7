"""What the vCPU loop's newest status is cut down to for an answer: without its memory, to one VM, to sums.

Called by the service and, for sums of a whole answer, by the command line. Pure.
"""

from __future__ import annotations

import dataclasses

from vmpack.host.messages import VcpuSummary, VcpuSums
from vmpack.host.vcpu_loop import CHANGES_KEPT
from vmpack.model.vcpu import RememberedVcpus, VcpuInterval, VcpuStatus

HOUR_S = 3600.0


def whole(status: VcpuStatus) -> VcpuStatus:
    """Without what is remembered."""
    if status.interval is None:
        return status
    plan = dataclasses.replace(status.interval.plan, remembered=RememberedVcpus())
    return dataclasses.replace(status, interval=dataclasses.replace(status.interval, plan=plan))


def of_vm(status: VcpuStatus, uuid: str) -> VcpuStatus:
    """Of this VM alone, and without pCPUs; no VM where the newest turn did not see it."""
    changed = tuple(change for change in status.changed if change.outcome.action.uuid == uuid)
    interval = status.interval
    if interval is None:
        return dataclasses.replace(status, changed=changed)
    snapshot, plan = interval.snapshot, interval.plan
    narrow = dataclasses.replace(
        interval,
        snapshot=dataclasses.replace(
            snapshot, pcpus=(), vms=tuple(vm for vm in snapshot.vms if vm.uuid == uuid)
        ),
        plan=dataclasses.replace(
            plan,
            actions=tuple(action for action in plan.actions if action.uuid == uuid),
            pcpus=(),
            vms=tuple(vm for vm in plan.vms if vm.uuid == uuid),
            remembered=RememberedVcpus(),
        ),
        outcomes=tuple(outcome for outcome in interval.outcomes if outcome.action.uuid == uuid),
    )
    return dataclasses.replace(status, interval=narrow, changed=changed)


def summary(status: VcpuStatus, now_s: float) -> VcpuSummary:
    """The sums alone. `now_s` is Unix time."""
    lately = [change for change in status.changed if change.wall_s > now_s - HOUR_S]
    return VcpuSummary(
        mode=status.mode,
        last_error=status.last_error,
        sums=None if status.interval is None else sums(status.interval),
        changed_last_hour=sum(change.outcome.status == "done" for change in lately),
        more_changed=len(lately) >= CHANGES_KEPT,
    )


def sums(interval: VcpuInterval) -> VcpuSums:
    """Of one turn, as its changes have left the host."""
    plan, vms = interval.plan, interval.snapshot.vms
    targets = [reason.numbers.get("target_points") for reason in plan.reasons]
    return VcpuSums(
        wall_s=interval.snapshot.wall_s,
        pcpus=len(interval.snapshot.pcpus),
        vms=len(vms),
        vcpus=sum(len(vm.vcpus) for vm in vms),
        std_points=plan.std_points_after if all_done(interval) else plan.std_points_before,
        target_points=next((float(points) for points in targets if points is not None), None),
        pins=sum(vcpu.mask_of == "vmpack" for vm in interval.vms_now() for vcpu in vm.vcpus),
    )


def all_done(interval: VcpuInterval) -> bool:
    """Has the newest turn changed all that it wanted to? Then loads are as it planned them."""
    return bool(interval.outcomes) and all(one.status == "done" for one in interval.outcomes)
