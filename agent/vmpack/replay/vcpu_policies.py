"""Which policies of pins there are, by name: those that ship, and rivals where the tests are at hand.

Each module of the package tests.benchmarks.vcpu_rivals has POLICIES: names, and what makes a policy for a
scene.
"""

from __future__ import annotations

from collections.abc import Sequence

from vmpack.replay.choice import chosen, rivals
from vmpack.replay.vcpu_policy import Kernel, Optimal, VcpuPolicyFactory
from vmpack.replay.vmpack_vcpu import VmpackVcpu

RIVALS = "tests.benchmarks.vcpu_rivals"


def vcpu_policies() -> dict[str, VcpuPolicyFactory]:
    """All that there are, ours first."""
    found: dict[str, VcpuPolicyFactory] = {"vmpack": VmpackVcpu, "kernel": Kernel}
    for module in rivals(RIVALS):
        found.update(module.POLICIES)
    return found | {"optimal": Optimal}


def named_vcpu_policies(words: Sequence[str]) -> dict[str, VcpuPolicyFactory]:
    """Those that are asked for. Raises UsageError for a name that is not there."""
    return chosen(words, vcpu_policies())
