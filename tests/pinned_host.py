"""libvirt's test driver as a host for tests of pins: a VM of two vCPUs, 8 CPUs of which 0, 2 and 4 are on."""

from __future__ import annotations

import gc
import xml.etree.ElementTree as ElementTree
from typing import Any

import libvirt

from vmpack.act.affinity import AffinityExecutor
from vmpack.act.pinning import pin_vcpu
from vmpack.hypervisor import Hypervisor
from vmpack.model.pins import PINS_NAMESPACE, PINS_PREFIX, Pin, pins_xml, read_pins
from vmpack.model.thread import ThreadKey, ThreadKind
from vmpack.model.vcpu import AffinityOutcome, RememberedVcpus, SetAffinity, VcpuPlan

EVERYWHERE = frozenset({0, 2, 4})
_LIVE = libvirt.VIR_DOMAIN_AFFECT_LIVE
_SMALL = """<domain type='test'><name>{name}</name><memory>1024</memory><vcpu>1</vcpu>
<os><type arch='i686'>hvm</type></os></domain>"""


class PinnedHost:
    """The VM `test`, looked at without vmpack."""

    def __init__(self) -> None:
        self.hypervisor = Hypervisor("test:///default")
        self.domain: Any = self.hypervisor.call("find", lambda connection: connection.lookupByName("test"))
        self.uuid: str = self.domain.UUIDString()
        self.uuid_of_another = ""

    def close(self) -> None:
        """The next one is new: libvirt forgets this one with the last thing that refers to it."""
        self.hypervisor.close()
        self.domain = None
        gc.collect()

    def another(self, name: str) -> Any:
        """Another running VM, of one vCPU."""
        made = self.hypervisor.connection().createXML(_SMALL.format(name=name))
        self.uuid_of_another = made.UUIDString()
        return made

    def change(
        self,
        thread: ThreadKind,
        number: int,
        seen: tuple[int, ...],
        cpus: tuple[int, ...],
        gives_back: bool = False,
    ) -> SetAffinity:
        return SetAffinity(self.uuid, "test", thread, number, seen, cpus, gives_back)

    def carry_out(self, *actions: SetAffinity) -> tuple[AffinityOutcome, ...]:
        return AffinityExecutor(self.hypervisor, everywhere=lambda: EVERYWHERE).carry_out(plan(*actions))

    def release(self) -> tuple[AffinityOutcome, ...]:
        return AffinityExecutor(self.hypervisor, everywhere=lambda: EVERYWHERE).release()

    def pin_by_hand(self, vcpu: int, *cpus: int) -> None:
        pin_vcpu(self.hypervisor, "test", vcpu, cpus, lambda _: None, dry_run=False)

    def masks(self) -> dict[ThreadKey, tuple[int, ...]]:
        """Of all threads, of the CPUs that are on; empty: any."""
        found: dict[ThreadKey, tuple[int, ...]] = {
            ("vcpu", number): _cpus(allowed) for number, allowed in enumerate(self.domain.vcpuPinInfo())
        }
        found["emulator", 0] = _cpus(self.domain.emulatorPinInfo(_LIVE))
        for element in ElementTree.fromstring(self.domain.XMLDesc(0)).iterfind("cputune/iothreadpin"):
            found["iothread", int(element.attrib["iothread"])] = tuple(
                int(cpu) for cpu in element.attrib["cpuset"].split(",")
            )
        return found

    def map(self, *cpus: int) -> tuple[bool, ...]:
        return tuple(cpu in cpus for cpu in range(8))

    def pins(self) -> tuple[Pin, ...]:
        """As noted."""
        try:
            text = self.domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, PINS_NAMESPACE, _LIVE)
        except libvirt.libvirtError:
            return ()
        return read_pins(ElementTree.fromstring(text))

    def note(self, *pins: Pin) -> None:
        kind = libvirt.VIR_DOMAIN_METADATA_ELEMENT
        self.domain.setMetadata(kind, pins_xml(pins), PINS_PREFIX, PINS_NAMESPACE, _LIVE)


def plan(*actions: SetAffinity) -> VcpuPlan:
    """A plan of which only the actions matter."""
    return VcpuPlan(actions, (), 0.0, 0.0, (), (), RememberedVcpus())


def _cpus(allowed: tuple[bool, ...]) -> tuple[int, ...]:
    return () if all(allowed) else tuple(cpu for cpu, is_allowed in enumerate(allowed) if is_allowed)
