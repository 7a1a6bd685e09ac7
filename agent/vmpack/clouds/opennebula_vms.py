"""VMs as oned tells them, as the cloud protocol's records. Called by opennebula.py."""

from __future__ import annotations

import re
from collections.abc import Mapping

from vmpack.clouds.opennebula_policy import APPLIED, read_policy
from vmpack.clouds.opennebula_xml import VmXml
from vmpack.model.cluster import CloudVm, GuestReport
from vmpack.units import KIB

ACTIVE = 3
RUNNING = 3
MIGRATE = 4
REPORT_AHEAD_S = 60.0
"""A guest's clock that is this far ahead of ours is not believed."""

_STATES = {
    0: "INIT", 1: "PENDING", 2: "HOLD", 3: "ACTIVE", 4: "STOPPED", 5: "SUSPENDED", 6: "DONE", 7: "FAILED",
    8: "POWEROFF", 9: "UNDEPLOYED", 10: "CLONING", 11: "CLONING_FAILURE",
}  # fmt: skip
_LCM_STATES = {
    1: "PROLOG", 2: "BOOT", 3: "RUNNING", 4: "MIGRATE", 5: "SAVE_STOP", 6: "SAVE_SUSPEND", 7: "SAVE_MIGRATE",
    8: "PROLOG_MIGRATE", 9: "PROLOG_RESUME", 10: "EPILOG_STOP", 11: "EPILOG", 12: "SHUTDOWN", 16: "UNKNOWN",
    17: "HOTPLUG", 18: "SHUTDOWN_POWEROFF", 20: "BOOT_POWEROFF", 21: "BOOT_SUSPENDED", 24: "HOTPLUG_SNAPSHOT",
    25: "HOTPLUG_NIC", 26: "HOTPLUG_SAVEAS", 35: "BOOT_MIGRATE", 36: "BOOT_FAILURE",
    37: "BOOT_MIGRATE_FAILURE", 38: "PROLOG_MIGRATE_FAILURE", 62: "DISK_RESIZE", 66: "HOTPLUG_RESIZE",
    69: "BACKUP", 70: "BACKUP_POWEROFF", 71: "RESTORE",
}  # fmt: skip


def state_name(vm: VmXml) -> str:
    """Its state in oned's own word."""
    if vm.state == ACTIVE:
        return _LCM_STATES.get(vm.lcm_state, f"LCM state {vm.lcm_state}")
    return _STATES.get(vm.state, f"state {vm.state}")


def is_running(vm: VmXml) -> bool:
    """RUNNING and nothing else: no action of oned is under way."""
    return vm.state == ACTIVE and vm.lcm_state == RUNNING


def ties(vm: VmXml) -> tuple[str, ...]:
    """What in its template keeps it from being packed, in words."""
    found = []
    if is_pinned(vm):
        found.append("its vCPUs are pinned (TOPOLOGY/PIN_POLICY)")
    if vm.template.vectors.get("PCI"):
        found.append("it has a PCI device")
    if vm.template.value("TOPOLOGY", "HUGEPAGE_SIZE").strip():
        found.append("its memory is in huge pages")
    encryption = vm.template.value("MEMORY_ENCRYPTION", "TYPE").strip().upper()
    if encryption not in ("", "NONE"):
        found.append("its memory is encrypted")
    if vm.template.values.get("MEMORY_RESIZE_MODE", "").strip().upper() == "HOTPLUG":
        found.append("its memory is resized by hotplug")
    return tuple(found)


def is_pinned(vm: VmXml) -> bool:
    """It has CPUs of its own."""
    return vm.template.value("TOPOLOGY", "PIN_POLICY").strip().upper() in ("CORE", "THREAD", "SHARED")


def cloud_vm(vm: VmXml, measured: Mapping[str, str], now_s: float, shares_max: int) -> CloudVm:
    """The VM as a record. `measured` is what the probes said last, `now_s` Unix time."""
    policy, named, faults, unclear = read_policy(vm.user_template.values, vm.memory_bytes, shares_max)
    stay = vm.history[-1] if vm.history and vm.state == ACTIVE else None
    idle = () if is_running(vm) else (f"it is {state_name(vm)}",)
    return CloudVm(
        id=str(vm.id),
        name=vm.name,
        domain=f"one-{vm.id}",
        state=state_name(vm),
        running=is_running(vm),
        host_id="" if stay is None else str(stay.host_id),
        host_name="" if stay is None else stay.host_name,
        nominal_bytes=vm.memory_bytes,
        left_alone=(*idle, *ties(vm)),
        policy=policy,
        policy_named=named,
        policy_faults=faults,
        policy_unclear=unclear,
        told=tuple(
            sorted((name, text) for name, text in vm.user_template.values.items() if name.startswith(APPLIED))
        ),
        balloon_bytes=_kib(measured, "REALMEMORY") if is_running(vm) else None,
        verdict=measured.get("VMPACK_STATE", "")[:40] if is_running(vm) else "",
        report=guest_report(vm.user_template.values, vm.memory_bytes, now_s),
    )


def guest_report(values: Mapping[str, str], nominal_bytes: int, now_s: float) -> GuestReport | None:
    """What the guest's reporter wrote, None where it wrote nothing that can be meant."""
    total, available = _kib(values, "MEM_TOTAL"), _kib(values, "MEM_AVAILABLE")
    free = _kib(values, "MEM_FREE")
    if available is None:
        available = free
    if total is None or available is None or total <= 0:
        return None
    told_s = values.get("TIMESTAMP", "").strip()
    age_s = now_s - int(told_s) if re.fullmatch(r"[0-9]{1,12}", told_s) else None
    if age_s is not None and age_s < -REPORT_AHEAD_S:
        age_s = None
    total = min(total, nominal_bytes)
    return GuestReport(
        total_bytes=total,
        available_bytes=min(available, total),
        free_bytes=None if free is None else min(free, total),
        age_s=None if age_s is None else max(0.0, age_s),
    )


def _kib(values: Mapping[str, str], name: str) -> int | None:
    text = values.get(name, "").strip()
    return int(text) * KIB if re.fullmatch(r"[0-9]{1,15}", text) else None
