"""What rarely changes about the CPUs of a VM, from its libvirt XML: whose masks there are, notes, policy.

`read_vcpu_facts` is pure but for what it is given; vcpus.py calls it when a VM starts, when libvirt says that
it changed, now and then.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from vmpack.cpu_masks import DefinedMasks, defined_masks, iothread_numbers
from vmpack.errors import UnavailableError
from vmpack.model.guest import GuestPolicy
from vmpack.model.pins import PINS_PATH, Pin, read_pins
from vmpack.model.thread import ThreadKey
from vmpack.observe.domain_facts import bound_nodes
from vmpack.observe.policy import read_policy

_NOVA = "{http://openstack.org/xmlns/libvirt/nova/"
_SCHEDULES = ("vcpusched", "iothreadsched", "emulatorsched")

Placed = Callable[[Element], bool]
"""True for a domain that its cloud put on CPUs of its own; may raise UnavailableError."""


@dataclass(frozen=True, slots=True)
class VcpuFacts:
    """The lasting part of a VmVcpus."""

    pins: Mapping[ThreadKey, Pin]
    """As noted; whether they still hold the live mask tells."""
    owned: DefinedMasks
    """The masks of the owner's definition, or of his cloud's."""
    others: Mapping[ThreadKey, tuple[int, ...]]
    """The masks of the emulator and the I/O threads as libvirt has them; empty: any CPU."""
    is_placed: bool
    """Its cloud, or libvirt's adviser, chose its CPUs; the XML need not tell which."""
    is_real_time: bool
    nodes: tuple[int, ...]
    policy: GuestPolicy


def read_vcpu_facts(xml: str, lasting_xml: str | None, placed: Placed) -> VcpuFacts:
    """Facts of one running domain. Raises ParseError, or ValueError for what libvirt never writes.

    `lasting_xml` is the definition that its next start will use. A VM of which nobody knows whether its cloud
    placed it counts as placed.
    """
    domain = ElementTree.fromstring(xml)
    running = defined_masks(domain)
    return VcpuFacts(
        pins={pin.key: pin for pin in read_pins(domain.find(PINS_PATH))},
        owned=_owned(domain, None if lasting_xml is None else ElementTree.fromstring(lasting_xml)),
        others={key: running.of(key) for key in _other_threads(domain)},
        is_placed=domain.find("vcpu[@placement='auto']") is not None or _is_placed(domain, placed),
        is_real_time=any(domain.find(f"cputune/{name}") is not None for name in _SCHEDULES),
        nodes=bound_nodes(domain),
        policy=read_policy(domain)[0],
    )


def _owned(domain: Element, lasting: Element | None) -> DefinedMasks:
    """nova pins the running VM with its definition: what runs is what it chose.

    Of another VM without a lasting definition only `<vcpu cpuset>` is sure to be its owner's: no pin of the
    running VM ever changes it, while it makes a `<vcpupin>` just like that of the definition.
    """
    if lasting is not None:
        return defined_masks(lasting)
    running = defined_masks(domain)
    if any(element.tag.startswith(_NOVA) for element in domain.iterfind("metadata/*")):
        return running
    return DefinedMasks({}, running.others)


def _other_threads(domain: Element) -> list[ThreadKey]:
    return [("emulator", 0), *(("iothread", number) for number in iothread_numbers(domain))]


def _is_placed(domain: Element, placed: Placed) -> bool:
    try:
        return placed(domain)
    except UnavailableError:
        return True
