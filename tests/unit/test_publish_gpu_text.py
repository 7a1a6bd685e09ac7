"""GPUs in probe texts, read back by the double of OpenNebula's parser."""

from __future__ import annotations

import dataclasses

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.opennebula import template

from vmpack.model.gpu import Gpu, GpuProcess, MigInstance, Vgpu
from vmpack.publish.gpu_text import host_lines, vm_values
from vmpack.units import GIB, MIB

VM, OTHER = "uuid-a", "uuid-b"
BUSY = Gpu(
    index=0,
    uuid="GPU-0",
    name="NVIDIA A100",
    pci_address="0000:3b:00.0",
    numa_node=1,
    cores=6912,
    memory_total_bytes=80 * GIB,
    memory_used_bytes=20 * GIB + 1,
    memory_free_bytes=60 * GIB - 1,
    utilization_ratio=0.375,
    memory_utilization_ratio=0.12,
    encoder_ratio=0.0,
    temperature_c=44,
    power_w=210.4,
    power_limit_w=300.0,
    ecc_uncorrected=0,
    processes=(GpuProcess(10, GIB, VM),),
    vm_uuids=(VM,),
    mig_enabled=False,
)
IDLE = Gpu(index=1, uuid="GPU-1", memory_total_bytes=16 * GIB, utilization_ratio=0.0, processes=())
LOST = Gpu(index=2, uuid="GPU-2", memory_total_bytes=16 * GIB, fault="GPU is lost")
APART = Gpu(name="NVIDIA 2330", pci_address="0000:5e:00.0", is_passthrough=True, vm_uuids=(VM,))
SPLIT = Gpu(
    index=3,
    uuid="GPU-3",
    processes=(),
    mig_enabled=True,
    mig_instances=(
        MigInstance(
            0, 7, "MIG-0", "1g.10gb", 14, 10 * GIB, GIB, 9 * GIB, (GpuProcess(11, GIB, VM),), (VM,), None
        ),
        MigInstance(1, 8, "MIG-1", "1g.10gb", 14, 10 * GIB, 0, 10 * GIB, ()),
    ),
    vm_uuids=(VM,),
)
SHARED = dataclasses.replace(
    BUSY,
    processes=(),
    vgpus=(Vgpu("v-0", VM, "A100-10C", 10 * GIB, 4 * GIB, 0.4), Vgpu("v-1", OTHER, None, 10 * GIB, 0)),
    vm_uuids=(VM, OTHER),
)

finite = st.floats(-1e6, 1e6)
texts = st.none() | st.text(st.characters(codec=None), max_size=40)
counts = st.none() | st.integers(0, 2**64)
users = st.lists(st.sampled_from([VM, OTHER]), unique=True, max_size=2).map(tuple)
processes = st.none() | st.lists(
    st.builds(GpuProcess, st.integers(0), counts, st.none() | st.sampled_from([VM, OTHER])), max_size=2
).map(tuple)
parts = st.builds(
    MigInstance,
    index=st.integers(0, 7),
    uuid=texts,
    name=texts,
    memory_total_bytes=counts,
    memory_used_bytes=counts,
    memory_free_bytes=counts,
    processes=processes,
    vm_uuids=users,
    fault=texts,
)
vgpus = st.builds(Vgpu, uuid=texts, vm_uuid=st.none() | st.just(VM), name=texts, memory_used_bytes=counts)
anything = st.builds(
    Gpu,
    index=st.none() | st.integers(0, 16),
    uuid=texts,
    name=texts,
    pci_address=texts,
    memory_total_bytes=counts,
    memory_used_bytes=counts,
    memory_free_bytes=counts,
    utilization_ratio=st.none() | st.floats(0, 1),
    power_w=st.none() | finite,
    processes=processes,
    mig_instances=st.lists(parts, max_size=3).map(tuple),
    mig_enabled=st.none() | st.booleans(),
    vgpus=st.lists(vgpus, max_size=2).map(tuple),
    is_passthrough=st.booleans(),
    vm_uuids=users,
    fault=texts,
)


def totals(*gpus: Gpu) -> dict[str, template.Value]:
    """The single values of host/system."""
    return {name: value for name, value in template.parse(host_lines(gpus)) if isinstance(value, str)}


def test_totals_are_whole_numbers_with_opennebulas_units() -> None:
    """Scheduling rules compare these; MiB and percent are what administrators know from nvidia-smi."""
    assert totals(BUSY, IDLE, LOST, APART) == {
        "GPU_COUNT": "4",
        "GPU_MIG_COUNT": "0",
        "GPU_IDLE": "1",
        "GPU_FAULTS": "1",
        "GPU_MEMORY_TOTAL": str((80 + 16 + 16) * 1024),
        "GPU_MEMORY_USED": str(20 * 1024),
        "GPU_UTILIZATION": "19",
        "GPU_POWER_USAGE": "210",
    }


