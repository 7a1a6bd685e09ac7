"""What is known of one host's NVIDIA GPUs at one moment.

Made by observe/gpu.py. What a device does not tell is None, never a guess; a device that cannot be read is
there all the same, with its `fault`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """One process that uses a GPU or a MIG instance."""

    pid: int
    memory_used_bytes: int | None = None
    vm_uuid: str | None = None
    """The VM whose QEMU it is; None for any other process of the host."""


@dataclass(frozen=True, slots=True)
class MigInstance:
    """One MIG device: a fixed part of a GPU with memory and cores of its own."""

    index: int
    """Among those of its GPU."""
    gpu_instance: int | None = None
    """The driver's number of the GPU instance that it lies in."""
    uuid: str | None = None
    name: str | None = None
    multiprocessors: int | None = None
    memory_total_bytes: int | None = None
    memory_used_bytes: int | None = None
    memory_free_bytes: int | None = None
    processes: tuple[GpuProcess, ...] | None = None
    vm_uuids: tuple[str, ...] = ()
    """VMs that use it, as far as can be told."""
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class Vgpu:
    """One virtual GPU of a running VM, as the host's driver knows it."""

    uuid: str | None
    """None where only the VM's definition tells of it."""
    vm_uuid: str | None
    name: str | None = None
    """Of its type, such as GRID A100-10C."""
    memory_total_bytes: int | None = None
    memory_used_bytes: int | None = None
    utilization_ratio: float | None = None
    gpu_instance: int | None = None
    """The MIG GPU instance that it lies in; None for one that shares the whole GPU in time."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU of the host."""

    index: int | None = None
    """The driver's number; None for one that the driver does not have."""
    uuid: str | None = None
    name: str | None = None
    pci_address: str | None = None
    """As in sysfs: 0000:3b:00.0."""
    numa_node: int | None = None
    cores: int | None = None
    memory_total_bytes: int | None = None
    memory_used_bytes: int | None = None
    memory_free_bytes: int | None = None
    utilization_ratio: float | None = None
    """Share of the last moment in which something ran on it."""
    memory_utilization_ratio: float | None = None
    """Share of the last moment in which its memory was read or written."""
    encoder_ratio: float | None = None
    decoder_ratio: float | None = None
    temperature_c: int | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    ecc_corrected: int | None = None
    """Since the driver was loaded."""
    ecc_uncorrected: int | None = None
    processes: tuple[GpuProcess, ...] | None = None
    """None where nobody can tell."""
    mig_instances: tuple[MigInstance, ...] = ()
    mig_enabled: bool | None = None
    """Split into MIG instances, of which there may be none yet."""
    vgpus: tuple[Vgpu, ...] = ()
    is_passthrough: bool = False
    """Set aside for a VM of its own (bound to vfio): what runs on it, only that VM knows."""
    vm_uuids: tuple[str, ...] = ()
    """VMs that use it or a part of it, as far as can be told."""
    fault: str | None = None
    """Why it tells less than it should."""

    @property
    def name_for_use(self) -> str | None:
        """What a user asks for it by: its UUID, or the PCI address of one that is passed through."""
        return self.pci_address if self.is_passthrough or self.uuid is None else self.uuid


def is_idle(part: Gpu | MigInstance) -> bool:
    """True when it is known that no VM and no process uses this GPU or instance."""
    if part.fault is not None or part.vm_uuids:
        return False
    if isinstance(part, Gpu) and part.is_passthrough:
        return True
    return part.processes == ()


def idle_names(gpu: Gpu) -> tuple[str, ...]:
    """Names of what could be given to one more user: the whole GPU, or its idle MIG instances."""
    if gpu.mig_enabled and gpu.fault is None:
        if any(vgpu.gpu_instance is None for vgpu in gpu.vgpus):
            return ()
        return tuple(part.uuid for part in gpu.mig_instances if part.uuid is not None and is_idle(part))
    name = gpu.name_for_use
    return (name,) if name is not None and not gpu.vgpus and is_idle(gpu) else ()
