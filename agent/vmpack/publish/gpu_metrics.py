"""What Prometheus sees of this host's GPUs. Called by metrics.py; what a device does not tell is left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vmpack.model.gpu import Gpu, MigInstance, is_idle

if TYPE_CHECKING:
    from prometheus_client.core import Metric as Family


@dataclass(frozen=True, slots=True)
class GpuMetric:
    """One gauge per GPU."""

    name: str
    help: str
    unit: str
    value: Callable[[Gpu], float | None]


@dataclass(frozen=True, slots=True)
class MigMetric:
    """One gauge per MIG instance."""

    name: str
    help: str
    unit: str
    value: Callable[[MigInstance], float | None]


GPU_METRICS = (
    GpuMetric("vmpack_gpu_memory_total", "Memory of the GPU.", "bytes", lambda gpu: gpu.memory_total_bytes),
    GpuMetric("vmpack_gpu_memory_used", "Memory of the GPU that is in use.",
              "bytes", lambda gpu: gpu.memory_used_bytes),
    GpuMetric("vmpack_gpu_utilization", "Share of the last moment in which something ran on the GPU.",
              "ratio", lambda gpu: gpu.utilization_ratio),
    GpuMetric("vmpack_gpu_memory_utilization",
              "Share of the last moment in which the GPU's memory was read or written.",
              "ratio", lambda gpu: gpu.memory_utilization_ratio),
    GpuMetric("vmpack_gpu_encoder", "Share of the last moment in which the encoder worked.",
              "ratio", lambda gpu: gpu.encoder_ratio),
    GpuMetric("vmpack_gpu_decoder", "Share of the last moment in which the decoder worked.",
              "ratio", lambda gpu: gpu.decoder_ratio),
    GpuMetric("vmpack_gpu_temperature", "Temperature of the GPU.", "celsius", lambda gpu: gpu.temperature_c),
    GpuMetric("vmpack_gpu_power", "Power that the GPU draws.", "watts", lambda gpu: gpu.power_w),
    GpuMetric("vmpack_gpu_power_limit", "Power that the GPU may draw.",
              "watts", lambda gpu: gpu.power_limit_w),
    GpuMetric("vmpack_gpu_ecc_corrected", "ECC errors that were corrected since the driver was loaded.",
              "", lambda gpu: gpu.ecc_corrected),
    GpuMetric("vmpack_gpu_ecc_uncorrected", "ECC errors that were not corrected since the driver was loaded.",
              "", lambda gpu: gpu.ecc_uncorrected),
    GpuMetric("vmpack_gpu_processes", "Processes that use the GPU.",
              "", lambda gpu: None if gpu.processes is None else len(gpu.processes)),
    GpuMetric("vmpack_gpu_vms", "VMs that use the GPU or a part of it.", "", lambda gpu: len(gpu.vm_uuids)),
    GpuMetric("vmpack_gpu_idle", "1 when it is known that nobody uses the GPU.",
              "", lambda gpu: int(is_idle(gpu))),
    GpuMetric("vmpack_gpu_fault", "1 while the GPU cannot be read.",
              "", lambda gpu: int(gpu.fault is not None)),
)  # fmt: skip

MIG_METRICS = (
    MigMetric("vmpack_gpu_mig_memory_total", "Memory of the MIG instance.",
              "bytes", lambda part: part.memory_total_bytes),
    MigMetric("vmpack_gpu_mig_memory_used", "Memory of the MIG instance that is in use.",
              "bytes", lambda part: part.memory_used_bytes),
    MigMetric("vmpack_gpu_mig_processes", "Processes that use the MIG instance.",
              "", lambda part: None if part.processes is None else len(part.processes)),
    MigMetric("vmpack_gpu_mig_idle", "1 when it is known that nobody uses the MIG instance.",
              "", lambda part: int(is_idle(part))),
)  # fmt: skip


def gpu_families(gpus: Sequence[Gpu]) -> Iterator[Family]:
    """All gauges of these GPUs; none where there is no GPU. A GPU is labelled by UUID, else PCI address."""
    from prometheus_client.core import GaugeMetricFamily

    for metric in GPU_METRICS if gpus else ():
        family = GaugeMetricFamily(
            metric.name, metric.help, labels=("gpu", "index", "model"), unit=metric.unit
        )
        for gpu in gpus:
            value = metric.value(gpu)
            if value is not None:
                family.add_metric([_label(gpu), _text(gpu.index), _text(gpu.name)], value)
        yield family
    for part_metric in MIG_METRICS if any(gpu.mig_instances for gpu in gpus) else ():
        family = GaugeMetricFamily(
            part_metric.name, part_metric.help, labels=("gpu", "mig"), unit=part_metric.unit
        )
        for gpu in gpus:
            for part in gpu.mig_instances:
                value = part_metric.value(part)
                if value is not None:
                    family.add_metric([_label(gpu), part.uuid or str(part.index)], value)
        yield family


def _label(gpu: Gpu) -> str:
    return gpu.uuid or gpu.pci_address or _text(gpu.index)


def _text(value: object) -> str:
    return "" if value is None else str(value).encode(errors="replace").decode()
