"""Every VM on the pCPUs of one cache or one NUMA node, and the kernel does the rest.

Called by plan.py in the mode `group`. On a host with one such group there is nothing to pin.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from vmpack.decide.vcpu.islands import Household, Island, homes, islands_of
from vmpack.decide.vcpu.seats import cool_down_s, is_touchable
from vmpack.model.vcpu import MaskOwner, SetAffinity, VcpuSnapshot, VcpuUse, VmVcpus

OUR_MASKS: tuple[MaskOwner, ...] = ("nobody", "vmpack")
GROUP_COOL_DOWNS = 10
"""Times that of a single vCPU: a whole VM leaves warm caches, and perhaps its memory, behind."""


class Grouped(NamedTuple):
    """Which VM is to have which pCPUs."""

    cpus: Mapping[str, tuple[int, ...]]
    """By uuid; all of them: it may run anywhere. VMs that are not in it keep what they have."""
    before: dict[int, float]
    """Level of each pCPU, a VM's load spread evenly over what it may use. So is the next."""
    after: dict[int, float]


def group(snapshot: VcpuSnapshot, uses: Mapping[str, Sequence[VcpuUse]], target_ratio: float) -> Grouped:
    """Choose the group of each VM that fits into one; the others float over their node, or everywhere."""
    islands = islands_of(snapshot.pcpus)
    everywhere = tuple(pcpu.number for pcpu in snapshot.pcpus)
    now = {vm.uuid: _present_cpus(vm, everywhere) for vm in snapshot.vms}
    demand = {vm.uuid: sum(use.demand_ratio for use in uses[vm.uuid]) for vm in snapshot.vms}
    largest = max(len(island.cpus) for island in islands)
    ours = [vm for vm in snapshot.vms if is_touchable(vm, OUR_MASKS) and _is_known(uses[vm.uuid])]
    narrow = [vm for vm in ours if len(vm.vcpus) <= largest]
    chosen = {vm.uuid: _node_cpus(vm, islands) for vm in ours if len(vm.vcpus) > largest}
    fixed: dict[int, float] = dict.fromkeys(everywhere, 0.0)
    for vm in snapshot.vms:
        if vm not in narrow:
            _add(fixed, chosen.get(vm.uuid) or now[vm.uuid], demand[vm.uuid])
    households = [
        _household(vm, uses[vm.uuid], now[vm.uuid], len(everywhere), snapshot.time_s) for vm in narrow
    ]
    for vm, home in zip(narrow, homes(islands, households, fixed, target_ratio), strict=True):
        chosen[vm.uuid] = islands[home].cpus
    before, after = dict.fromkeys(everywhere, 0.0), dict.fromkeys(everywhere, 0.0)
    for vm in snapshot.vms:
        _add(before, now[vm.uuid], demand[vm.uuid])
        _add(after, chosen.get(vm.uuid) or now[vm.uuid], demand[vm.uuid])
    rooms = {pcpu.number: pcpu.capacity_ratio for pcpu in snapshot.pcpus}
    return Grouped(
        chosen,
        {cpu: load / rooms[cpu] for cpu, load in before.items()},
        {cpu: load / rooms[cpu] for cpu, load in after.items()},
    )


def actions_of(vm: VmVcpus, cpus: tuple[int, ...]) -> list[SetAffinity]:
    """What brings all threads of a VM onto these pCPUs, its emulator's and its disks' too."""
    actions = [
        SetAffinity(vm.uuid, vm.name, "vcpu", vcpu.number, vcpu.cpus, cpus)
        for vcpu in vm.vcpus
        if vcpu.cpus != cpus
    ]
    return actions + [
        SetAffinity(vm.uuid, vm.name, thread.kind, thread.number, thread.cpus, cpus)
        for thread in vm.threads
        if thread.mask_of in OUR_MASKS and thread.cpus != cpus
    ]


def _is_known(uses: Sequence[VcpuUse]) -> bool:
    return all(use.samples > 0 for use in uses)


def _household(
    vm: VmVcpus, uses: Sequence[VcpuUse], cpus: Sequence[int], everywhere: int, time_s: float
) -> Household:
    moved_s = max((use.moved_s for use in uses if use.moved_s is not None), default=None)
    rest_s = GROUP_COOL_DOWNS * cool_down_s(max(use.moves for use in uses))
    is_grouped = len(cpus) < everywhere
    return Household(
        demand_ratio=sum(use.demand_ratio for use in uses),
        vcpus=len(vm.vcpus),
        seats=tuple(cpus) if is_grouped else tuple(v.seat for v in vm.vcpus if v.seat is not None),
        nodes=vm.nodes,
        is_settled=is_grouped,
        stays=is_grouped and moved_s is not None and time_s - moved_s < rest_s,
    )


def _present_cpus(vm: VmVcpus, everywhere: tuple[int, ...]) -> tuple[int, ...]:
    """All usable pCPUs on which some vCPU of it may run."""
    if any(not vcpu.cpus for vcpu in vm.vcpus):
        return everywhere
    allowed = {cpu for vcpu in vm.vcpus for cpu in vcpu.cpus}
    return tuple(cpu for cpu in everywhere if cpu in allowed) or everywhere


def _node_cpus(vm: VmVcpus, islands: Sequence[Island]) -> tuple[int, ...]:
    """The pCPUs of the node on which most of it runs, all pCPUs where it fits into none."""
    of_node: dict[int, list[int]] = {}
    for island in islands:
        if not vm.nodes or island.node in vm.nodes:
            of_node.setdefault(island.node, []).extend(island.cpus)
    fitting = {node: cpus for node, cpus in of_node.items() if len(cpus) >= len(vm.vcpus)}
    if not fitting:
        return tuple(sorted(cpu for island in islands for cpu in island.cpus))
    seats = Counter(
        node for node, cpus in fitting.items() for v in vm.vcpus if (v.cpus or (v.seat,))[0] in cpus
    )
    return tuple(sorted(fitting[max(fitting, key=lambda node: (seats[node], -node))]))


def _add(loads: dict[int, float], cpus: Sequence[int], demand: float) -> None:
    for cpu in cpus:
        loads[cpu] += demand / len(cpus)
