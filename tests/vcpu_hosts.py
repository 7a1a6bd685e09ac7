"""Hosts with vCPUs, made for tests and benchmarks: snapshots, and what follows from a plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from vmpack.decide.vcpu.plan import plan
from vmpack.model.settings import VcpuSettings
from vmpack.model.vcpu import (
    LeftAlone,
    MaskOwner,
    Pcpu,
    RememberedVcpus,
    SetAffinity,
    VcpuPlan,
    VcpuSnapshot,
    VcpuState,
    VmVcpus,
)

INTERVAL_S = 10.0
BALANCE = VcpuSettings(mode="balance")
NOTHING = RememberedVcpus()


@dataclass(frozen=True)
class Vcpu:
    """One vCPU as a test wants it."""

    demand: float = 1.0
    cpus: tuple[int, ...] = ()
    seat: int | None = None
    mask_of: MaskOwner | None = None
    wait: float = 0.0


def pcpus(count: int, nodes: int = 1, threads: int = 1) -> tuple[Pcpu, ...]:
    """Equal pCPUs, the same number in each node."""
    return tuple(
        Pcpu(number, number * nodes // count, number * nodes // count, number // threads)
        for number in range(count)
    )


def vm(name: str, *vcpus: Vcpu, left_alone: LeftAlone | None = None, nodes: tuple[int, ...] = ()) -> VmVcpus:
    """A VM whose counters are those of one interval of such demand and waiting."""
    states = tuple(_state(number, vcpu) for number, vcpu in enumerate(vcpus))
    return VmVcpus(f"uuid-{name}", name, states, left_alone, nodes)


def pinned(*demands: float, cpu: int) -> list[VmVcpus]:
    """VMs of one vCPU each, all on this pCPU."""
    return [vm(f"p{cpu}-{n}", Vcpu(demand, (cpu,))) for n, demand in enumerate(demands)]


def _state(number: int, vcpu: Vcpu) -> VcpuState:
    seat = vcpu.seat if vcpu.seat is not None else vcpu.cpus[0] if vcpu.cpus else None
    run_ns = vcpu.demand * (1 - vcpu.wait) * INTERVAL_S * 1e9
    mask_of = vcpu.mask_of or ("run_time" if vcpu.cpus else "nobody")
    return VcpuState(number, int(run_ns), int(vcpu.wait * INTERVAL_S * 1e9), vcpu.cpus, mask_of, seat)


def snapshot(cpus: Sequence[Pcpu], vms: Sequence[VmVcpus], intervals: int = 1) -> VcpuSnapshot:
    """The host after so many intervals of the same load."""
    grown = tuple(
        one._replace(
            vcpus=tuple(
                v._replace(
                    run_ns=v.run_ns * intervals,
                    delay_ns=None if v.delay_ns is None else v.delay_ns * intervals,
                )
                for v in one.vcpus
            )
        )
        for one in vms
    )
    return VcpuSnapshot(intervals * INTERVAL_S, 1.7e9 + intervals * INTERVAL_S, tuple(cpus), grown)


def first_plan(
    cpus: Sequence[Pcpu], vms: Sequence[VmVcpus], settings: VcpuSettings = BALANCE, looks: int = 1
) -> VcpuPlan:
    """The first plan with changes within so many looks at the same load, or else the last one."""
    decided = plan(snapshot(cpus, vms, 0), NOTHING, settings)
    for intervals in range(1, looks + 1):
        decided = plan(snapshot(cpus, vms, intervals), decided.remembered, settings)
        if decided.actions:
            break
    return decided


def after(vms: Sequence[VmVcpus], actions: Sequence[SetAffinity]) -> list[VmVcpus]:
    """The VMs with these changes made."""
    wanted = {(a.uuid, a.thread, a.number): a.to_cpus for a in actions}
    return [
        one._replace(
            vcpus=tuple(
                v._replace(cpus=to, mask_of="vmpack", seat=v.seat if v.seat in to else to[0])
                if (to := wanted.get((one.uuid, "vcpu", v.number)))
                else v
                for v in one.vcpus
            )
        )
        for one in vms
    ]


def forgetting_moves(remembered: RememberedVcpus) -> RememberedVcpus:
    """As if nothing had been moved lately, and every load were seen for the first time."""
    uses = {
        uuid: tuple(use._replace(moved_s=None, samples=1) for use in of_vm)
        for uuid, of_vm in remembered.vms.items()
    }
    return replace(remembered, vms=uses)
