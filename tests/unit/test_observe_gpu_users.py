"""Whose a GPU is, where NVIDIA's driver does not tell: from sysfs and the VMs' definitions."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.fake_libvirt import SILENT, UUID, XML, FakeDomain, FakeHypervisor
from tests.fake_vms import FakeClock

from vmpack.model.gpu import Gpu, Vgpu, idle_names
from vmpack.model.gpu_selection import GpuSelection
from vmpack.observe.domain_facts import read_facts
from vmpack.observe.gpu import GpuReader
from vmpack.observe.gpu_users import MAYBE_TAKEN, GpuUsers, assigned
from vmpack.observe.pci_gpus import numa_node, parent_gpu, passthrough_gpus
from vmpack.observe.source import HostSource

GPU, AUDIO, NIC, PARENT, VF = "0000:3b:00.0", "0000:3b:00.1", "0000:5e:00.0", "0000:af:00.0", "0000:af:00.4"
MDEV = "11111111-2222-4333-8444-555555555555"
PASSED = f"""<hostdev mode='subsystem' type='pci' managed='yes'>
  <driver name='vfio'/><source><address domain='0x0000' bus='0x3b' slot='0x00' function='0x0'/></source>
  <address type='pci' domain='0x0000' bus='0x00' slot='0x05' function='0x0'/>
</hostdev><hostdev mode='subsystem' type='mdev' model='vfio-pci'>
  <source><address uuid='{MDEV}'/></source>
</hostdev><hostdev mode='subsystem' type='usb'>
  <source><vendor id='0x1234'/><address bus='1' device='2'/></source>
</hostdev>"""


@pytest.fixture
def sys(tmp_path: Path) -> Path:
    """A GPU, its audio function and a network card bound to vfio, and a GPU that is shared."""
    devices = {
        GPU: ("0x10de", "0x030200", "0x2330", "1"),
        AUDIO: ("0x10de", "0x040300", "0x22ba", "1"),
        NIC: ("0x8086", "0x020000", "0x1572", "0"),
        PARENT: ("0x10de", "0x030200", "0x20b5", "-1"),
        VF: ("0x10de", "0x030200", "0x20b5", "-1"),
    }
    for address, (vendor, kind, model, node) in devices.items():
        folder = tmp_path / "devices" / address
        folder.mkdir(parents=True)
        for name, text in {"vendor": vendor, "class": kind, "device": model, "numa_node": node}.items():
            (folder / name).write_text(text + "\n")
        link(tmp_path / "bus/pci/devices" / address, folder)
    for address in (GPU, AUDIO, NIC):
        link(tmp_path / "bus/pci/drivers/vfio-pci" / address, tmp_path / "devices" / address)
    (tmp_path / "bus/pci/drivers/vfio-pci/bind").write_text("")
    link(tmp_path / "devices" / VF / "physfn", tmp_path / "devices" / PARENT)
    (tmp_path / "devices" / PARENT / MDEV).mkdir()
    link(tmp_path / "bus/mdev/devices" / MDEV, tmp_path / "devices" / PARENT / MDEV)
    return tmp_path


def link(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def test_gpus_that_are_set_aside_are_seen_without_a_driver(sys: Path) -> None:
    """A host that gives all its GPUs to VMs has none that NVIDIA's driver could tell of."""
    assert passthrough_gpus(sys, ()) == (
        Gpu(name="NVIDIA 2330", pci_address=GPU, numa_node=1, is_passthrough=True),
    )


def test_a_machine_without_such_devices_has_none(tmp_path: Path) -> None:
    """Most hosts have no GPU; looking must cost them nothing and find nothing."""
    assert passthrough_gpus(tmp_path, (GPU, MDEV, "../../etc")) == ()
    assert parent_gpu(tmp_path, "../../etc") is None
    assert numa_node(tmp_path, GPU) is None


def test_a_part_of_a_gpu_leads_to_the_gpu(sys: Path) -> None:
    """A VM with a vGPU would not count as a user, and its GPU be given away whole."""
    assert parent_gpu(sys, VF) == parent_gpu(sys, MDEV) == PARENT
    below_vf = MDEV.replace("1", "6")
    (sys / "devices" / VF / below_vf).mkdir()
    link(sys / "bus/mdev/devices" / below_vf, sys / "devices" / VF / below_vf)
    assert parent_gpu(sys, below_vf) == PARENT
    assert parent_gpu(sys, GPU) is None
    assert passthrough_gpus(sys, (VF,)) == passthrough_gpus(sys, ())


def test_devices_of_a_vm_are_read_from_its_definition() -> None:
    """Passed-through GPUs are found by nothing else."""
    assert read_facts(XML.replace("<devices>", f"<devices>{PASSED}")).host_devices == (GPU, MDEV)


def test_a_strange_address_costs_only_itself() -> None:
    """A definition that libvirt writes differently one day must not hide the VM."""
    odd = PASSED.replace("bus='0x3b'", "bus='?'")
    assert read_facts(XML.replace("<devices>", f"<devices>{odd}")).host_devices == (MDEV,)


def test_a_passed_through_gpu_is_its_vms(sys: Path) -> None:
    """It must not be offered while a VM has it, and must be once none has."""
    gpus = passthrough_gpus(sys, ())
    (taken,) = assigned(gpus, GpuUsers({}, {"vm": (GPU, AUDIO), "other": ()}), {})
    (free,) = assigned(gpus, GpuUsers({}, {"other": (NIC,)}), {})

    assert (taken.vm_uuids, idle_names(taken)) == (("vm",), ())
    assert (free.vm_uuids, idle_names(free)) == ((), (GPU,))


def test_a_vm_that_cannot_be_asked_may_have_it(sys: Path) -> None:
    """A GPU offered twice makes the second VM's start fail."""
    (unsure,) = assigned(passthrough_gpus(sys, ()), GpuUsers({}, {}, is_complete=False), {})

    assert unsure.fault == MAYBE_TAKEN
    assert idle_names(unsure) == ()


def test_a_vgpu_that_the_driver_does_not_tell_of_is_known_from_the_vm(sys: Path) -> None:
    """Without NVIDIA's vGPU calls the GPU would look idle."""
    whole = Gpu(index=0, uuid="GPU-0", pci_address=PARENT, processes=())
    (found,) = assigned((whole,), GpuUsers({}, {"vm": (MDEV,)}), {MDEV: PARENT})

    assert found.vgpus == (Vgpu(None, "vm"),)
    assert (found.vm_uuids, idle_names(found)) == (("vm",), ())
    assert idle_names(whole) == ("GPU-0",)


def test_a_snapshot_has_the_gpus_of_its_vms(sys: Path) -> None:
    """The whole way from a VM's definition to the snapshot, also for a VM that gives no answer."""
    domain = FakeDomain()
    domain.xml = XML.replace("<devices>", f"<devices>{PASSED}")
    reader = GpuReader(GpuSelection.parse(GPU), sys=sys)
    source = HostSource(
        FakeHypervisor(domain),  # type: ignore[arg-type]
        FakeClock(),
        pretended_bytes=None,
        frozen=lambda: False,
        claims=lambda: (),
        gpus=reader.read,
    )
    try:
        (seen,) = source.observe().gpus
        domain.stats = SILENT
        (silent,) = source.observe().gpus
    finally:
        reader.close()

    assert (seen.pci_address, seen.vm_uuids, seen.fault) == (GPU, (UUID,), None)
    assert silent == seen
