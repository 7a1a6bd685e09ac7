"""`vmpack vms --sync`: owners' wishes to the agents, what holds to the owners. Called by vms.py."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vmpack.cli import cloud_access
from vmpack.cli.safe_text import shown
from vmpack.errors import VmpackError
from vmpack.model.codec import encode

if TYPE_CHECKING:
    from vmpack.clouds.cloud import Cloud
    from vmpack.decide.owners import OwnerPlan
    from vmpack.model.cluster import CloudVm
    from vmpack.model.guest import GuestPolicy

EXIT_WARNINGS = 3


@dataclass(frozen=True, slots=True)
class Told:
    """What came of one VM's plan."""

    plan: OwnerPlan
    values: Mapping[str, str]
    status: str
    detail: str = ""


def run(cloud: Cloud, vms: list[CloudVm], faults: list[str], *, dry_run: bool, as_json: bool) -> int:
    """Sync these VMs. Raises CloudError when the hosts cannot be read; what fails later is told."""
    told = [_carried_out(cloud, plan, dry_run) for plan in _plans(cloud, vms, faults)]
    changed = [entry for entry in told if entry.status != "kept"]
    if as_json:
        print(json.dumps({"vms": [_record(entry) for entry in changed], "faults": faults}, indent=2))
    else:
        _say(changed)
        for fault in faults:
            sys.stderr.write(f"vmpack: {shown(fault)}\n")
    return EXIT_WARNINGS if faults or any(entry.status == "failed" for entry in told) else 0


def policy_options(policy: GuestPolicy) -> list[str]:
    """The options of `vmpack policy` that set just this."""
    options = ["--reset"]
    if policy.floor_bytes is not None:
        options += ["--floor", str(policy.floor_bytes)]
    if policy.shares is not None:
        options += ["--shares", str(policy.shares)]
    if policy.headroom_ratio is not None:
        options += ["--headroom", f"{policy.headroom_ratio:.6f}"]
    if policy.headroom_min_bytes is not None:
        options += ["--headroom-min", str(policy.headroom_min_bytes)]
    if policy.nominal_bytes is not None:
        options += ["--nominal", str(policy.nominal_bytes)]
    return [*options, "--opt-out"] if policy.opt_out else options


def _plans(cloud: Cloud, vms: list[CloudVm], faults: list[str]) -> list[OwnerPlan]:
    from vmpack.decide.owners import plan_owner
    from vmpack.model.cluster import NoReport

    running = [vm for vm in vms if vm.running]
    needed = {vm.host_id for vm in running}
    hosts = [host for host in cloud.hosts() if host.managed and host.id in needed]
    faults += cloud.faults
    answers = cloud_access.agents_of(hosts)
    by_id = {host.id: answers.get(host.name) for host in hosts}
    faults += [
        f"{name}: its VMs are left as they are: {answer.why}"
        for name, answer in answers.items()
        if isinstance(answer, NoReport)
    ]
    plans = []
    for vm in running:
        answer = by_id.get(vm.host_id)
        plan = None if answer is None or isinstance(answer, NoReport) else plan_owner(vm, answer)
        if plan is not None:
            plans.append(plan)
    return plans


def _carried_out(cloud: Cloud, plan: OwnerPlan, dry_run: bool) -> Told:
    from vmpack.clouds.agents import tell

    values = cloud.untold(plan.vm, plan.applied)
    if plan.policy is None and not values:
        return Told(plan, values, "kept")
    if dry_run:
        return Told(plan, values, "planned")
    try:
        if plan.policy is not None:
            tell(plan.vm.host_name, ["policy", plan.vm.domain, *policy_options(plan.policy)])
        if values:
            cloud.tell_owner(plan.vm, values)
    except VmpackError as error:
        return Told(plan, values, "failed", str(error))
    return Told(plan, values, "done")


def _record(entry: Told) -> dict[str, Any]:
    return {
        "id": entry.plan.vm.id,
        "name": entry.plan.vm.name,
        "policy": None if entry.plan.policy is None else encode(entry.plan.policy),
        "told": dict(entry.values),
        "status": entry.status,
        "detail": entry.detail,
    }


def _say(changed: list[Told]) -> None:
    if not changed:
        print("nothing to tell: what owners ask for holds, and they see it")
    for entry in changed:
        vm = entry.plan.vm
        parts = []
        if entry.plan.policy is not None:
            parts.append(f"policy on {shown(vm.host_name)}: {' '.join(policy_options(entry.plan.policy))}")
        if entry.values:
            parts.append("owner sees " + " ".join(f"{name}={text}" for name, text in entry.values.items()))
        words = {"planned": "would be told: ", "done": "", "failed": "failed: "}[entry.status]
        line = f"{shown(vm.name)} ({vm.id}): {words}{'; '.join(parts)}"
        if entry.status == "failed":
            sys.stderr.write(f"vmpack: {line}: {shown(entry.detail)}\n")
        else:
            print(line)
