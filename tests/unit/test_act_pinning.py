"""Pins of vCPUs by hand, and all pins off for a VM that leaves, on libvirt's own test driver."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import libvirt
import pytest
from tests.pinned_host import PinnedHost

from vmpack.act import pinning
from vmpack.act.pinning import drop_pins, held_pins, put_pins_back
from vmpack.errors import UsageError
from vmpack.model.pins import PINS_NAMESPACE, Pin

ALL = ()


@pytest.fixture
def host() -> Iterator[PinnedHost]:
    made = PinnedHost()
    yield made
    made.close()


def vcpus(host: PinnedHost) -> list[tuple[int, ...]]:
    masks = host.masks()
    return [masks["vcpu", 0], masks["vcpu", 1]]


def test_pins_are_taken_off_and_come_back(host: PinnedHost) -> None:
    """A VM would not leave, or, where it stays, run from then on where nobody wants it."""
    host.pin_by_hand(1, 2, 4)
    assert vcpus(host) == [ALL, (2, 4)]
    held = held_pins(host.hypervisor, host.uuid)
    pins = drop_pins(host.hypervisor, host.uuid)
    assert pins == held == (Pin("vcpu", 1, "hand", (2, 4)),)
    assert vcpus(host) == [ALL, ALL]
    assert drop_pins(host.hypervisor, host.uuid) == ()
    put_pins_back(host.hypervisor, host.uuid, pins)
    assert vcpus(host) == [ALL, (2, 4)]
    assert drop_pins(host.hypervisor, host.uuid) == pins


def test_pins_of_others_stay(host: PinnedHost) -> None:
    """A VM would lose the CPUs that its owner pays for."""
    host.domain.pinVcpu(0, host.map(2, 4))
    assert drop_pins(host.hypervisor, host.uuid) == ()
    host.pin_by_hand(1, 2)
    drop_pins(host.hypervisor, host.uuid)
    assert vcpus(host) == [(2, 4), ALL]


def test_what_was_there_before_a_pin_by_hand_comes_back(host: PinnedHost) -> None:
    """A VM would arrive free of what somebody had bound it to before vmpack did."""
    host.domain.pinVcpu(0, host.map(2, 4))
    host.pin_by_hand(0, 0)
    host.pin_by_hand(0, 4)
    assert host.pins() == (Pin("vcpu", 0, "hand", (4,), (2, 4)),)
    drop_pins(host.hypervisor, host.uuid)
    assert vcpus(host) == [(2, 4), ALL]


def test_what_is_noted_meanwhile_of_other_threads_stays(
    host: PinnedHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the scheduler or a second administrator pins at the same moment would be nobody's, for good."""
    real, theirs = pinning.set_mask, Pin("vcpu", 1, "scheduler", (4,))

    def late(*arguments: Any) -> None:
        host.note(*(pin for pin in host.pins() if pin != theirs), theirs)
        real(*arguments)

    monkeypatch.setattr(pinning, "set_mask", late)
    ours = Pin("vcpu", 0, "hand", (2,))
    host.pin_by_hand(0, 2)
    assert host.pins() == (ours, theirs)
    host.pin_by_hand(0)
    assert host.pins() == (theirs,)
    host.note(ours)
    host.domain.pinVcpu(0, host.map(2))
    assert drop_pins(host.hypervisor, host.uuid) == (ours,)
    assert host.pins() == (theirs,)
    put_pins_back(host.hypervisor, host.uuid, [ours])
    assert host.pins() == (ours, theirs)


def test_on_all_cpus_is_no_pin(host: PinnedHost) -> None:
    """What somebody else pins later would be taken for ours."""
    host.pin_by_hand(0, 2)
    host.pin_by_hand(1, 2)
    host.pin_by_hand(0)
    assert drop_pins(host.hypervisor, host.uuid) == (Pin("vcpu", 1, "hand", (2,)),)
    host.pin_by_hand(0, 2)
    host.pin_by_hand(0)
    host.domain.pinVcpu(0, host.map(2, 4))
    assert drop_pins(host.hypervisor, host.uuid) == ()


def test_a_pin_that_somebody_else_changed_is_his(host: PinnedHost) -> None:
    """It would be lost with the VM's migration, or come back changed."""
    host.pin_by_hand(0, 2)
    host.domain.pinVcpu(0, host.map(4))
    assert drop_pins(host.hypervisor, host.uuid) == ()
    assert (vcpus(host), host.pins()) == ([(4,), ALL], ())


def test_a_cpu_or_vcpu_that_there_is_not_is_refused(host: PinnedHost) -> None:
    """A typing error would bind a VM to nothing, or be taken for done."""
    for vcpu, cpus, words in ((0, (2, 3), "no CPU 3 is on"), (2, (2,), "has no vCPU 2")):
        with pytest.raises(UsageError, match=words):
            host.pin_by_hand(vcpu, *cpus)
    assert (vcpus(host), host.pins()) == ([ALL, ALL], ())


PIN = "<pin thread='vcpu' number='0' by='hand' cpus='2'/>"


@pytest.mark.parametrize(
    "note",
    [
        "<pins/>",
        "<pins vcpus='0'/>",
        PIN,
        f"<pins>{PIN.replace('vcpu', 'thread')}</pins>",
        f"<pins>{PIN.replace('hand', 'nobody')}</pins>",
        f"<pins>{PIN.replace('0', '-1')}</pins>",
        f"<pins>{PIN.replace('0', chr(0x661))}</pins>",
        f"<pins>{PIN.replace('0', '7')}</pins>",
        f"<pins>{PIN.replace(chr(39) + '2', chr(39) + '2-99999')}</pins>",
        f"<pins>{PIN.replace(chr(39) + '2', chr(39) + 'all')}</pins>",
        f"<pins>{PIN.replace(chr(39) + '2', chr(39) + '4-2')}</pins>",
        f"<pins>{PIN.replace(chr(39) + '2', chr(39) + '1,' * 20_000 + '2')}</pins>",
        f"<pins>{PIN.replace('vcpu', 'emulator').replace('0', '3')}</pins>",
    ],
)
def test_an_odd_note_pins_nothing(host: PinnedHost, note: str) -> None:
    """Whoever can write a VM's metadata could make its migrations fail."""
    kind, live = libvirt.VIR_DOMAIN_METADATA_ELEMENT, libvirt.VIR_DOMAIN_AFFECT_LIVE
    host.domain.setMetadata(kind, note, "p", PINS_NAMESPACE, live)
    host.domain.pinVcpu(0, host.map(2))
    assert drop_pins(host.hypervisor, host.uuid) == ()
    assert vcpus(host) == [(2,), ALL]
