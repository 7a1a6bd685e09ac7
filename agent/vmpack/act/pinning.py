"""vCPUs of a running VM bound to some of the host's CPUs. Called by cli/pin.py, and by OpenNebula's actions.

Promises that only the running VM is changed, never its lasting definition, and that what was pinned here is
noted in the VM, so that a pin is taken off before the VM leaves for a host with other CPUs, and only such a
pin: those of its definition are its owner's.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element

from vmpack.act.migration_vm import find_migrant
from vmpack.errors import UsageError
from vmpack.hypervisor import Hypervisor, find_domain, translated

_NAMESPACE, _PREFIX = "urn:vmpack:pins:1", "vmpackpins"


@dataclass(frozen=True, slots=True)
class Pin:
    """One vCPU that was pinned here, and the host's CPUs that it may run on."""

    vcpu: int
    cpus: tuple[int, ...]


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
            _note(domain, _noted(domain) - {vcpu} | ({vcpu} if cpus else set()))
            domain.pinVcpu(vcpu, _cpu_map(cpus, count))

    hypervisor.call(f"pin vCPU {vcpu} of {name}", act)
    return name


def drop_pins(hypervisor: Hypervisor, uuid: str) -> tuple[Pin, ...]:
    """Let all vCPUs that were pinned here run on all CPUs again; returns the pins as they were.

    libvirt cannot forget a pin: "on all CPUs of this host" stays, and a host with fewer may refuse the VM.
    Raises what Hypervisor.call raises.
    """

    def act(connection: Any) -> tuple[Pin, ...]:
        domain = find_domain(connection, uuid)
        noted = _noted(domain)
        if not noted:
            return ()
        maps = domain.vcpuPinInfo()
        pins = tuple(_pin(vcpu, maps[vcpu]) for vcpu in sorted(noted) if vcpu < len(maps))
        _pin_all(connection, domain, [Pin(pin.vcpu, ()) for pin in pins])
        _note(domain, set())
        return pins

    return hypervisor.call(f"take the pins off the VM {uuid}", act)


def put_pins_back(hypervisor: Hypervisor, uuid: str, pins: Sequence[Pin]) -> None:
    """Pin a VM that did not leave as `drop_pins` found it. Raises what Hypervisor.call raises."""

    def act(connection: Any) -> None:
        domain = find_domain(connection, uuid)
        _note(domain, _noted(domain) | {pin.vcpu for pin in pins})
        _pin_all(connection, domain, pins)

    hypervisor.call(f"pin the VM {uuid} again", act)


def _pin(vcpu: int, allowed: Sequence[bool]) -> Pin:
    return Pin(vcpu, tuple(cpu for cpu, is_allowed in enumerate(allowed) if is_allowed))


def _pin_all(connection: Any, domain: Any, pins: Sequence[Pin]) -> None:
    count = connection.getCPUMap()[0]
    for pin in pins:
        domain.pinVcpu(pin.vcpu, _cpu_map(pin.cpus, count))


def _cpu_map(cpus: Sequence[int], count: int) -> tuple[bool, ...]:
    return tuple(cpu in cpus or not cpus for cpu in range(count))


def _noted(domain: Any) -> set[int]:
    import libvirt

    try:
        text = domain.metadata(
            libvirt.VIR_DOMAIN_METADATA_ELEMENT, _NAMESPACE, libvirt.VIR_DOMAIN_AFFECT_LIVE
        )
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN_METADATA:
            return set()
        with translated("read which vCPUs are pinned"):
            raise
    numbers = ElementTree.fromstring(text).get("vcpus", "").split(",")
    return {int(number) for number in numbers if number.isascii() and number.isdecimal() and len(number) < 5}


def _note(domain: Any, vcpus: set[int]) -> None:
    import libvirt

    text = f"<pins vcpus='{','.join(map(str, sorted(vcpus)))}'/>" if vcpus else None
    if text is None and not _noted(domain):
        return
    kind, flags = libvirt.VIR_DOMAIN_METADATA_ELEMENT, libvirt.VIR_DOMAIN_AFFECT_LIVE
    domain.setMetadata(kind, text, _PREFIX, _NAMESPACE, flags)
