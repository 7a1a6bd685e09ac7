"""What the agent sees of GPUs: NVIDIA's library is a double, everything above it is real."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.nvml.double import OTHER_VM, VM, NvmlDouble, gpu, mig, mig_uuid_of, uuid_of
from tests.waiting import eventually
from vmpack.model import codec
from vmpack.model.gpu import Gpu, GpuProcess, MigInstance, Vgpu, idle_names
from vmpack.observe.gpu import HANGS, GpuReader
from vmpack.observe.gpu_users import GpuUsers
from vmpack.observe.nvml import NO_SUCH_GPU, OLD_LIBRARY
from vmpack.units import GIB, MIB

MakeReader = Callable[..., GpuReader]
NOBODY = GpuUsers({}, {})


def read(one: GpuReader, users: GpuUsers = NOBODY) -> tuple[Gpu, ...]:
    """The GPUs as they are at this moment."""
    return one.read_now(users)


def test_a_gpu_is_seen_whole(nvml: NvmlDouble, reader: MakeReader) -> None:
    """Each figure has a reader: a wrong unit or a swapped field sends work to the wrong GPU."""
    nvml.show(
        gpu(
            0,
            utilization=37,
            memory_utilization=12,
            encoder=5,
            decoder=7,
            ecc_corrected=2,
            compute="4711 1024",
        ),
        gpus=1,
    )

    assert read(reader()) == (
        Gpu(
            index=0,
            uuid=uuid_of(0),
            name="NVIDIA Double 80GB",
            pci_address="0000:3b:00.0",
            cores=6912,
            memory_total_bytes=80 * GIB,
            memory_used_bytes=512 * MIB,
            memory_free_bytes=80 * GIB - 512 * MIB,
            utilization_ratio=0.37,
            memory_utilization_ratio=0.12,
            encoder_ratio=0.05,
            decoder_ratio=0.07,
            temperature_c=31,
            power_w=61.25,
            power_limit_w=300.0,
            ecc_corrected=2,
            ecc_uncorrected=0,
            processes=(GpuProcess(4711, 1024),),
            mig_enabled=False,
        ),
    )


def test_what_a_device_does_not_support_is_none(nvml: NvmlDouble, reader: MakeReader) -> None:
    """A cheap GPU has no ECC and no power meter; a 0 in their place would be taken for a measurement."""
    nvml.show(gpu(0), gpus=1)
    whole = read(reader())[0]
    nvml.show({"0.unsupported": "all"})
    (bare,) = read(reader())

    told = {
        field.name for field in dataclasses.fields(Gpu) if getattr(bare, field.name) not in (None, (), False)
    }
    assert told == set()
    assert whole.temperature_c == 31


def test_processes_are_mapped_to_vms(nvml: NvmlDouble, reader: MakeReader) -> None:
    """An owner sees his VM's share of a GPU only when its QEMU is known for what it is."""
    nvml.show(gpu(0, compute=["100 1048576", "200 18446744073709551615"], graphics="300 4096"), gpus=1)

    (found,) = read(reader(), GpuUsers({100: VM, 300: OTHER_VM}, {}))

    assert found.processes == (
        GpuProcess(100, MIB, VM),
        GpuProcess(200, None, None),
        GpuProcess(300, 4096, OTHER_VM),
    )
    assert found.vm_uuids == (VM, OTHER_VM)


def test_mig_instances_are_devices_of_their_own(nvml: NvmlDouble, reader: MakeReader) -> None:
    """A split GPU is given away in parts: each part's memory and users are its own."""
    nvml.show(
        gpu(0, mig=1, mig_max=7, unsupported="nvmlDeviceGetUtilizationRates"),
        mig(0, 0, compute="100 1048576"),
        mig(0, 2),
        gpus=1,
    )

    (found,) = read(reader(), GpuUsers({100: VM}, {}))

    assert found.mig_enabled
    assert found.utilization_ratio is None
    assert [part.index for part in found.mig_instances] == [0, 2]
    assert found.mig_instances[0] == MigInstance(
        index=0,
        gpu_instance=7,
        uuid=mig_uuid_of(0, 0),
        name="NVIDIA Double 80GB MIG 1g.10gb",
        multiprocessors=14,
        memory_total_bytes=10 * GIB,
        memory_used_bytes=16 * MIB,
        memory_free_bytes=10 * GIB - 16 * MIB,
        processes=(GpuProcess(100, MIB, VM),),
        vm_uuids=(VM,),
    )
    assert found.vm_uuids == (VM,)
    assert idle_names(found) == (mig_uuid_of(0, 2),)


