"""Masks of a running VM's threads read, set and noted through libvirt, on a connection that is given.

Called by affinity.py and pinning.py inside Hypervisor.call. Changes the running VM alone, never its lasting
definition.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from vmpack.act.note_lock import note_lock
from vmpack.cpu_masks import defined_masks, iothread_numbers, vcpu_masks
from vmpack.hypervisor import translated
from vmpack.model.pins import PINS_NAMESPACE, PINS_PREFIX, Pin, PinnedBy, pins_xml, read_pins
from vmpack.model.thread import ThreadKey, thread_name


def online_cpus(connection: Any) -> tuple[int, frozenset[int]]:
    """How many CPUs the host can have, and those that are on. Raises as `translated` does."""
    with translated("ask for the host's CPUs"):
        count, is_online, _ = connection.getCPUMap()
    return count, frozenset(cpu for cpu in range(count) if is_online[cpu])


def read_masks(domain: Any, keys: Collection[ThreadKey]) -> dict[ThreadKey, tuple[int, ...]]:
    """The masks of these threads; one that is not there is missing. Empty: any CPU.

    That of a vCPU is the kernel's, the others are as libvirt has them. Raises as `translated` does.
    """
    found: dict[ThreadKey, tuple[int, ...]] = {}
    with translated(f"read the pins of {domain.name()}"):
        if any(kind == "vcpu" for kind, _ in keys):
            found = {("vcpu", number): cpus for number, (cpus, _seat) in vcpu_masks(domain).items()}
        if any(kind != "vcpu" for kind, _ in keys):
            tree = ElementTree.fromstring(domain.XMLDesc(0))
            others: list[ThreadKey] = [("emulator", 0)]
            others += [("iothread", number) for number in iothread_numbers(tree)]
            masks = defined_masks(tree)
            found.update({key: masks.of(key) for key in others})
    return {key: cpus for key, cpus in found.items() if key in keys}


def set_mask(domain: Any, key: ThreadKey, cpus: Collection[int], host: tuple[int, frozenset[int]]) -> None:
    """Let this thread run on these CPUs alone; on all where none of them is on, or none is named.

    Raises as `translated` does.
    """
    import libvirt

    count, online = host
    wanted = cpus if online.intersection(cpus) else range(count)
    chosen = tuple(cpu in wanted for cpu in range(count))
    (kind, number), live = key, libvirt.VIR_DOMAIN_AFFECT_LIVE
    with translated(f"pin {thread_name(key)} of {domain.name()}"):
        if kind == "vcpu":
            domain.pinVcpu(number, chosen)
        elif kind == "iothread":
            domain.pinIOThread(number, chosen, live)
        else:
            domain.pinEmulator(chosen, live)


def read_note(domain: Any) -> dict[ThreadKey, Pin]:
    """The pins that are noted in the VM, by thread. Raises as `translated` does."""
    import libvirt

    kind, live = libvirt.VIR_DOMAIN_METADATA_ELEMENT, libvirt.VIR_DOMAIN_AFFECT_LIVE
    with translated(f"read which threads of {domain.name()} are pinned"):
        try:
            text = domain.metadata(kind, PINS_NAMESPACE, live)
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN_METADATA:
                return {}
            raise
    return {pin.key: pin for pin in read_pins(ElementTree.fromstring(text))}


def write_note(domain: Any, pins: Iterable[Pin]) -> None:
    """Note these pins in the VM, and no others. Raises as `translated` does."""
    import libvirt

    kind, live = libvirt.VIR_DOMAIN_METADATA_ELEMENT, libvirt.VIR_DOMAIN_AFFECT_LIVE
    with translated(f"note which threads of {domain.name()} are pinned"):
        domain.setMetadata(kind, pins_xml(pins), PINS_PREFIX, PINS_NAMESPACE, live)


def change_note(domain: Any, changes: Mapping[ThreadKey, Pin | None]) -> None:
    """Note these pins in the VM, None: none, beside what is noted of its other threads now.

    Others write the note too, and libvirt only replaces it whole. Raises as `translated` does.
    """
    with note_lock(domain.UUIDString()):
        noted = read_note(domain)
        merged = {key: pin for key, pin in (noted | dict(changes)).items() if pin is not None}
        if merged != noted:
            write_note(domain, merged.values())


def new_pin(
    key: ThreadKey,
    by: PinnedBy,
    cpus: Collection[int],
    found: tuple[int, ...],
    noted: Pin | None,
    online: frozenset[int],
) -> Pin:
    """The note for a pin that is about to be set on a thread whose mask was `found`."""
    wanted = tuple(sorted(cpus))
    if noted is not None and noted.holds(found, online):
        return Pin(*key, by, wanted, noted.before, _holding(noted, found, online))
    return Pin(*key, by, wanted, () if online.issubset(found or online) else found)


def _holding(noted: Pin, found: tuple[int, ...], online: frozenset[int]) -> tuple[int, ...]:
    """Which of a noted pin's two masks is the one that holds."""
    return noted.cpus if noted._replace(instead_of=()).holds(found, online) else noted.instead_of
