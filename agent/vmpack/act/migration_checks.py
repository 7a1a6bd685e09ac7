"""Whether a migration may begin: looked at again right before, on both hosts.

Called by migration.py. Answers in sentences for people; an empty answer is a yes.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from vmpack.act.migration_vm import MigrantVm
from vmpack.errors import GuestGoneError, HypervisorError, HypervisorLostError, VmpackError
from vmpack.hypervisor import Hypervisor, find_domain, translated
from vmpack.model.migration import Migrate
from vmpack.model.settings import HostSettings
from vmpack.units import KIB, format_bytes


def source_refusals(action: Migrate, vm: MigrantVm) -> tuple[str, ...]:
    """Why this VM must not leave its host now."""
    refusals = []
    if vm.presence not in ("running", "paused"):
        refusals.append("it does not run")
    if vm.job is not None:
        refusals.append(f"another job has it: {vm.job}")
    if vm.nominal_bytes != action.nominal_bytes:
        refusals.append(f"its nominal has changed to {format_bytes(vm.nominal_bytes)}")
    refusals += [f"it has {tie}" for tie in vm.ties]
    return tuple(refusals)


def destination_refusals(
    action: Migrate, vm: MigrantVm, source: Hypervisor, destination: Hypervisor
) -> tuple[str, ...]:
    """Why the destination cannot take this VM. Raises what Hypervisor.call raises for the source."""
    here = source.identity()
    try:
        there = destination.identity()
        if _host_uuid(here) == _host_uuid(there):
            return ("the destination is the host that it runs on",)
        what = "look whether the destination has room"
        return destination.call(what, lambda connection: _taken(connection, action) + _full(connection, vm))
    except VmpackError as error:
        return (error.message,)


def _host_uuid(identity: str) -> str:
    return identity.rpartition("/")[2]


def _taken(connection: Any, action: Migrate) -> tuple[str, ...]:
    """The sentence that the destination has a VM of this uuid or name, if it has one."""
    try:
        found = find_domain(connection, action.uuid)
    except GuestGoneError:
        try:
            with translated(f"look for a VM named {action.name}"):
                found = connection.lookupByName(action.name)
        except GuestGoneError:
            return ()
        return (f"the destination has another VM named {action.name}, {found.UUIDString()}",)
    if found.isActive():
        return ("the destination has it already: this very uuid runs there",)
    return ("the destination has a definition of it: undefine it there first",)


def _full(connection: Any, vm: MigrantVm) -> tuple[str, ...]:
    """Sentences that the destination has not the memory, if it says so: what is free, and what is promised.

    What counts as free there may be shared memory, which gives nothing back: VMs with file-backed memory
    use it. And its VMs may still grow into balloons that they hold.
    """
    try:
        with translated("read the memory of the destination"):
            stats = connection.getMemoryStats(-1)
    except HypervisorLostError:
        raise
    except HypervisorError:
        return ()
    needed = vm.nominal_bytes if vm.balloon_bytes is None else vm.balloon_bytes
    refusals = []
    available = sum(stats.get(kind, 0) for kind in ("free", "buffers", "cached")) * KIB
    if needed > available:
        refusals.append(
            f"the destination has {format_bytes(available)} free, it holds {format_bytes(needed)}"
        )
    total = stats.get("total", 0) * KIB
    reserve = _reserve_bytes(total, HostSettings())
    held = _held_bytes(connection)
    if total and needed > total - reserve - held:
        refusals.append(
            f"the destination has {format_bytes(max(0, total - reserve - held))} to give "
            f"({format_bytes(total)} less {format_bytes(reserve)} reserve and {format_bytes(held)} that its "
            f"VMs hold), it holds {format_bytes(needed)}"
        )
    return tuple(refusals)


def _reserve_bytes(total_bytes: int, settings: HostSettings) -> int:
    """What a host of this size keeps for itself, where nobody set anything else."""
    return max(settings.reserve_min_bytes, int(settings.reserve_ratio * total_bytes))


def _held_bytes(connection: Any) -> int:
    """The sum of the balloons of all VMs that run there, as libvirt remembers them: no QEMU is asked."""
    import libvirt

    held_kib = 0
    with translated("list the VMs of the destination"):
        domains = connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
    for domain in domains:
        with suppress(GuestGoneError), translated(f"read the memory of {domain.name()}"):
            held_kib += domain.info()[2]
    return held_kib * KIB