def test_vgpus_belong_to_their_vms(nvml: NvmlDouble, reader: MakeReader) -> None:
    """More than 4 GiB too: nvidia-ml-py itself would tell only the lower half of the number."""
    nvml.show(
        gpu(0, vgpu=[5, 6]),
        {
            "vgpu.5.vm": VM.upper(), "vgpu.5.uuid": "vgpu-5", "vgpu.5.memory_used": 6 * GIB + 1,
            "vgpu.5.memory_total": 10 * GIB, "vgpu.5.name": "GRID Double-10C", "vgpu.5.utilization": 40,
            "vgpu.6.vm": OTHER_VM, "vgpu.6.uuid": "vgpu-6",
        },
        gpus=1,
    )  # fmt: skip

    (found,) = read(reader())

    assert found.vgpus == (
        Vgpu("vgpu-5", VM, "GRID Double-10C", 10 * GIB, 6 * GIB + 1, 0.4),
        Vgpu("vgpu-6", OTHER_VM),
    )
    assert found.vm_uuids == (VM, OTHER_VM)
    assert idle_names(found) == ()


def test_a_vgpu_in_a_mig_instance_takes_that_one_alone(nvml: NvmlDouble, reader: MakeReader) -> None:
    """The other instances can still be given away; one with a VM in it cannot."""
    nvml.show(
        gpu(0, mig=1, mig_max=2, vgpu=5),
        mig(0, 0),
        mig(0, 1),
        {"vgpu.5.vm": VM, "vgpu.5.uuid": "v", "vgpu.5.gpu_instance": 8},
        gpus=1,
    )

    (found,) = read(reader())

    assert [part.vm_uuids for part in found.mig_instances] == [(), (VM,)]
    assert idle_names(found) == (mig_uuid_of(0, 0),)


def test_a_lost_gpu_hides_no_other(nvml: NvmlDouble, reader: MakeReader) -> None:
    """A GPU that fell off the bus must be seen as that, and its neighbours must go on."""
    nvml.show(gpu(0), gpu(1), gpus=2)
    one = reader()
    read(one)
    nvml.show({"0.lost": 15, "1.utilization": 80})

    lost, other = read(one)

    assert (lost.uuid, lost.name, lost.fault) == (uuid_of(0), "NVIDIA Double 80GB", "GPU is lost")
    assert (lost.utilization_ratio, lost.memory_used_bytes, lost.processes) == (None, None, None)
    assert idle_names(lost) == ()
    assert (other.utilization_ratio, other.fault) == (0.8, None)
    nvml.show({"0.lost": 0})
    assert read(one)[0].fault is None


def test_a_gpu_that_was_lost_before_the_start_is_there(nvml: NvmlDouble, reader: MakeReader) -> None:
    """The administrator must see that the machine has one GPU more than work."""
    nvml.show(gpu(0, lost=15), gpu(1), gpus=2)

    assert [(found.index, found.fault) for found in read(reader())] == [(0, "GPU is lost"), (1, None)]


def test_a_driver_that_restarts_is_found_again(nvml: NvmlDouble, reader: MakeReader) -> None:
    """After an update of the driver the figures must come back without a restart of the agent."""
    nvml.show(gpu(0), gpus=1, session="1")
    one = reader(retry_s=0.0)
    assert read(one)[0].fault is None

    nvml.show(driver=9, session="2")
    (gone,) = read(one)
    assert (gone.uuid, gone.utilization_ratio) == (uuid_of(0), None)
    assert [found.fault for found in read(one)] == ["Driver Not Loaded"]

    nvml.hide("driver")
    eventually("the GPU is read again", lambda: read(one)[0].fault is None)


def test_a_driver_that_stays_away_is_not_asked_at_every_interval(
    nvml: NvmlDouble, reader: MakeReader
) -> None:
    """Opening a broken driver can take seconds and fill the kernel's log."""
    nvml.show(gpu(0), gpus=1, driver=999)
    one = reader(retry_s=3600.0)

    for _ in range(5):
        assert read(one) == ()

    assert nvml.calls() == ["nvmlInitWithFlags"]
    assert one.driver().detail == "Unknown Error"


def test_a_new_session_is_not_begun_twice_within_the_pause(nvml: NvmlDouble, reader: MakeReader) -> None:
    """A driver that opens and at once forgets us must not be opened at every interval either."""
    nvml.show(gpu(0), gpus=1, session="1")
    one = reader(retry_s=3600.0)
    read(one)
    nvml.show(session="2")

    for _ in range(5):
        assert [found.fault for found in read(one)] == ["Uninitialized"]

    assert nvml.calls().count("nvmlInitWithFlags") == 1


def test_an_upgraded_driver_says_what_to_do(nvml: NvmlDouble, reader: MakeReader) -> None:
    """Only a restart helps a process that has the old library loaded; nobody guesses that."""
    nvml.show(gpu(0), gpus=1, driver=18)
    one = reader()
    read(one)
    assert one.driver().detail == OLD_LIBRARY


