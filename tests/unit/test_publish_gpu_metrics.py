"""GPUs in Prometheus text, read back by Prometheus' own parser."""

from __future__ import annotations

import dataclasses

from prometheus_client.parser import text_string_to_metric_families
from tests import intervals
from tests.unit.test_publish_gpu_text import APART, BUSY, IDLE, LOST, SPLIT

from vmpack.model.gpu import Gpu
from vmpack.publish.gpu_metrics import GPU_METRICS, MIG_METRICS
from vmpack.publish.metrics import Metrics
from vmpack.units import GIB

Samples = dict[tuple[str, str], float]


def samples(*gpus: Gpu) -> Samples:
    """Values of the GPU metrics by name and GPU (or MIG instance)."""
    turn = intervals.interval(intervals.guest())
    turn = dataclasses.replace(turn, snapshot=dataclasses.replace(turn.snapshot, gpus=gpus))
    metrics = Metrics(intervals.VERSION)
    metrics.record(turn, observe_only=False, took_s=0.25)
    return {
        (sample.name, sample.labels.get("mig") or sample.labels["gpu"]): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        if family.name.startswith("vmpack_gpu_")
        for sample in family.samples
    }


def test_every_metric_is_there_with_its_unit() -> None:
    """A dashboard built on a name finds it."""
    full = dataclasses.replace(BUSY, decoder_ratio=0.5, ecc_corrected=3)
    names = {name for name, _ in samples(full, SPLIT)}
    for metric in (*GPU_METRICS, *MIG_METRICS):
        assert f"{metric.name}_{metric.unit}".rstrip("_") in names


def test_values_are_the_gpus() -> None:
    """Alerts on these numbers are alerts on the hardware."""
    found = samples(BUSY, IDLE, SPLIT)
    assert found["vmpack_gpu_utilization_ratio", "GPU-0"] == 0.375
    assert found["vmpack_gpu_memory_used_bytes", "GPU-0"] == 20 * GIB + 1
    assert found["vmpack_gpu_power_watts", "GPU-0"] == 210.4
    assert (found["vmpack_gpu_idle", "GPU-0"], found["vmpack_gpu_idle", "GPU-1"]) == (0, 1)
    assert found["vmpack_gpu_mig_memory_used_bytes", "MIG-0"] == GIB


def test_what_is_not_known_is_left_out() -> None:
    """A lost GPU that shows 0 degrees and 0 % looks like a healthy idle one."""
    found = samples(LOST, APART)
    assert found["vmpack_gpu_fault", "GPU-2"] == 1
    assert ("vmpack_gpu_utilization_ratio", "GPU-2") not in found
    assert ("vmpack_gpu_temperature_celsius", "GPU-2") not in found
    assert found["vmpack_gpu_vms", "0000:5e:00.0"] == 1


def test_a_host_without_gpus_has_no_such_metrics() -> None:
    """Most hosts have none; empty families would be noise on every scrape."""
    assert samples() == {}


def test_a_strange_name_is_only_a_label() -> None:
    """One device's name must not cost the host all its metrics."""
    assert (
        samples(dataclasses.replace(BUSY, name='a"\n\udcff\\'))["vmpack_gpu_utilization_ratio", "GPU-0"]
        == 0.375
    )
