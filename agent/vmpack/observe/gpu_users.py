"""Which VM uses which GPU. Pure; called by gpu.py with what libvirt, /proc, sysfs and the driver know.

A VM is found by its QEMU among a GPU's processes, by the vGPUs that the driver runs for it, or by the devices
in its own definition. Promises that a GPU that is set aside for VMs is never taken for unused because a VM
could not be asked; of all others the driver itself tells who uses them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from vmpack.model.gpu import Gpu, GpuProcess, MigInstance, Vgpu

MAYBE_TAKEN = "a VM that gives no answer may have it"


@dataclass(frozen=True, slots=True)
class GpuUsers:
    """What the VMs of this host have, apart from what the driver says of them."""

    vm_of_pid: Mapping[int, str]
    """VM uuid by the process id of its QEMU."""
    devices: Mapping[str, tuple[str, ...]]
    """By VM uuid: PCI addresses of passed-through devices, uuids of mediated ones."""
    is_complete: bool = True
    """False while there is a VM whose devices are not known."""


def assigned(gpus: Sequence[Gpu], users: GpuUsers, parents: Mapping[str, str]) -> tuple[Gpu, ...]:
    """The same GPUs with their users; `parents` has the GPU's PCI address by the vGPU's device."""
    return tuple(_assigned(gpu, users, parents) for gpu in gpus)


def _assigned(gpu: Gpu, users: GpuUsers, parents: Mapping[str, str]) -> Gpu:
    if gpu.is_passthrough:
        owners = tuple(sorted(uuid for uuid, devices in users.devices.items() if gpu.pci_address in devices))
        return replace(gpu, vm_uuids=owners, fault=None if owners or users.is_complete else MAYBE_TAKEN)
    vgpus = _vgpus(gpu, users, parents)
    parts = tuple(_mig_instance(part, vgpus, users) for part in gpu.mig_instances)
    processes = _processes(gpu.processes, users)
    found = {vgpu.vm_uuid for vgpu in vgpus} | {process.vm_uuid for process in processes or ()}
    found |= {uuid for part in parts for uuid in part.vm_uuids}
    return replace(
        gpu,
        vgpus=vgpus,
        mig_instances=parts,
        processes=processes,
        vm_uuids=tuple(sorted(uuid for uuid in found if uuid is not None)),
    )


def _vgpus(gpu: Gpu, users: GpuUsers, parents: Mapping[str, str]) -> tuple[Vgpu, ...]:
    """Those that the driver tells, and those that only a VM's definition tells."""
    told = {vgpu.vm_uuid for vgpu in gpu.vgpus}
    defined = [
        Vgpu(uuid=None, vm_uuid=uuid)
        for uuid, devices in sorted(users.devices.items())
        for device in devices
        if gpu.pci_address is not None and parents.get(device) == gpu.pci_address and uuid not in told
    ]
    return (*gpu.vgpus, *defined)


def _mig_instance(part: MigInstance, vgpus: Sequence[Vgpu], users: GpuUsers) -> MigInstance:
    processes = _processes(part.processes, users)
    found = {process.vm_uuid for process in processes or ()}
    if part.gpu_instance is not None:
        found |= {vgpu.vm_uuid for vgpu in vgpus if vgpu.gpu_instance == part.gpu_instance}
    return replace(
        part, processes=processes, vm_uuids=tuple(sorted(uuid for uuid in found if uuid is not None))
    )


def _processes(found: tuple[GpuProcess, ...] | None, users: GpuUsers) -> tuple[GpuProcess, ...] | None:
    if found is None:
        return None
    return tuple(replace(process, vm_uuid=users.vm_of_pid.get(process.pid)) for process in found)
