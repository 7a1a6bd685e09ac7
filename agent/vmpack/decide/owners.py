"""What VMs' owners asked of the cloud, against what holds at the agents. Pure; called by `vmpack vms --sync`.

Where an owner says something in the cloud, that holds as a whole. Where there is no such word, what an
administrator set on the host stays, unless it came from the owner, who has taken it back. What is paid for is
the cloud's word: a VM that was started without our driver learns it here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from vmpack.model.cluster import AgentReport, Applied, CloudVm, ReportedVm
from vmpack.model.guest import GuestPolicy


@dataclass(frozen=True, slots=True)
class OwnerPlan:
    """What is to be done for one VM."""

    vm: CloudVm
    policy: GuestPolicy | None
    """What its agent is to be told; None where that holds already."""
    applied: Applied
    """What its owner is told, once that was done."""


def plan_owner(vm: CloudVm, report: AgentReport) -> OwnerPlan | None:
    """What is to be done for this VM; None where its agent does not have it or does not tell its policy."""
    seen = next((entry for entry in report.vms if vm.domain in (entry.name, entry.uuid)), None)
    if seen is None or seen.policy is None:
        return None
    wanted = _wanted(vm, seen.policy)
    if seen.nominal_bytes != vm.nominal_bytes:
        wanted = replace(wanted, nominal_bytes=vm.nominal_bytes)
    changed = wanted != seen.policy
    return OwnerPlan(vm, wanted if changed else None, _applied(vm, wanted, seen))


def _wanted(vm: CloudVm, present: GuestPolicy) -> GuestPolicy:
    """Holds and nominals are not the owner's to set."""
    if not vm.policy_named and not vm.policy_told:
        return present
    asked = vm.policy if vm.policy_named else GuestPolicy()
    return replace(
        present,
        floor_bytes=asked.floor_bytes,
        shares=asked.shares,
        headroom_ratio=asked.headroom_ratio,
        headroom_min_bytes=asked.headroom_min_bytes,
        opt_out=asked.opt_out,
    )


def _applied(vm: CloudVm, policy: GuestPolicy, seen: ReportedVm) -> Applied:
    return Applied(policy, vm.policy_named, seen.floor_bytes, seen.target_bytes)
