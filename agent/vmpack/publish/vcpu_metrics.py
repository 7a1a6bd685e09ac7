"""What Prometheus sees of this host's vCPUs and pCPUs: rendered from the vCPU loop's newest answer.

`publish` is called by the vCPU loop after each turn, `families` by metrics.py from other threads. Waiting is
told per VM and not per vCPU, so that the number of series stays that of VMs and pCPUs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vmpack.model.vcpu import VcpuInterval, VcpuStatus

if TYPE_CHECKING:
    from prometheus_client.core import Metric as Family


@dataclass(frozen=True, slots=True)
class VcpuMetric:
    """One gauge of the host."""

    name: str
    help: str
    unit: str
    value: Callable[[VcpuInterval], float]


VCPU_METRICS = (
    VcpuMetric("vmpack_pcpu_load_std", "Standard deviation of the pCPUs' loads, in points of 0.01.",
               "points", lambda turn: turn.plan.std_points_before),
    VcpuMetric("vmpack_vcpu_pins", "vCPUs that vmpack has pinned now.",
               "", lambda turn: sum(vcpu.mask_of == "vmpack" for vm in turn.vms_now() for vcpu in vm.vcpus)),
    VcpuMetric("vmpack_vcpus", "vCPUs of all VMs.",
               "", lambda turn: sum(len(vm.vcpus) for vm in turn.snapshot.vms)),
    VcpuMetric("vmpack_vcpu_last_look_timestamp", "Unix time of the newest look at the vCPUs.",
               "seconds", lambda turn: turn.snapshot.wall_s),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SeenVcpus:
    """The newest turn, and counts since the agent's start."""

    turn: VcpuInterval | None = None
    changes: Mapping[str, int] = field(default_factory=dict)
    """Count by status of the outcome."""


class VcpuMetrics:
    """Keeps the newest turn and the counts. A change replaces one frozen value, so a scrape sees it whole."""

    def __init__(self) -> None:
        self._seen = SeenVcpus()

    def publish(self, status: VcpuStatus) -> None:
        """Take in what the vCPU loop says; a turn that was told before is not counted again."""
        turn, seen = status.interval, self._seen
        if turn is None or (seen.turn is not None and seen.turn.number == turn.number):
            return
        changes = dict(seen.changes)
        for outcome in turn.outcomes:
            changes[outcome.status] = changes.get(outcome.status, 0) + 1
        self._seen = SeenVcpus(turn, changes)

    def families(self) -> Iterator[Family]:
        """All that there is to tell; nothing before the first turn."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        seen = self._seen
        if seen.turn is None:
            return
        changes = CounterMetricFamily(
            "vmpack_pin_changes", "Changes of pins since the agent's start, by outcome.", labels=("status",)
        )
        for status in ("done", "failed", "skipped"):
            changes.add_metric([status], seen.changes.get(status, 0))
        yield changes
        for metric in VCPU_METRICS:
            yield GaugeMetricFamily(metric.name, metric.help, metric.value(seen.turn), unit=metric.unit)
        yield from _labelled(seen.turn)


def _labelled(turn: VcpuInterval) -> Iterator[Family]:
    from prometheus_client.core import GaugeMetricFamily

    load = GaugeMetricFamily(
        "vmpack_pcpu_load",
        "What a pCPU's vCPUs want, over its capacity; above 1 they must wait.",
        labels=("pcpu",),
        unit="ratio",
    )
    for pcpu in turn.plan.pcpus:
        load.add_metric([str(pcpu.number)], pcpu.before_ratio)
    yield load
    names = ("name", "uuid")
    wait = GaugeMetricFamily(
        "vmpack_guest_vcpu_wait",
        "Sum over the VM's vCPUs: share of the time in which one was ready and did not run.",
        labels=names,
        unit="ratio",
    )
    demand = GaugeMetricFamily(
        "vmpack_guest_vcpu_demand", "pCPUs that the VM's vCPUs want together.", labels=names, unit="ratio"
    )
    for vm in turn.plan.vms:
        labels = [text.encode(errors="replace").decode() for text in (vm.name, vm.uuid)]
        wait.add_metric(labels, sum(vm.wait_ratios))
        demand.add_metric(labels, sum(vm.demand_ratios))
    yield from (wait, demand)
