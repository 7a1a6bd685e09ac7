"""numad's rule (Bill Gray, Red Hat; numad(8) and its source, version 20150602), as far as it is about CPUs.

It binds whole processes to NUMA nodes, all threads alike, and moves one process in a round.
- CPUs used: the largest of a VM's last 8 samples. Who uses half a CPU or less is not looked at.
- Wanted: used / 85 % (-u), at most the VM's vCPUs.
- Order: VMs that were never bound, the largest first; then bound ones, the smallest first.
- Worth of a node for a VM: 6 x what is free there of what is wanted + 1 x what is free beyond. Free: CPUs
  less what was used there; what the VM itself uses there counts as free; at least 1/100.
- The best nodes are taken, as many as must be for what is wanted less a slack of 7.5 % of a node's CPUs. (It
  takes more where free parts do not suffice, but not where CPUs are what is lacking.)
- A bound VM is looked at again after five minutes; sooner where it sits on the node with the least left, fits
  into one, and moving it to the one with the most would even both by more than half a CPU.
Memory is left out: each VM's is taken as equal, and as moved along. Hosts of one node are none of its
business. Whether a node's CPUs are unevenly used is left to the kernel: that is what it is compared for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from math import ceil

from vmpack.model.vcpu import SetAffinity, VcpuSnapshot, VmVcpus
from vmpack.replay.vcpu_policy import VcpuFacts, VcpuPolicyFactory, pins

SAMPLES = 8
LEAST_USED = 0.5
TARGET_RATIO = 0.85
AGAIN_S = 300.0
NEEDED_WEIGHT, EXCESS_WEIGHT = 6.0, 1.0
LEAST_FREE = 0.01


class NumadLike:
    """See replay/vcpu_policy.py."""

    def __init__(self, facts: VcpuFacts) -> None:
        self._interval_s = facts.interval_s
        self._ran_ns: dict[str, int] = {}
        self._used: dict[str, deque[float]] = {}
        self._bound: dict[str, tuple[float, tuple[int, ...]]] = {}
        """By VM: when, and to which nodes."""

    def decide(self, snapshot: VcpuSnapshot) -> Sequence[SetAffinity]:
        """One round: the first VM that should be elsewhere is bound there."""
        self._sample(snapshot)
        cpus: dict[int, tuple[int, ...]] = {}
        for pcpu in snapshot.pcpus:
            cpus[pcpu.node] = (*cpus.get(pcpu.node, ()), pcpu.number)
        if len(cpus) < 2:
            return ()
        used = {uuid: max(samples) for uuid, samples in self._used.items() if samples}
        free = self._free(snapshot, cpus, used)
        for vm in self._candidates(snapshot, used):
            if self._is_recent(vm, snapshot.time_s, used[vm.uuid], free, cpus):
                continue
            nodes = self._nodes_for(vm, cpus, used, free)
            _, before = self._bound.get(vm.uuid, (0.0, ()))
            self._bound[vm.uuid] = snapshot.time_s, nodes
            if nodes == before:
                continue
            mask = tuple(sorted(cpu for node in nodes for cpu in cpus[node]))
            wanted = {(vm.uuid, vcpu.number): mask for vcpu in vm.vcpus}
            if changes := pins(snapshot, wanted):
                return changes
        return ()

    def _sample(self, snapshot: VcpuSnapshot) -> None:
        ran = {vm.uuid: sum(vcpu.run_ns for vcpu in vm.vcpus) for vm in snapshot.vms}
        self._used = {uuid: self._used.get(uuid, deque(maxlen=SAMPLES)) for uuid in ran}
        for uuid, ran_ns in ran.items():
            if uuid in self._ran_ns:
                self._used[uuid].append((ran_ns - self._ran_ns[uuid]) / (self._interval_s * 1e9))
        self._ran_ns = ran

    def _candidates(self, snapshot: VcpuSnapshot, used: Mapping[str, float]) -> list[VmVcpus]:
        vms = [vm for vm in snapshot.vms if vm.left_alone is None and used.get(vm.uuid, 0.0) > LEAST_USED]
        new = [vm for vm in vms if vm.uuid not in self._bound]
        known = [vm for vm in vms if vm.uuid in self._bound]
        return sorted(new, key=lambda vm: -used[vm.uuid]) + sorted(known, key=lambda vm: used[vm.uuid])

    def _free(
        self, snapshot: VcpuSnapshot, cpus: Mapping[int, tuple[int, ...]], used: Mapping[str, float]
    ) -> dict[int, float]:
        free = {node: float(len(own)) for node, own in cpus.items()}
        for vm in snapshot.vms:
            for node, part in _parts(vm, cpus).items():
                free[node] -= part * used.get(vm.uuid, 0.0)
        return free

    def _is_recent(
        self,
        vm: VmVcpus,
        now_s: float,
        used: float,
        free: Mapping[int, float],
        cpus: Mapping[int, tuple[int, ...]],
    ) -> bool:
        """Was it bound lately, with no reason to look again before time?"""
        bound_s, nodes = self._bound.get(vm.uuid, (-AGAIN_S, ()))
        if bound_s + AGAIN_S <= now_s:
            return False
        least, most = min(free, key=free.__getitem__), max(free, key=free.__getitem__)
        mean = sum(free.values()) / len(free)
        off = abs(free[least] + used - mean) + abs(free[most] - used - mean)
        fits = min(used / TARGET_RATIO, len(vm.vcpus)) < len(cpus[least])
        return not (least in nodes and fits and off < free[most] - free[least] - LEAST_USED)

    def _nodes_for(
        self,
        vm: VmVcpus,
        cpus: Mapping[int, tuple[int, ...]],
        used: Mapping[str, float],
        free: Mapping[int, float],
    ) -> tuple[int, ...]:
        wanted = min(used[vm.uuid] / TARGET_RATIO, float(len(vm.vcpus)))
        size = len(next(iter(cpus.values())))
        count = max(1, min(len(cpus), ceil((wanted - (1 - TARGET_RATIO) / 2 * size) / size)))
        own = _parts(vm, cpus)
        there = {
            node: max(LEAST_FREE, min(len(cpus[node]), left + own.get(node, 0.0) * used[vm.uuid]))
            for node, left in free.items()
        }
        best = sorted(there, key=lambda node: -_worth(there[node], wanted))
        return tuple(sorted(best[:count]))


def _worth(free: float, wanted: float) -> float:
    return NEEDED_WEIGHT * min(free, wanted) + EXCESS_WEIGHT * max(0.0, free - wanted)


def _parts(vm: VmVcpus, cpus: Mapping[int, tuple[int, ...]]) -> dict[int, float]:
    """On which nodes it sits, and with which part of its vCPUs."""
    parts: dict[int, float] = {}
    for vcpu in vm.vcpus:
        for node, own in cpus.items():
            if vcpu.seat in own:
                parts[node] = parts.get(node, 0.0) + 1 / len(vm.vcpus)
    return parts


POLICIES: dict[str, VcpuPolicyFactory] = {"numad-like": NumadLike}
