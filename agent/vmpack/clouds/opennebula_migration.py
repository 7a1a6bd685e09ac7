"""Live migration as oned shows it: why it would not go, and where it is. Pure; called by opennebula.py.

oned answers at once and tells nothing afterwards but the VM itself: each stay on a host is a history record
with a number (SEQ). The record after the newest one before the call is ours; when the migration fails, oned
puts another behind it, on the old host.
"""

from __future__ import annotations

import re

from vmpack.clouds.opennebula_vms import ACTIVE, MIGRATE, is_pinned, is_running, state_name
from vmpack.clouds.opennebula_xml import HostXml, VmXml
from vmpack.model.cluster import MoveState, MoveTicket
from vmpack.units import format_bytes

_PLACEABLE = (2, 4)
"""Monitored hosts; oned takes VMs by hand on disabled ones too."""


def refusals(vm: VmXml, host: HostXml) -> tuple[str, ...]:
    """Why oned would refuse, or would move it otherwise than live."""
    found = []
    if not is_running(vm):
        found.append(f"it is {state_name(vm)}, and OpenNebula would move it cold: only RUNNING moves live")
    if vm.history and vm.history[-1].host_id == host.id:
        found.append(f"it runs on {host.name} already")
    if not vm.history:
        found.append("it was never on a host")
    if is_pinned(vm):
        found.append("its vCPUs are pinned (TOPOLOGY/PIN_POLICY)")
    if vm.template.vectors.get("PCI"):
        found.append("it has a PCI device, which cannot go along while it runs")
    if any(disk.get("TYPE", "").upper() == "FILESYSTEM" for disk in vm.template.vectors.get("DISK", ())):
        found.append("it has a FILESYSTEM disk")
    if vm.locked:
        found.append(f"it is locked: `onevm unlock {vm.id}` ends that")
    clusters = re.findall(r"\bCLUSTER_ID *= *([0-9]+)", vm.template.values.get("AUTOMATIC_REQUIREMENTS", ""))
    if clusters and str(host.cluster_id) not in clusters:
        found.append(f"{host.name} is in cluster {host.cluster_id}, what it uses in {', '.join(clusters)}")
    if host.state not in _PLACEABLE:
        found.append(f"{host.name} is not monitored at present")
    free_bytes = host.max_bytes - host.usage_bytes
    if free_bytes < vm.memory_bytes:
        found.append(
            f"{host.name} has {format_bytes(max(0, free_bytes))} for the scheduler, "
            f"it needs {format_bytes(vm.memory_bytes)} (vmpack grant may raise that)"
        )
    free_pct = host.max_cpu_pct - host.cpu_usage_pct
    if free_pct < vm.cpu_pct:
        found.append(
            f"{host.name} has {max(0, free_pct) / 100:g} CPUs left to promise, it needs {vm.cpu_pct / 100:g}"
        )
    return tuple(found)


def mark(vm: VmXml) -> str:
    """The number of the newest stay before the migration."""
    return str(vm.history[-1].sequence if vm.history else -1)


def judge(vm: VmXml, ticket: MoveTicket) -> MoveState:
    """What the VM's state and history say of the migration. Only what is seen is claimed."""
    there, before = ticket.destination.name, int(ticket.mark)
    later = [stay for stay in vm.history if stay.sequence > before]
    state = state_name(vm)
    if not later:
        return MoveState("moving" if is_running(vm) else "unclear", f"it is {state}, and no new stay is told")
    target, newest = int(ticket.destination.id), later[-1]
    first = next((stay for stay in later if stay.sequence == before + 1), None)
    if first is not None and first.host_id != target:
        return MoveState("unclear", f"somebody else moved it to {first.host_name} at the same time")
    if vm.state == ACTIVE and vm.lcm_state == MIGRATE:
        return MoveState("moving", f"it is on its way to {newest.host_name}")
    if newest.host_id == target:
        if is_running(vm):
            return MoveState("moved", f"it runs on {there}")
        return MoveState("unclear", f"it is on {there} for OpenNebula, and is {state}")
    if is_running(vm):
        return MoveState("stayed", f"OpenNebula shows it running on {newest.host_name} again: it failed")
    return MoveState("unclear", f"it is on {newest.host_name} for OpenNebula, and is {state}")
