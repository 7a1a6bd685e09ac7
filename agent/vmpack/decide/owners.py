"""What VMs' owners asked of the cloud, against what holds at the agents. Pure; called by `vmpack vms --sync`.

What an administrator set for a VM on its host holds; an owner says what is left open. Which fields have an
owner's word is kept with the VM on its host, where owners do not write: so he can take it back, and no
administrator's value is taken for his. What is paid for is the cloud's word: a VM that was started without
our driver learns it here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from vmpack.model.cluster import AgentReport, Applied, CloudVm
from vmpack.model.guest import GuestPolicy
from vmpack.model.policy_namespace import OWNER_FIELDS

_PLAIN = GuestPolicy()


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
    wishes = _wishes(vm, seen.policy)
    wanted = with_wishes(seen.policy, wishes)
    if seen.nominal_bytes != vm.nominal_bytes:
        wanted = replace(wanted, nominal_bytes=vm.nominal_bytes)
    kept = [name for name in wishes if wishes[name] != getattr(wanted, name)]
    faults = tuple(f"an administrator has set {name} himself" for name in kept)
    applied = Applied(
        wanted, vm.policy_named, seen.floor_bytes, seen.target_bytes, (*vm.policy_faults, *faults)
    )
    return OwnerPlan(vm, wanted if wanted != seen.policy else None, applied)


def with_wishes(present: GuestPolicy, wishes: Mapping[str, Any]) -> GuestPolicy:
    """The policy with these fields asked for by its owner, instead of those that he asked for before.

    Fields that an administrator has set stay as they are.
    """
    own = replace(present, **{name: getattr(_PLAIN, name) for name in present.of_owner}, of_owner=())
    taken = {
        name: wishes[name]
        for name in OWNER_FIELDS
        if name in wishes
        and wishes[name] != getattr(_PLAIN, name)
        and getattr(own, name) == getattr(_PLAIN, name)
    }
    return replace(own, **taken, of_owner=tuple(taken))


def _wishes(vm: CloudVm, present: GuestPolicy) -> dict[str, Any]:
    """What its owner asks for now; what he asked for before where nobody knows what he means now."""
    asked = {name: getattr(vm.policy, name) for name in OWNER_FIELDS}
    asked |= {name: getattr(present, name) for name in vm.policy_unclear if name in present.of_owner}
    return {name: value for name, value in asked.items() if value != getattr(_PLAIN, name)}
