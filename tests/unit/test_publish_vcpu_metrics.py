"""Prometheus text of vCPUs, read back by Prometheus' own parser."""

from __future__ import annotations

import dataclasses

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.cli_samples import WALL_S
from tests.vcpu_samples import pcpus, pinned, status, vm

from vmpack.model.vcpu import VcpuStatus
from vmpack.publish.metrics import Metrics
from vmpack.publish.vcpu_metrics import VCPU_METRICS

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(metrics: Metrics) -> Samples:
    """Every sample by name and sorted labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }


def told(*statuses: VcpuStatus) -> Samples:
    metrics = Metrics("1")
    for one in statuses:
        metrics.vcpus.publish(one)
    return samples(metrics)


def crowded(name: str = "web") -> VcpuStatus:
    """Four busy vCPUs of two VMs on one of two pCPUs; two are moved."""
    two = [pinned(number, 0, 0.25, 0.75) for number in range(2)]
    return status(pcpus(2), vm(name, *two), vm("db", *two))


def of_vm(name: str) -> tuple[tuple[str, str], ...]:
    return ("name", name), ("uuid", f"uuid-of-{name}")


def test_values_are_those_of_the_turn() -> None:
    """Alerts on these numbers are alerts on the host."""
    found = told(crowded())

    assert found["vmpack_pcpu_load_ratio", (("pcpu", "0"),)] == 4.0
    assert found["vmpack_pcpu_load_ratio", (("pcpu", "1"),)] == 0.0
    assert found["vmpack_pcpu_load_std_points", ()] == pytest.approx(200)
    assert found["vmpack_vcpu_pins", ()] == 4 and found["vmpack_vcpus", ()] == 4
    assert found["vmpack_vcpu_last_look_timestamp_seconds", ()] == WALL_S
    assert found["vmpack_guest_vcpu_wait_ratio", of_vm("web")] == pytest.approx(1.5)
    assert found["vmpack_guest_vcpu_demand_ratio", of_vm("web")] == pytest.approx(2.0)


def test_every_metric_of_the_table_is_there() -> None:
    """A dashboard built on a name finds it, with its unit in it."""
    names = {name for name, _ in told(crowded())}

    assert {f"{metric.name}_{metric.unit}".rstrip("_") for metric in VCPU_METRICS} <= names


def test_changes_are_counted_once_each() -> None:
    """A loop that never comes to rest shows in their rate; told twice, rest would look like unrest."""
    first = crowded()
    assert first.interval is not None
    turn = first.interval
    failed = tuple(dataclasses.replace(one, status="failed") for one in turn.outcomes)
    second = dataclasses.replace(first, interval=dataclasses.replace(turn, number=3, outcomes=failed))

    found = told(first, first, second, dataclasses.replace(second, last_error="busy"))

    assert found["vmpack_pin_changes_total", (("status", "done"),)] == 2
    assert found["vmpack_pin_changes_total", (("status", "failed"),)] == 2
    assert found["vmpack_pin_changes_total", (("status", "skipped"),)] == 0


def test_nothing_is_told_before_the_first_turn() -> None:
    """An agent without a vCPU loop must not look like a host without load."""
    assert not [name for name, _ in told() if "cpu" in name]
    assert not [name for name, _ in told(VcpuStatus("group", 10.0, False, None, None)) if "cpu" in name]


def test_series_do_not_grow_with_vcpus() -> None:
    """A series per vCPU would bury a monitoring server under a few hosts."""
    few = status(pcpus(2), vm("web", pinned(0, 0, 0.1)))
    many = status(pcpus(2), vm("web", *(pinned(number, 0, 0.001) for number in range(64))))

    assert len(told(few)) == len(told(many))


@pytest.mark.parametrize("name", ['a"} 1\nvmpack_vcpu_pins 0', "back\\slash", "naïve 🐘", "a\udcffb"])
def test_vm_names_cannot_forge_samples(name: str) -> None:
    """A VM's owner chooses its name: it must stay one label value, and must not stop the scrape."""
    found = told(crowded(name))

    assert found["vmpack_vcpu_pins", ()] == 4
    assert len([key for key in found if key[0] == "vmpack_guest_vcpu_wait_ratio"]) == 2
