"""The host's GPUs as OpenNebula's probes print them. Called by probe_text.py; pure.

Promises text that OpenNebula's parser takes whatever a device calls itself, and an explicit zero where there
is nothing: OpenNebula never forgets a name that was once printed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from vmpack.model.gpu import Gpu, MigInstance, Vgpu, idle_names
from vmpack.publish.quoting import quotable
from vmpack.units import MIB

_VM_NAMES = ("GPU_COUNT", "GPU_UTILIZATION", "GPU_MEMORY_UTILIZATION", "GPU_MEMORY_FREE", "GPU_POWER_USAGE")
NO_GPU = "".join(f"{name}=[ ]\n" for name in _VM_NAMES)
"""Takes from a VM what vm_values once told of it: OpenNebula drops a name that comes as an empty vector."""


def host_lines(gpus: Sequence[Gpu]) -> str:
    """Lines for host/system: totals, then one GPU=[...] for each GPU and MIG instance. Memory in MiB.

    GPU_IDLE counts what could be given to one more VM or program; GPU_FAULTS the GPUs that cannot be read.
    """
    totals = {
        "GPU_COUNT": len(gpus),
        "GPU_MIG_COUNT": sum(len(gpu.mig_instances) for gpu in gpus),
        "GPU_IDLE": sum(len(idle_names(gpu)) for gpu in gpus),
        "GPU_FAULTS": sum(gpu.fault is not None for gpu in gpus),
        "GPU_MEMORY_TOTAL": _mib(_sum(gpu.memory_total_bytes for gpu in gpus)),
        "GPU_MEMORY_USED": _mib(_sum(gpu.memory_used_bytes for gpu in gpus)),
        "GPU_UTILIZATION": _pct(_mean([gpu.utilization_ratio for gpu in gpus])),
        "GPU_POWER_USAGE": round(sum(gpu.power_w or 0.0 for gpu in gpus)),
    }
    lines = [f'{name}="{value or 0}"' for name, value in totals.items()]
    vectors = [
        _vector(values) for gpu in gpus for values in (_gpu(gpu), *(_mig(gpu, m) for m in gpu.mig_instances))
    ]
    return "\n".join([*lines, *(vectors or ["GPU=[ ]"])]) + "\n"


def vm_values(gpus: Sequence[Gpu], vm_uuid: str) -> dict[str, str]:
    """Values for one VM's MONITOR by name, with the units that OpenNebula's own probe gives them.

    Ratios are whole percent, memory is MiB, power is W. Empty when the VM has no GPU. Of GPUs that are passed
    through there is only the count: what they do, the guest itself tells OpenNebula. Else the figures are
    those of devices that are the VM's alone, for what others do on a shared one is not its own; 0 for none.
    """
    mine = [gpu for gpu in gpus if vm_uuid in gpu.vm_uuids]
    if not mine:
        return {}
    count = sum(_parts_of(gpu, vm_uuid) for gpu in mine)
    if all(gpu.is_passthrough for gpu in mine):
        return {"GPU_COUNT": str(count)}
    whole = [gpu for gpu in mine if _is_alone(gpu, vm_uuid)]
    migs = [part for gpu in mine for part in gpu.mig_instances if _is_users(part, vm_uuid)]
    vgpus = [part for gpu in mine for part in gpu.vgpus if part.vm_uuid == vm_uuid]
    utilizations = [gpu.utilization_ratio for gpu in whole] + [part.utilization_ratio for part in vgpus]
    free = [gpu.memory_free_bytes for gpu in whole] + [part.memory_free_bytes for part in migs]
    found = {
        "GPU_COUNT": count,
        "GPU_UTILIZATION": _pct(_mean(utilizations)),
        "GPU_MEMORY_UTILIZATION": _pct(_mean([gpu.memory_utilization_ratio for gpu in whole])),
        "GPU_MEMORY_FREE": _mib(_sum([*free, *map(_free, vgpus)])),
        "GPU_POWER_USAGE": _watts(_sum_power(whole)),
    }
    return {name: str(value or 0) for name, value in found.items()}


def _is_alone(gpu: Gpu, vm_uuid: str) -> bool:
    """True when nobody but this VM uses the GPU, and the VM uses it whole."""
    return _is_users(gpu, vm_uuid) and not (gpu.is_passthrough or gpu.mig_enabled or gpu.vgpus)


def _is_users(part: Gpu | MigInstance, vm_uuid: str) -> bool:
    others = any(process.vm_uuid != vm_uuid for process in part.processes or ())
    return part.vm_uuids == (vm_uuid,) and not others


def _parts_of(gpu: Gpu, vm_uuid: str) -> int:
    """How many devices the VM has of this GPU."""
    parts = sum(part.vm_uuid == vm_uuid for part in gpu.vgpus)
    return parts + sum(vm_uuid in part.vm_uuids for part in gpu.mig_instances) or 1


def _gpu(gpu: Gpu) -> Mapping[str, object]:
    return {
        "INDEX": gpu.index,
        "UUID": gpu.uuid,
        "NAME": gpu.name,
        "PCI_ADDRESS": gpu.pci_address,
        "NUMA_NODE": gpu.numa_node,
        "CORES": gpu.cores,
        "MEMORY_TOTAL": _mib(gpu.memory_total_bytes),
        "MEMORY_USED": _mib(gpu.memory_used_bytes),
        "UTILIZATION": _pct(gpu.utilization_ratio),
        "MEMORY_UTILIZATION": _pct(gpu.memory_utilization_ratio),
        "ENCODER": _pct(gpu.encoder_ratio),
        "DECODER": _pct(gpu.decoder_ratio),
        "TEMPERATURE": gpu.temperature_c,
        "POWER_USAGE": _watts(gpu.power_w),
        "POWER_LIMIT": _watts(gpu.power_limit_w),
        "ECC_CORRECTED": gpu.ecc_corrected,
        "ECC_UNCORRECTED": gpu.ecc_uncorrected,
        "PASSTHROUGH": "YES" if gpu.is_passthrough else None,
        "PROCESSES": None if gpu.processes is None else len(gpu.processes),
        "VMS": ",".join(gpu.vm_uuids),
        "FAULT": gpu.fault,
    }


def _mig(gpu: Gpu, part: MigInstance) -> Mapping[str, object]:
    return {
        "INDEX": f"{'' if gpu.index is None else gpu.index}:{part.index}",
        "UUID": part.uuid,
        "NAME": part.name,
        "PARENT": gpu.uuid or gpu.pci_address,
        "NUMA_NODE": gpu.numa_node,
        "MULTIPROCESSORS": part.multiprocessors,
        "MEMORY_TOTAL": _mib(part.memory_total_bytes),
        "MEMORY_USED": _mib(part.memory_used_bytes),
        "PROCESSES": None if part.processes is None else len(part.processes),
        "VMS": ",".join(part.vm_uuids),
        "FAULT": part.fault,
    }


def _vector(values: Mapping[str, object]) -> str:
    told = {name: value for name, value in values.items() if value is not None and value != ""}
    return "GPU=[ " + ", ".join(f'{name}="{quotable(value)}"' for name, value in told.items()) + " ]"


def _free(vgpu: Vgpu) -> int | None:
    if vgpu.memory_total_bytes is None or vgpu.memory_used_bytes is None:
        return None
    return max(0, vgpu.memory_total_bytes - vgpu.memory_used_bytes)


def _sum(amounts: Iterable[int | None]) -> int | None:
    known = [amount for amount in amounts if amount is not None]
    return sum(known) if known else None


def _sum_power(gpus: Sequence[Gpu]) -> float | None:
    known = [gpu.power_w for gpu in gpus if gpu.power_w is not None]
    return sum(known) if known else None


def _mean(ratios: Sequence[float | None]) -> float | None:
    known = [ratio for ratio in ratios if ratio is not None]
    return sum(known) / len(known) if known else None


def _mib(amount_bytes: int | None) -> int | None:
    return None if amount_bytes is None else amount_bytes // MIB


def _pct(ratio: float | None) -> int | None:
    return None if ratio is None else round(100 * ratio)


def _watts(power_w: float | None) -> int | None:
    return None if power_w is None else round(power_w)
