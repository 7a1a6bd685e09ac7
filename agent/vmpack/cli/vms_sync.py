"""`vmpack vms --sync`: owners' wishes to the agents, what holds to the owners. Called by vms.py."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from vmpack.cli import cloud_access
from vmpack.cli.safe_text import shown
from vmpack.errors import UnavailableError, VmpackError
from vmpack.model.codec import encode

if TYPE_CHECKING:
    from vmpack.clouds.cloud import Cloud
    from vmpack.model.cluster import CloudVm
    from vmpack.model.guest import GuestPolicy

EXIT_WARNINGS = 3


@dataclass(frozen=True, slots=True)
class Told:
    """What came of one VM."""

    vm: CloudVm
    policy: GuestPolicy | None
    """What its agent is told; None: nothing."""
    values: Mapping[str, str | None]
    """What its owner is told; None: no longer."""
    status: str
    detail: str = ""


def run(cloud: Cloud, vms: list[CloudVm], faults: list[str], *, dry_run: bool, as_json: bool) -> int:
    """Sync these VMs. Raises CloudError when the hosts cannot be read; what fails later is told."""
    wanted = _wanted(cloud, vms, faults)
    told = [_owner_told(cloud, entry, dry_run) for entry in (wanted if dry_run else _agents_told(wanted))]
    changed = [entry for entry in told if entry.status != "kept"]
    if as_json:
        print(json.dumps({"vms": [_record(entry) for entry in changed], "faults": faults}, indent=2))
    else:
        _say(changed)
        for fault in faults:
            sys.stderr.write(f"vmpack: {shown(fault)}\n")
    return EXIT_WARNINGS if faults or any(entry.status == "failed" for entry in told) else 0


def policy_options(policy: GuestPolicy) -> list[str]:
    """The options of `vmpack policy` that set just this, beside what an administrator set."""
    written = {
        "floor_bytes": ("--floor", str(policy.floor_bytes)),
        "shares": ("--shares", str(policy.shares)),
        "headroom_ratio": ("--headroom", f"{policy.headroom_ratio or 0:.6f}"),
        "headroom_min_bytes": ("--headroom-min", str(policy.headroom_min_bytes)),
        "opt_out": ("--opt-out",),
    }
    asked = [word for field, words in written.items() if field in policy.of_owner for word in words]
    nominal = [] if policy.nominal_bytes is None else ["--nominal", str(policy.nominal_bytes)]
    return ["--of-owner", *asked, *nominal]


def _wanted(cloud: Cloud, vms: list[CloudVm], faults: list[str]) -> list[Told]:
    from vmpack.decide.owners import plan_owner
    from vmpack.model.cluster import NoReport

    running = [vm for vm in vms if vm.running]
    needed = {vm.host_id for vm in running}
    known, more = cloud.hosts()
    faults += more
    hosts = [host for host in known if host.managed and host.id in needed]
    answers = cloud_access.agents_of(hosts)
    by_id = {host.id: answers.get(host.name) for host in hosts}
    faults += [
        f"{name}: its VMs are left as they are: {answer.why}"
        for name, answer in answers.items()
        if isinstance(answer, NoReport)
    ]
    faults += [f"{vm.name} ({vm.id}): {fault}" for vm in running for fault in vm.policy_faults]
    not_ours = {host.id for host in known if not host.managed}
    wanted = []
    for vm in running:
        answer = by_id.get(vm.host_id)
        plan = None if answer is None or isinstance(answer, NoReport) else plan_owner(vm, answer)
        if plan is not None:
            wanted.append(Told(vm, plan.policy, cloud.untold(vm, plan.applied), "planned"))
        elif vm.host_id in not_ours:
            wanted.append(Told(vm, None, dict.fromkeys(name for name, _ in vm.told), "planned"))
    return wanted


def _agents_told(wanted: list[Told]) -> list[Told]:
    """Hosts at once, the VMs of one in turn; one that is not reached is not asked again."""
    from vmpack.clouds.agents import at_once

    by_host: dict[str, list[Told]] = {}
    for entry in wanted:
        by_host.setdefault(entry.vm.host_name, []).append(entry)
    return [entry for entries in at_once(_host_told, list(by_host.values())) for entry in entries]


def _host_told(entries: list[Told]) -> list[Told]:
    from vmpack.clouds.agents import tell

    told, lost = [], ""
    for entry in entries:
        if entry.policy is not None and lost:
            entry = replace(entry, status="failed", detail=lost)
        elif entry.policy is not None:
            try:
                tell(entry.vm.host_name, ["policy", entry.vm.domain, *policy_options(entry.policy)])
            except UnavailableError as error:
                lost = str(error)
                entry = replace(entry, status="failed", detail=lost)
            except VmpackError as error:
                entry = replace(entry, status="failed", detail=str(error))
        told.append(entry)
    return told


def _owner_told(cloud: Cloud, entry: Told, dry_run: bool) -> Told:
    if entry.policy is None and not entry.values:
        return replace(entry, status="kept")
    if dry_run or entry.status == "failed":
        return entry
    try:
        if entry.values:
            cloud.tell_owner(entry.vm, entry.values)
    except VmpackError as error:
        return replace(entry, status="failed", detail=str(error))
    return replace(entry, status="done")


def _record(entry: Told) -> dict[str, Any]:
    return {
        "id": entry.vm.id,
        "name": entry.vm.name,
        "policy": None if entry.policy is None else encode(entry.policy),
        "told": dict(entry.values),
        "status": entry.status,
        "detail": entry.detail,
    }


def _say(changed: list[Told]) -> None:
    if not changed:
        print("nothing to tell: what owners ask for holds, and they see it")
    for entry in changed:
        vm = entry.vm
        parts = []
        if entry.policy is not None:
            parts.append(f"policy on {shown(vm.host_name)}: {' '.join(policy_options(entry.policy))}")
        if entry.values:
            seen = (name if text is None else f"{name}={text}" for name, text in entry.values.items())
            gone = None in entry.values.values()
            parts.append(f"owner {'no longer ' if gone else ''}sees {' '.join(seen)}")
        words = {"planned": "would be told: ", "done": "", "failed": "failed: "}[entry.status]
        line = f"{shown(vm.name)} ({vm.id}): {words}{'; '.join(parts)}"
        if entry.status == "failed":
            sys.stderr.write(f"vmpack: {line}: {shown(entry.detail)}\n")
        else:
            print(line)
