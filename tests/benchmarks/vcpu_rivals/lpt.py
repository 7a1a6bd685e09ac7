"""What most public solutions of the vCPU project do: longest processing time first (Graham 1969), every time.

Georgia Tech's CS 6210 has its students write a vCPU scheduler; of those whose sources and logs are public
(for example sankalp-sangle, MaryannGitonga, yann-ybi) the common rule is: each interval, sort all vCPUs by
what they used, take all pCPUs as empty, put each vCPU on the one that then has least, and pin it there. Use,
not demand: a vCPU that waits used little. The pCPUs are taken as alike, VMs as of one vCPU; the first look
only measures. What is left alone counts where it is pinned, which these programs do not know of.
"""

from __future__ import annotations

from collections.abc import Sequence

from vmpack.model.vcpu import SetAffinity, VcpuSnapshot
from vmpack.replay.vcpu_policy import VcpuFacts, VcpuPolicyFactory, pins


class Lpt:
    """See replay/vcpu_policy.py."""

    def __init__(self, facts: VcpuFacts) -> None:
        self._interval_ns = facts.interval_s * 1e9
        self._ran_ns: dict[tuple[str, int], int] = {}

    def decide(self, snapshot: VcpuSnapshot) -> Sequence[SetAffinity]:
        """Refill all."""
        used: dict[tuple[str, int], float] = {}
        loads = {pcpu.number: 0.0 for pcpu in snapshot.pcpus}
        before, self._ran_ns = self._ran_ns, {}
        for vm in snapshot.vms:
            for vcpu in vm.vcpus:
                key = vm.uuid, vcpu.number
                self._ran_ns[key] = vcpu.run_ns
                if key not in before:
                    continue
                ratio = (vcpu.run_ns - before[key]) / self._interval_ns
                if vm.left_alone is None:
                    used[key] = ratio
                else:
                    for cpu in vcpu.cpus or loads:
                        loads[cpu] += ratio / len(vcpu.cpus or loads)
        wanted: dict[tuple[str, int], tuple[int, ...]] = {}
        for key in sorted(used, key=lambda one: -round(used[one], 3)):
            cpu = min(loads, key=lambda one: round(loads[one], 6))
            loads[cpu] += used[key]
            wanted[key] = (cpu,)
        return pins(snapshot, wanted)


POLICIES: dict[str, VcpuPolicyFactory] = {"lpt": Lpt}
