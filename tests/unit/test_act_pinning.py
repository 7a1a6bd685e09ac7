"""Pins of vCPUs, on libvirt's own test driver."""

from __future__ import annotations

from collections.abc import Iterator

import libvirt
import pytest

from vmpack.act.pinning import Pin, drop_pins, pin_vcpu, put_pins_back
from vmpack.hypervisor import Hypervisor

OFF, ON = (True,) * 8, (False, False, True, False, True, False, False, False)


class Host:
    """libvirt's test driver: one VM of two vCPUs, 8 CPUs of which 0, 2 and 4 are on."""

    def __init__(self) -> None:
        self.hypervisor = Hypervisor("test:///default")
        self.domain = self.hypervisor.call("find", lambda connection: connection.lookupByName("test"))
        self.uuid: str = self.domain.UUIDString()

    def pin(self, vcpu: int, *cpus: int) -> None:
        pin_vcpu(self.hypervisor, "test", vcpu, cpus, lambda _: None, dry_run=False)

    def pins(self) -> list[tuple[bool, ...]]:
        found: list[tuple[bool, ...]] = self.domain.vcpuPinInfo()
        return found


@pytest.fixture
def host() -> Iterator[Host]:
    made = Host()
    yield made
    made.hypervisor.close()


def test_pins_are_taken_off_and_come_back(host: Host) -> None:
    """A VM would not leave, or, where it stays, run from then on where nobody wants it."""
    host.pin(1, 2, 4)
    assert host.pins() == [OFF, ON]
    pins = drop_pins(host.hypervisor, host.uuid)
    assert pins == (Pin(1, (2, 4)),)
    assert host.pins() == [OFF, OFF]
    assert drop_pins(host.hypervisor, host.uuid) == ()
    put_pins_back(host.hypervisor, host.uuid, pins)
    assert host.pins() == [OFF, ON]
    assert drop_pins(host.hypervisor, host.uuid) == pins


def test_pins_of_others_stay(host: Host) -> None:
    """A VM would lose the CPUs that its owner pays for."""
    host.domain.pinVcpu(0, ON)
    assert drop_pins(host.hypervisor, host.uuid) == ()
    host.pin(1, 2)
    drop_pins(host.hypervisor, host.uuid)
    assert host.pins() == [ON, OFF]


def test_on_all_cpus_is_no_pin(host: Host) -> None:
    """What somebody else pins later would be taken for ours."""
    host.pin(0, 2)
    host.pin(1, 2)
    host.pin(0)
    assert drop_pins(host.hypervisor, host.uuid) == (Pin(1, (2,)),)
    host.pin(0, 2)
    host.pin(0)
    host.domain.pinVcpu(0, ON)
    assert drop_pins(host.hypervisor, host.uuid) == ()


@pytest.mark.parametrize("note", ["<pins/>", "<pins vcpus='x,-1,99999,9,\u0661'/>"])
def test_an_odd_note_pins_nothing(host: Host, note: str) -> None:
    """Whoever can write a VM's metadata could make its migrations fail."""
    kind, live = libvirt.VIR_DOMAIN_METADATA_ELEMENT, libvirt.VIR_DOMAIN_AFFECT_LIVE
    host.domain.setMetadata(kind, note, "p", "urn:vmpack:pins:1", live)
    assert drop_pins(host.hypervisor, host.uuid) == ()