def test_a_call_that_hangs_costs_no_interval(nvml: NvmlDouble, reader: MakeReader) -> None:
    """Guests would wait for their memory until a broken GPU answers, which may be never."""
    nvml.show(gpu(0, utilization=50), gpus=1)
    one = reader(deadline_s=0.0)
    one.read(NOBODY)
    assert one.settle(120.0)
    nvml.show(hang="nvmlDeviceGetTemperature")

    one.read(NOBODY)
    hanging = eventually("the reading hangs", lambda: [gpu for gpu in one.read(NOBODY) if gpu.fault])
    for _ in range(100):
        one.read(NOBODY)

    assert [(found.uuid, found.utilization_ratio, found.fault) for found in hanging] == [
        (uuid_of(0), None, HANGS)
    ]
    before = nvml.calls().count("nvmlDeviceGetTemperature")
    nvml.show({"hang": "nothing", "0.utilization": 60})
    eventually("it is read again", lambda: one.settle(0.0) and one.driver().gpus[0].utilization_ratio == 0.6)
    assert nvml.calls().count("nvmlDeviceGetTemperature") <= before + 1


def test_a_driver_that_hangs_at_once_costs_no_interval(nvml: NvmlDouble, reader: MakeReader) -> None:
    """An agent that starts on a host with a broken GPU must pack it all the same."""
    nvml.show(gpu(0), gpus=1, hang="nvmlInitWithFlags")
    one = reader(deadline_s=0.0)

    assert one.read(NOBODY) == ()
    assert one.driver().detail == HANGS


def test_rare_values_are_not_asked_at_every_interval(nvml: NvmlDouble, reader: MakeReader) -> None:
    """What never changes, asked in every interval, is work on the host for nothing."""
    nvml.show(gpu(0), gpus=1)
    one = reader()
    for _ in range(5):
        read(one)

    calls = nvml.calls()
    assert calls.count("nvmlDeviceGetMemoryInfo") == 5
    assert calls.count("nvmlDeviceGetTotalEccErrors") == 2
    assert calls.count("nvmlDeviceGetName") == 1


def test_another_gpu_under_the_same_number_is_asked_for_its_name(
    nvml: NvmlDouble, reader: MakeReader
) -> None:
    """Numbers move when a GPU is taken out; the next one must not inherit its name and address."""
    nvml.show(gpu(0), gpus=1)
    one = reader()
    read(one)
    nvml.show(gpu(0, uuid=uuid_of(9), name="Another", pci="00000000:AF:00.0"))

    (found,) = read(one)

    assert (found.name, found.pci_address) == ("Another", "0000:af:00.0")


@pytest.mark.parametrize(
    ("devices", "seen"),
    [
        ("all", [0, 1, 2]),
        ("none", []),
        ("1", [1]),
        ("2, 0", [2, 0]),
        (uuid_of(1).upper(), [1]),
        ("0000:3d:00.0", [2]),
        ("3D:00.0", [2]),
        (f"1,{uuid_of(1)},3c:00.0", [1]),
    ],
)
def test_only_chosen_gpus_are_touched(
    nvml: NvmlDouble, reader: MakeReader, devices: str, seen: list[int]
) -> None:
    """A GPU that is to be handed to a VM must not be held open by its monitor."""
    nvml.show(gpu(0), gpu(1), gpu(2), gpus=3)

    assert [found.index for found in read(reader(devices))] == seen
    assert bool(nvml.calls()) == bool(seen)


def test_a_chosen_gpu_that_is_not_there_is_told(nvml: NvmlDouble, reader: MakeReader) -> None:
    """A typing error in the configuration would otherwise look like a machine without that GPU."""
    nvml.show(gpu(0), gpus=1)

    found = read(reader(f"0,7,{uuid_of(5)}"))

    assert [one.fault for one in found] == [None, NO_SUCH_GPU, NO_SUCH_GPU]


def test_a_name_that_is_no_text_hides_nothing(nvml: NvmlDouble, reader: MakeReader) -> None:
    """nvidia-ml-py fails on such a name; one odd device must not blind the agent to all."""
    nvml.show(gpu(0, name='odd "\udcff]]>\u00e9'), gpu(1), gpus=2)

    found = read(reader())

    assert found[0].name == 'odd "\ufffd]]>\u00e9'
    assert found[1].fault is None
    assert codec.loads(Gpu, codec.dumps(found[0])) == found[0]


def test_a_driver_without_gpus_is_no_fault(nvml: NvmlDouble, reader: MakeReader) -> None:
    """All GPUs of a host may be set aside for VMs while the driver is loaded."""
    nvml.show(gpus=0)
    one = reader()
    assert read(one) == ()
    assert one.driver().state == "works"


def test_a_gpu_that_the_driver_still_has_is_not_there_twice(
    nvml: NvmlDouble, reader: MakeReader, tmp_path: Path
) -> None:
    """While a GPU is handed to a VM it would be counted and offered twice."""
    nvml.show(gpu(0), gpu(1), gpus=2)
    device = tmp_path / "sys/bus/pci/devices/0000:3b:00.0"
    bound = tmp_path / "sys/bus/pci/drivers/vfio-pci" / device.name
    device.mkdir(parents=True)
    for name, text in {"vendor": "0x10de", "class": "0x030200", "device": "0x2330"}.items():
        (device / name).write_text(text)
    bound.parent.mkdir(parents=True)
    bound.symlink_to(device)

    found = read(reader())

    assert [(one.pci_address, one.is_passthrough) for one in found] == [
        ("0000:3c:00.0", False),
        ("0000:3b:00.0", True),
    ]
