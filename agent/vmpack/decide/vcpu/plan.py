"""The vCPU decision of one interval. Pure; called by host/ and replay/.

Promises: no mask of an owner is broken and no VM that is to be left alone is touched; in `balance` the loads
are never less even after than before, but for a vCPU that had no pCPU to be on; planning on the planned state
changes nothing; and while nothing changes, nothing is changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from vmpack.decide.vcpu.balance import Balanced, balance, levels_of
from vmpack.decide.vcpu.board import std_ratio
from vmpack.decide.vcpu.demand import uses_of
from vmpack.decide.vcpu.group import actions_of, group
from vmpack.decide.vcpu.seats import RESTED_S, Seating, cool_down_s, others_stay, seating
from vmpack.decide.vcpu.worth import Sight, is_worth, sight
from vmpack.model.plan import Reason
from vmpack.model.settings import VcpuSettings
from vmpack.model.vcpu import (
    MaskOwner,
    PcpuLoad,
    RememberedVcpus,
    SetAffinity,
    VcpuPlan,
    VcpuSnapshot,
    VcpuUse,
    VmVcpuPlan,
    VmVcpus,
)

BALANCED_MASKS: tuple[MaskOwner, ...] = ("nobody", "vmpack", "run_time")
FORGOTTEN_S = 60.0
"""A VM that was not seen for so long is met as a new one."""
Uses = dict[str, tuple[VcpuUse, ...]]


def plan(snapshot: VcpuSnapshot, remembered: RememberedVcpus, settings: VcpuSettings) -> VcpuPlan:
    """Decide which vCPUs may run where. Who has the mode `off` does not ask."""
    snapshot = _without_owned_cpus(snapshot)
    before, time_s = remembered.vms, snapshot.time_s
    slow: dict[int | None, float] = {
        p.number: p.capacity_ratio for p in snapshot.pcpus if p.capacity_ratio != 1
    }
    uses: Uses = {vm.uuid: uses_of(before.get(vm.uuid, ()), vm, time_s, slow) for vm in snapshot.vms}
    if not snapshot.pcpus:
        answer = _answer(snapshot, uses, (), {}, {}, {}, 0, settings)
    elif settings.mode == "group":
        answer = _grouped(snapshot, uses, remembered.uneven, settings)
    else:
        answer = _balanced(snapshot, uses, remembered.uneven, settings)
    unseen = {
        uuid: of_vm
        for uuid, of_vm in before.items()
        if uuid not in uses and of_vm and time_s - of_vm[0].time_s < FORGOTTEN_S
    }
    if not unseen:
        return answer
    return replace(answer, remembered=replace(answer.remembered, vms=unseen | uses))


def remember(decided: VcpuPlan, tried: Sequence[SetAffinity], time_s: float) -> RememberedVcpus:
    """What to remember once these actions of the plan were tried; what failed is not tried again at once."""
    moved: dict[str, set[int]] = {}
    for action in tried:
        if action.thread == "vcpu":
            moved.setdefault(action.uuid, set()).add(action.number)
    known = decided.remembered
    changed = {uuid: _moved(known.vms[uuid], numbers, time_s) for uuid, numbers in moved.items()}
    return replace(known, vms={**known.vms, **changed})


def _moved(uses: Sequence[VcpuUse], numbers: set[int], time_s: float) -> tuple[VcpuUse, ...]:
    return tuple([_moved_again(use, time_s) if use.number in numbers else use for use in uses])


def _moved_again(use: VcpuUse, time_s: float) -> VcpuUse:
    rested = use.moved_s is None or time_s - use.moved_s > cool_down_s(use.moves) + RESTED_S
    return use._replace(moved_s=time_s, moves=1 if rested else use.moves + 1)


def _without_owned_cpus(snapshot: VcpuSnapshot) -> VcpuSnapshot:
    """Nobody is put where a dedicated or real-time vCPU is alone, however idle that is just now."""
    owned = {
        vcpu.cpus[0]
        for vm in snapshot.vms
        if vm.left_alone in ("dedicated_cpus", "real_time")
        for vcpu in vm.vcpus
        if len(vcpu.cpus) == 1
    }
    if not owned:
        return snapshot
    return replace(snapshot, pcpus=tuple(p for p in snapshot.pcpus if p.number not in owned))


def _no_longer_ours(snapshot: VcpuSnapshot) -> tuple[SetAffinity, ...]:
    """What takes our pins off VMs whose owner has since asked for other things."""
    changed = [vm for vm in snapshot.vms if vm.left_alone in ("opt_out", "owner_mask", "real_time")]
    return tuple(action for vm in changed for action in _give_back(vm))


def _give_back(vm: VmVcpus) -> list[SetAffinity]:
    actions = [
        SetAffinity(vm.uuid, vm.name, "vcpu", vcpu.number, vcpu.cpus, (), gives_back=True)
        for vcpu in vm.vcpus
        if vcpu.mask_of == "vmpack"
    ]
    return actions + [
        SetAffinity(vm.uuid, vm.name, thread.kind, thread.number, thread.cpus, (), gives_back=True)
        for thread in vm.threads
        if thread.mask_of == "vmpack"
    ]


def _balanced(snapshot: VcpuSnapshot, uses: Uses, uneven: int, settings: VcpuSettings) -> VcpuPlan:
    target = settings.target_points / 100
    seated = seating(snapshot, uses, BALANCED_MASKS)
    levels = levels_of(seated, snapshot.pcpus)
    std = std_ratio(list(levels.values()))
    uneven = uneven + 1 if std > target else 0
    left = _no_longer_ours(snapshot)
    done = _wanted(snapshot, seated, sight(seated, std, uneven, target), target)
    if done is None:
        return _answer(snapshot, uses, left, levels, levels, {}, uneven, settings)
    reasons: dict[str, list[Reason]] = {}
    actions = list(left)
    for seat, cpu in (*done.moves, *done.kept):
        vm = snapshot.vms[seat.vm]
        actions.append(SetAffinity(vm.uuid, vm.name, "vcpu", seat.vcpu.number, seat.vcpu.cpus, (cpu,)))
        kept = Reason("vcpu_kept", {"vcpu": seat.vcpu.number, "pcpu": cpu})
        why = kept if seat.cpu == cpu else _why_moved(seat.vcpu.number, seat.cpu, cpu, done)
        reasons.setdefault(vm.uuid, []).append(why)
    uneven = 0 if actions else uneven
    return _answer(snapshot, uses, tuple(actions), done.before, done.after, reasons, uneven, settings)


def _wanted(snapshot: VcpuSnapshot, seated: Seating, seen: Sight, target: float) -> Balanced | None:
    """What to change now, if anything. Who has lost its pCPU gets one at once, and brings nobody along."""
    if any(seat.cpu is None for seat in seated.movable):
        return balance(snapshot, others_stay(seated), target)
    if seen == "not_yet":
        return None
    done = balance(snapshot, seated, target)
    return done if is_worth(seated, done, snapshot.pcpus, seen, target) else None


def _why_moved(vcpu: int, from_cpu: int | None, to_cpu: int, done: Balanced) -> Reason:
    numbers = {
        "vcpu": vcpu,
        "to_pcpu": to_cpu,
        "to_before_pct": round(100 * done.before[to_cpu]),
        "to_after_pct": round(100 * done.after[to_cpu]),
    }
    if from_cpu is None or from_cpu not in done.before:
        return Reason("vcpu_lost_its_pcpu", numbers)
    numbers |= {
        "from_pcpu": from_cpu,
        "from_before_pct": round(100 * done.before[from_cpu]),
        "from_after_pct": round(100 * done.after[from_cpu]),
    }
    return Reason("vcpu_moved", numbers)


def _grouped(snapshot: VcpuSnapshot, uses: Uses, uneven: int, settings: VcpuSettings) -> VcpuPlan:
    done = group(snapshot, uses, settings.target_points / 100)
    reasons: dict[str, list[Reason]] = {}
    actions = list(_no_longer_ours(snapshot))
    everywhere = tuple(pcpu.number for pcpu in snapshot.pcpus)
    for vm in snapshot.vms:
        cpus = done.cpus.get(vm.uuid)
        if cpus is None:
            if any(vcpu.mask_of == "run_time" for vcpu in vm.vcpus):
                reasons[vm.uuid] = [Reason("vcpus_left_alone", note="run_time_mask")]
            continue
        of_vm = _give_back(vm) if cpus == everywhere else actions_of(vm, cpus)
        actions += of_vm
        if of_vm and cpus != everywhere:
            reasons[vm.uuid] = [Reason("vm_grouped", {"first_pcpu": cpus[0], "pcpus": len(cpus)})]
    return _answer(snapshot, uses, tuple(actions), done.before, done.after, reasons, uneven, settings)


def _answer(
    snapshot: VcpuSnapshot,
    uses: Uses,
    actions: tuple[SetAffinity, ...],
    before: Mapping[int, float],
    after: Mapping[int, float],
    reasons: Mapping[str, list[Reason]],
    uneven: int,
    settings: VcpuSettings,
) -> VcpuPlan:
    std_before = 100 * std_ratio(list(before.values())) if before else 0.0
    std_after = 100 * std_ratio(list(after.values())) if after else 0.0
    numbers = {
        "std_points": std_before,
        "std_after_points": std_after,
        "target_points": settings.target_points,
        "changes": len(actions),
    }
    rule = "vcpus_stay"
    if settings.mode == "group":
        rule = "vcpus_grouped"
    elif actions:
        rule = "vcpus_spread"
    return VcpuPlan(
        actions=actions,
        pcpus=tuple(PcpuLoad(cpu, before[cpu], after[cpu]) for cpu in before),
        std_points_before=std_before,
        std_points_after=std_after,
        vms=tuple(_vm_plan(vm, uses[vm.uuid], reasons.get(vm.uuid, [])) for vm in snapshot.vms),
        reasons=(Reason(rule, numbers),),
        remembered=RememberedVcpus(dict(uses), uneven),
    )


def _vm_plan(vm: VmVcpus, uses: Sequence[VcpuUse], reasons: list[Reason]) -> VmVcpuPlan:
    if vm.left_alone is not None:
        reasons = [Reason("vcpus_left_alone", note=vm.left_alone)]
    elif not reasons:
        reasons = [Reason("vcpus_rest")]
    return VmVcpuPlan(
        vm.uuid,
        vm.name,
        tuple([use.demand_ratio for use in uses]),
        tuple([use.wait_ratio for use in uses]),
        tuple(reasons),
    )
