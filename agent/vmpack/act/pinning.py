"""vCPUs of a running VM bound by hand, and all of vmpack's pins off while a VM leaves its host.

Called by cli/pin.py, by OpenNebula's actions and by migration.py. Promises that only the running VM is
changed, never its lasting definition, and that what vmpack pinned is noted in the VM, so that it is taken off
before the VM leaves for a host with other CPUs, and only that: other pins are somebody else's.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element

from vmpack.act.migration_vm import find_migrant
from vmpack.act.thread_masks import change_note, new_pin, online_cpus, read_masks, read_note, set_mask
from vmpack.errors import UsageError
from vmpack.hypervisor import Hypervisor, find_domain
from vmpack.model.pins import Pin
from vmpack.model.thread import ThreadKey


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
        host = online_cpus(connection)
        if missing := [str(cpu) for cpu in cpus if cpu not in host[1]]:
            hint = "those that are on: cat /sys/devices/system/cpu/online"
            raise UsageError(f"no CPU {', '.join(missing)} is on in this host", hint)
        if not dry_run:
            _pin_by_hand(domain, ("vcpu", vcpu), cpus, host)

    hypervisor.call(f"pin vCPU {vcpu} of {name}", act)
    return name


def drop_pins(hypervisor: Hypervisor, uuid: str) -> tuple[Pin, ...]:
    """Let all threads that vmpack pinned run where they ran before; returns the pins as they were.

    Where nothing of that is on any more they run on all CPUs. libvirt cannot forget a pin: "on all CPUs of
    this host" stays, and a host with fewer may refuse the VM. Raises what Hypervisor.call raises.
    """

    def act(connection: Any) -> tuple[Pin, ...]:
        domain = find_domain(connection, uuid)
        noted = read_note(domain)
        if not noted:
            return ()
        host = online_cpus(connection)
        held = _held(domain, noted, host[1])
        for pin in held:
            set_mask(domain, pin.key, pin.before, host)
        change_note(domain, dict.fromkeys(noted))
        return tuple(pin._replace(instead_of=()) for pin in held)

    return hypervisor.call(f"take the pins off the VM {uuid}", act)


def held_pins(hypervisor: Hypervisor, uuid: str) -> tuple[Pin, ...]:
    """What `drop_pins` would take off. Raises what Hypervisor.call raises."""

    def act(connection: Any) -> tuple[Pin, ...]:
        domain = find_domain(connection, uuid)
        held = _held(domain, read_note(domain), online_cpus(connection)[1])
        return tuple(pin._replace(instead_of=()) for pin in held)

    return hypervisor.call(f"look for pins of the VM {uuid}", act)


def put_pins_back(hypervisor: Hypervisor, uuid: str, pins: Sequence[Pin]) -> None:
    """Pin a VM that did not leave as `drop_pins` found it. Raises what Hypervisor.call raises.

    Without pins nothing is asked.
    """

    def act(connection: Any) -> None:
        domain = find_domain(connection, uuid)
        host = online_cpus(connection)
        there = read_masks(domain, [pin.key for pin in pins])
        back = [pin for pin in pins if pin.key in there]
        change_note(domain, {pin.key: pin for pin in back})
        for pin in back:
            set_mask(domain, pin.key, pin.cpus, host)

    if pins:
        hypervisor.call(f"pin the VM {uuid} again", act)


def _pin_by_hand(domain: Any, key: ThreadKey, cpus: Sequence[int], host: tuple[int, frozenset[int]]) -> None:
    if not cpus:
        set_mask(domain, key, cpus, host)
        change_note(domain, {key: None})
        return
    pin = new_pin(key, "hand", cpus, read_masks(domain, [key])[key], read_note(domain).get(key), host[1])
    change_note(domain, {key: pin})
    set_mask(domain, key, cpus, host)
    if pin.instead_of:
        change_note(domain, {key: pin._replace(instead_of=())})


def _held(domain: Any, noted: Mapping[ThreadKey, Pin], online: frozenset[int]) -> list[Pin]:
    """Those of the noted pins that nobody has changed since."""
    masks = read_masks(domain, noted)
    return [pin for key, pin in sorted(noted.items()) if key in masks and pin.holds(masks[key], online)]
