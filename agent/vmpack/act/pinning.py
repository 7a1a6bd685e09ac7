"""One vCPU of a running VM bound to some of the host's CPUs. Called by cli/pin.py.

Promises that only the running VM is changed, never its lasting definition.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from typing import Any
from xml.etree.ElementTree import Element

from vmpack.act.migration_vm import find_migrant
from vmpack.errors import UsageError
from vmpack.hypervisor import Hypervisor, find_domain


def pin_vcpu(
    hypervisor: Hypervisor,
    vm: str,
    vcpu: int,
    cpus: Sequence[int],
    refuse: Callable[[Element], None],
    *,
    dry_run: bool,
) -> str:
    """Let this vCPU of the VM (by name or uuid) run on these CPUs alone; with none, on all. Returns its name.

    `refuse` raises for a domain that must not be pinned. Raises UsageError for a VM, vCPU or CPU that there
    is not, and what Hypervisor.call raises.
    """
    uuid, name, _ = find_migrant(hypervisor, vm)

    def act(connection: Any) -> None:
        import libvirt

        domain = find_domain(connection, uuid)
        refuse(ElementTree.fromstring(domain.XMLDesc(0)))
        present = [entry[0] for entry in domain.vcpus()[0]]
        if vcpu not in present:
            there = ", ".join(str(number) for number in present)
            raise UsageError(f"{name} has no vCPU {vcpu}", f"there is {there}")
        count, online, _ = connection.getCPUMap()
        missing = [str(cpu) for cpu in cpus if cpu >= count or not online[cpu]]
        if missing:
            hint = "those that are on: cat /sys/devices/system/cpu/online"
            raise UsageError(f"no CPU {', '.join(missing)} is on in this host", hint)
        if not dry_run:
            wanted = tuple(cpu in cpus or not cpus for cpu in range(count))
            domain.pinVcpuFlags(vcpu, wanted, libvirt.VIR_DOMAIN_AFFECT_LIVE)

    hypervisor.call(f"pin vCPU {vcpu} of {name}", act)
    return name
