"""What a policy of pins is told of a simulated host, and what it answers.

Implemented in this room and in tests/benchmarks/vcpu_rivals; called by vcpu_contest.py once an interval.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from vmpack.model.vcpu import SetAffinity, VcpuSnapshot
from vmpack.replay.vcpu_exact import Exact


class VcpuFacts(NamedTuple):
    """What a policy is told before the first interval of a scene."""

    interval_s: float
    target_points: float
    exact: Exact
    """The best that can be done. For `optimal` alone; so is the next."""
    due: int
    """The look at which it is to be done."""


class VcpuPolicy(Protocol):
    """One way of pinning. Made anew for every scene; may remember what it wants."""

    def decide(self, snapshot: VcpuSnapshot) -> Sequence[SetAffinity]:
        """What is to be changed now; nothing of VMs that are left alone."""


VcpuPolicyFactory = Callable[[VcpuFacts], VcpuPolicy]


class Kernel:
    """No pins beyond those that are there."""

    def __init__(self, facts: VcpuFacts) -> None:
        pass

    def decide(self, snapshot: VcpuSnapshot) -> Sequence[SetAffinity]:
        """Nothing."""
        return ()


class Optimal:
    """Knows what all want, and changes the fewest masks for the best there is; once."""

    def __init__(self, facts: VcpuFacts) -> None:
        self._facts = facts
        self._looks = 0

    def decide(self, snapshot: VcpuSnapshot) -> Sequence[SetAffinity]:
        """All at once, when it is due; nothing where it could not be computed."""
        self._looks += 1
        if self._looks != self._facts.due + 1 or self._facts.exact.pins is None:
            return ()
        return pins(snapshot, self._facts.exact.pins)


def pins(snapshot: VcpuSnapshot, wanted: Mapping[tuple[str, int], tuple[int, ...]]) -> list[SetAffinity]:
    """The changes that give vCPUs, by VM uuid and number, these masks; none where they have them."""
    return [
        SetAffinity(vm.uuid, vm.name, "vcpu", vcpu.number, vcpu.cpus, cpus)
        for vm in snapshot.vms
        for vcpu in vm.vcpus
        if (cpus := wanted.get((vm.uuid, vcpu.number), vcpu.cpus)) != vcpu.cpus
    ]