def test_a_host_without_gpus_says_zero() -> None:
    """OpenNebula never forgets a name: without zeros, VMs would be sent to a GPU that was taken out."""
    before = template.merge([], template.parse(host_lines((BUSY, SPLIT))))
    after = template.merge(before, template.parse(host_lines(())))

    assert all(value == "0" for value in dict(after).values())
    assert template.vectors(after, "GPU") == []
    assert totals().keys() == totals(BUSY, SPLIT).keys()


def test_each_gpu_and_instance_has_its_vector() -> None:
    """The administrator sees in the cloud itself which GPU is whose, and where it sits."""
    busy, split, first, second = template.vectors(template.parse(host_lines((BUSY, SPLIT))), "GPU")

    assert busy == {
        "INDEX": "0",
        "UUID": "GPU-0",
        "NAME": "NVIDIA A100",
        "PCI_ADDRESS": "0000:3b:00.0",
        "NUMA_NODE": "1",
        "CORES": "6912",
        "MEMORY_TOTAL": "81920",
        "MEMORY_USED": "20480",
        "UTILIZATION": "38",
        "MEMORY_UTILIZATION": "12",
        "ENCODER": "0",
        "TEMPERATURE": "44",
        "POWER_USAGE": "210",
        "POWER_LIMIT": "300",
        "ECC_UNCORRECTED": "0",
        "PROCESSES": "1",
        "VMS": VM,
    }
    assert split["INDEX"] == "3"
    assert (first["INDEX"], first["PARENT"], first["VMS"]) == ("3:0", "GPU-3", VM)
    assert (second["INDEX"], second["UUID"], second["MEMORY_TOTAL"]) == ("3:1", "MIG-1", "10240")
    assert "VMS" not in second


def test_a_lost_gpu_says_why() -> None:
    """A GPU that only vanished from the list would be looked for in the wrong place."""
    assert template.vectors(template.parse(host_lines((LOST,))), "GPU")[0]["FAULT"] == "GPU is lost"


def test_a_vm_is_told_its_own_gpu() -> None:
    """The owner sees with the cloud's own names and units what his VM does with its GPU."""
    assert vm_values((BUSY, IDLE), VM) == {
        "GPU_COUNT": "1",
        "GPU_UTILIZATION": "38",
        "GPU_MEMORY_UTILIZATION": "12",
        "GPU_MEMORY_FREE": str((60 * GIB - 1) // MIB),
        "GPU_POWER_USAGE": "210",
    }


def test_a_vm_without_a_gpu_is_told_nothing() -> None:
    """Text for each of 400 VMs must stay within one datagram."""
    assert vm_values((BUSY, IDLE), OTHER) == {}
    assert vm_values((), VM) == {}


def test_what_a_guest_tells_of_its_own_gpu_is_not_overwritten() -> None:
    """OpenNebula asks the guest of a passed-through GPU; a 0 of the host's would replace its figures."""
    assert vm_values((APART,), VM) == {"GPU_COUNT": "1"}


def test_a_neighbours_work_is_not_the_vms() -> None:
    """An owner must not be shown, or billed, what another VM does on a shared GPU."""
    assert vm_values((SHARED,), VM) == {
        "GPU_COUNT": "1",
        "GPU_UTILIZATION": "40",
        "GPU_MEMORY_UTILIZATION": "0",
        "GPU_MEMORY_FREE": str(6 * 1024),
        "GPU_POWER_USAGE": "0",
    }
    also_host = dataclasses.replace(BUSY, processes=(GpuProcess(10, None, VM), GpuProcess(12)))
    assert vm_values((also_host,), VM)["GPU_UTILIZATION"] == "0"


def test_a_mig_instances_memory_is_its_vms() -> None:
    """A seventh of a GPU must not be shown as a whole one."""
    values = vm_values((SPLIT,), VM)
    assert (values["GPU_COUNT"], values["GPU_MEMORY_FREE"]) == ("1", str(9 * 1024))


def test_a_gpu_that_was_lost_leaves_no_old_figure() -> None:
    """OpenNebula keeps a name that is no longer printed: the owner would see 38 % for ever."""
    lost = Gpu(index=0, uuid="GPU-0", fault="GPU is lost", vgpus=(Vgpu(None, VM),), vm_uuids=(VM,))
    assert vm_values((lost,), VM).keys() == vm_values((BUSY,), VM).keys()
    assert vm_values((lost,), VM)["GPU_UTILIZATION"] == "0"


@settings(max_examples=300, suppress_health_check=list(HealthCheck))
@given(st.lists(anything, max_size=3))
def test_any_gpus_parse(gpus: list[Gpu]) -> None:
    """One syntax error takes the host's capacity from the cloud, whatever a device calls itself."""
    text = host_lines(gpus)

    assert text.isascii() and text.endswith("\n") and "]]>" not in text
    found = template.parse(text)
    assert template.first(found, "GPU_COUNT") == str(len(gpus))
    wanted = sum(1 + len(gpu.mig_instances) for gpu in gpus)
    assert len([vector for vector in template.vectors(found, "GPU") if vector]) <= max(1, wanted)
    assert len(template.vectors(found, "GPU")) == max(1, wanted)
    for name, value in vm_values(gpus, VM).items():
        assert value.lstrip("-").isdigit(), name
