"""What rarely changes about a VM, from its libvirt XML: statistics period, exclusions, the owner's policy.

`read_facts` is pure; domains.py calls it when a VM starts, when libvirt says that it changed, now and then.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from vmpack.model.guest import Exclusion, GuestPolicy
from vmpack.model.learned import Learned
from vmpack.model.pins import PINS_PATH, read_pins
from vmpack.observe.host import parse_cpu_list
from vmpack.observe.learned import read_learned
from vmpack.observe.policy import read_policy
from vmpack.units import KIB

_BALLOON = "devices/memballoon"
_BINDING = ("strict", "restrictive")
"""Modes in which memory comes from these nodes or not at all; libvirt's default is the first."""
_CONNECTED_AGENT = "devices/channel/target[@name='org.qemu.guest_agent.0'][@state='connected']"


@dataclass(frozen=True, slots=True)
class DomainFacts:
    """The lasting part of a GuestSnapshot."""

    memory_bytes: int
    """What the domain was given at its start or by hotplug."""
    configured_bytes: int | None
    """What the lasting definition starts the domain with, None for one without a lasting definition."""
    configured_period_s: int | None
    """Its statistics period there."""
    has_balloon: bool
    autodeflate: bool
    stats_period_s: int | None
    has_guest_agent: bool
    """A guest agent has the other end of its channel."""
    exclusions: tuple[Exclusion, ...]
    policy: GuestPolicy
    policy_faults: tuple[str, ...]
    host_devices: tuple[str, ...] = ()
    """PCI addresses of the devices that it was given, and uuids of mediated ones."""
    learned: Learned | None = None
    """What was learned of it, in Unix time."""
    learned_fault: str = ""
    """Why what its metadata say of that is not used."""
    nodes: tuple[int, ...] = ()
    """NUMA nodes of the host that all of its memory is bound to."""


def read_facts(xml: str, lasting_xml: str | None = None) -> DomainFacts:
    """Facts of one running domain, from libvirt's own XML of it (which has all sizes in KiB).

    `lasting_xml` is the definition that its next start will use.
    """
    domain = ElementTree.fromstring(xml)
    lasting = None if lasting_xml is None else ElementTree.fromstring(lasting_xml)
    policy, faults = read_policy(domain)
    learned, learned_fault = read_learned(domain)
    balloon = domain.find(_BALLOON)
    return DomainFacts(
        memory_bytes=int(domain.findtext("memory", default="0")) * KIB,
        configured_bytes=None if lasting is None else _configured_bytes(lasting),
        configured_period_s=None if lasting is None else _stats_period_s(lasting.find(_BALLOON)),
        has_balloon=not _has_no_balloon(domain),
        autodeflate=balloon is not None and balloon.get("autodeflate") == "on",
        stats_period_s=_stats_period_s(balloon),
        has_guest_agent=domain.find(_CONNECTED_AGENT) is not None,
        exclusions=_exclusions(domain),
        policy=policy,
        policy_faults=faults,
        host_devices=_host_devices(domain),
        learned=learned,
        learned_fault=learned_fault,
        nodes=bound_nodes(domain),
    )


def _configured_bytes(lasting: Element) -> int | None:
    current = lasting.findtext("currentMemory", default="")
    return int(current) * KIB if current.isdecimal() else None


def _stats_period_s(balloon: Element | None) -> int | None:
    if balloon is None:
        return None
    stats = balloon.find("stats")
    period = "0" if stats is None else stats.get("period", "0")
    return int(period) if period.isdecimal() else None


def _exclusions(domain: Element) -> tuple[Exclusion, ...]:
    checks: tuple[tuple[Exclusion, bool], ...] = (
        ("no_balloon_device", _has_no_balloon(domain)),
        ("huge_pages", domain.find("memoryBacking/hugepages") is not None),
        ("locked_memory", domain.find("memoryBacking/locked") is not None),
        ("file_backed_memory", domain.find("memoryBacking/source[@type='file']") is not None),
        ("pci_passthrough", _has_passthrough(domain)),
        ("encrypted_memory", domain.find("launchSecurity") is not None),
        ("memory_hotplug", domain.find("maxMemory") is not None),
        ("dedicated_cpus", _has_dedicated_cpus(domain)),
    )
    return tuple(name for name, holds in checks if holds)


def _has_no_balloon(domain: Element) -> bool:
    balloon = domain.find(_BALLOON)
    return balloon is None or balloon.get("model") == "none"


def _has_passthrough(domain: Element) -> bool:
    """True for every kind of device that pins the guest's memory, so that none of it can be taken."""
    pinning = (
        "devices/hostdev[@type='pci']",
        "devices/hostdev[@type='mdev']",
        "devices/interface[@type='hostdev']",
        "devices/interface[@type='vdpa']",
        "devices/disk[@type='nvme']",
    )
    return any(domain.find(path) is not None for path in pinning)


def bound_nodes(domain: Element) -> tuple[int, ...]:
    """Empty where a part of its memory may come from any node."""
    cells = domain.findall("numatune/memnode")
    bindings = list(cells)
    if not 0 < len(cells) == len(domain.findall("cpu/numa/cell")):
        bindings += domain.findall("numatune/memory")
        if len(bindings) == len(cells):
            return ()
    if any(part.get("mode", "strict") not in _BINDING or not part.get("nodeset") for part in bindings):
        return ()
    return tuple(sorted({node for part in bindings for node in parse_cpu_list(part.get("nodeset", ""))}))


def _host_devices(domain: Element) -> tuple[str, ...]:
    found = [_device_name(address) for address in domain.iterfind("devices/hostdev/source/address")]
    return tuple(name for name in found if name is not None)


def _device_name(address: Element) -> str | None:
    if address.get("uuid"):
        return address.get("uuid")
    try:
        domain, bus, slot, function = (
            int(address.get(part, ""), 16) for part in ("domain", "bus", "slot", "function")
        )
    except ValueError:
        return None
    return f"{domain:04x}:{bus:02x}:{slot:02x}.{function:x}"


def _has_dedicated_cpus(domain: Element) -> bool:
    """By its owner or somebody at run time: pins of the vCPU scheduler count as what was there before."""
    vcpus = int(domain.findtext("vcpu", default="1"))
    noted = {pin.number: pin for pin in read_pins(domain.find(PINS_PATH)) if pin.thread == "vcpu"}
    masks = []
    for element in domain.iterfind("cputune/vcpupin"):
        cpus = parse_cpu_list(element.get("cpuset", ""))
        pin = noted.get(int(element.get("vcpu", "-1")))
        ours = pin is not None and pin.by == "scheduler" and cpus in (pin.cpus, pin.instead_of)
        masks.append(pin.before if pin is not None and ours else cpus)
    return len(masks) >= vcpus and all(len(cpus) == 1 for cpus in masks)
