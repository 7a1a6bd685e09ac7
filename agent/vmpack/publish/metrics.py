"""What Prometheus sees of this host: one table of metrics, rendered from the newest interval.

Called by the publisher (textfile for node_exporter) and, from another thread, by the service (socket).
Each change replaces one frozen value, so a scrape sees an interval whole. What was not measured is
left out, never 0. prometheus-client costs 14 MB, so it is imported when first asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from vmpack.model.guest import GuestSnapshot
from vmpack.model.interval import Interval
from vmpack.model.plan import GuestPlan
from vmpack.publish.gpu_metrics import gpu_families
from vmpack.publish.vcpu_metrics import VcpuMetrics

if TYPE_CHECKING:
    from prometheus_client.core import Metric as Family


@dataclass(frozen=True, slots=True)
class Seen:
    """All that metrics are made of: the newest interval, and counts since the agent's start."""

    version: str
    observe_only: bool = False
    interval: Interval | None = None
    took_s: float = 0.0
    """How long the newest interval took, from observing to acting."""
    intervals: int = 0
    failed_intervals: int = 0
    actions: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Count by kind and status of the outcome."""


@dataclass(frozen=True, slots=True)
class Counter:
    """One count since the agent's start; shown as NAME_total."""

    name: str
    help: str
    value: Callable[[Seen], int]


@dataclass(frozen=True, slots=True)
class HostMetric:
    """One gauge of the host or the agent. None: not known now, so not shown."""

    name: str
    help: str
    unit: str
    value: Callable[[Seen, Interval], float | None]


@dataclass(frozen=True, slots=True)
class GuestMetric:
    """One gauge per VM."""

    name: str
    help: str
    unit: str
    value: Callable[[GuestSnapshot, GuestPlan | None], float | None]


HOST_METRICS = (
    HostMetric("vmpack_host_capacity", "Memory of the host, or of the smaller one that is pretended.",
               "bytes", lambda _, turn: turn.plan.budget.capacity_bytes),
    HostMetric("vmpack_host_budget", "Memory that the VMs may hold together.",
               "bytes", lambda _, turn: turn.plan.budget.budget_bytes),
    HostMetric("vmpack_host_reserve", "Memory kept free for the administrator.",
               "bytes", lambda _, turn: turn.plan.budget.reserve_bytes),
    HostMetric("vmpack_host_own", "Memory that the host itself uses.",
               "bytes", lambda _, turn: turn.plan.budget.host_own_bytes),
    HostMetric("vmpack_host_overhead", "Memory that the VM processes use beside their guests' memory.",
               "bytes", lambda _, turn: turn.plan.budget.overhead_bytes),
    HostMetric("vmpack_host_available", "MemAvailable of the host.",
               "bytes", lambda _, turn: turn.snapshot.memory_available_bytes),
    HostMetric("vmpack_packed", "Sum over VMs of nominal minus balloon.",
               "bytes", lambda _, turn: turn.plan.offer.packed_bytes),
    HostMetric("vmpack_offered", "Memory that the host can promise beyond what it has promised.",
               "bytes", lambda _, turn: turn.plan.offer.memory_bytes),
    HostMetric("vmpack_growth_reserve", "Memory kept for what the VMs may need more within offer.reaction_s.",
               "bytes", lambda _, turn: turn.plan.offer.growth_reserve_bytes),
    HostMetric("vmpack_growth_reserve_lacking", "What is lacking of that: VMs of this need should leave.",
               "bytes", lambda _, turn: turn.plan.offer.lacking_bytes),
    HostMetric("vmpack_host_pressure_some", "Share of the last 10 s in which some task waited for memory.",
               "ratio",
               lambda _, turn: turn.snapshot.pressure.some_avg10_ratio if turn.snapshot.pressure else None),
    HostMetric("vmpack_host_pressure_full", "Share of the last 10 s in which all tasks waited for memory.",
               "ratio",
               lambda _, turn: turn.snapshot.pressure.full_avg10_ratio if turn.snapshot.pressure else None),
    HostMetric("vmpack_guests_unreadable", "VMs that exist but told nothing in the newest interval.",
               "", lambda _, turn: len(turn.snapshot.unreadable)),
    HostMetric("vmpack_migration_deficit", "Memory that the host lacks and ballooning cannot find.",
               "bytes", lambda _, turn: turn.plan.migration.deficit_bytes if turn.plan.migration else 0),
    HostMetric("vmpack_braked", "1 while the host itself runs short of memory and comfort is taken back.",
               "", lambda _, turn: int(any(why.rule == "host_runs_short" for why in turn.plan.reasons))),
    HostMetric("vmpack_frozen", "1 while the administrator has stopped all changes on this host.",
               "", lambda _, turn: int(turn.snapshot.frozen)),
    HostMetric("vmpack_observe_only", "1 when the agent only watches and says what it would do.",
               "", lambda seen, _: int(seen.observe_only)),
    HostMetric("vmpack_last_interval_duration", "How long the newest interval took.",
               "seconds", lambda seen, _: seen.took_s),
    HostMetric("vmpack_last_interval_timestamp", "Unix time of the newest interval that went through.",
               "seconds", lambda _, turn: turn.snapshot.wall_s),
)  # fmt: skip

GUEST_METRICS = (
    GuestMetric("vmpack_guest_nominal", "What the VM's owner was promised.",
                "bytes", lambda guest, _: guest.nominal_bytes),
    GuestMetric("vmpack_guest_balloon", "What the VM has now.",
                "bytes", lambda guest, _: guest.balloon_bytes),
    GuestMetric("vmpack_guest_usable", "What the guest could take without swapping.",
                "bytes", lambda guest, _: guest.stats.usable_bytes if guest.stats else None),
    GuestMetric("vmpack_guest_rss", "Resident memory of the VM's process.",
                "bytes", lambda guest, _: guest.rss_bytes),
    GuestMetric("vmpack_guest_used", "What the guest uses.",
                "bytes", lambda _, plan: plan.used_bytes if plan else None),
    GuestMetric("vmpack_guest_target", "What the balloon is wanted to be.",
                "bytes", lambda _, plan: plan.target_bytes if plan else None),
    GuestMetric("vmpack_guest_oom_kills", "OOM kills inside the guest since its boot.",
                "", lambda guest, _: guest.oom_kills),
    GuestMetric("vmpack_guest_refaults", "Pages that the guest had to read again, since its boot.",
                "", lambda guest, _: guest.kernel.refaults if guest.kernel else None),
    GuestMetric("vmpack_guest_allocation_stalls", "Waits of the guest's programs until memory was freed.",
                "", lambda guest, _: guest.kernel.allocation_stalls if guest.kernel else None),
    GuestMetric("vmpack_guest_stalled", "Time in which a program in the guest waited for memory.",
                "seconds", lambda guest, _: _seconds(guest.kernel.stalled_some_us) if guest.kernel else None),
    GuestMetric("vmpack_guest_huge_pages", "Part of its resident memory that the host maps as huge pages.",
                "ratio", lambda guest, _: guest.huge_pages_ratio),
    GuestMetric("vmpack_guest_floor", "The balloon never goes below this.",
                "bytes", lambda _, plan: plan.floor_bytes if plan else None),
)  # fmt: skip

COUNTERS = (
    Counter("vmpack_intervals", "Intervals that went through since the agent's start.",
            lambda seen: seen.intervals),
    Counter("vmpack_failed_intervals", "Intervals that failed since the agent's start.",
            lambda seen: seen.failed_intervals),
)  # fmt: skip


class Metrics:
    """Keeps the newest interval and the counts; `render` makes Prometheus text of them."""

    def __init__(self, version: str) -> None:
        self._seen = Seen(version)
        self.vcpus = VcpuMetrics()
        """Fed by the vCPU loop."""

    def record(self, interval: Interval, observe_only: bool, took_s: float) -> None:
        """Take in an interval that went through."""
        seen = self._seen
        actions = dict(seen.actions)
        for outcome in interval.outcomes:
            key = outcome.action.kind, outcome.status
            actions[key] = actions.get(key, 0) + 1
        self._seen = replace(
            seen,
            observe_only=observe_only,
            interval=interval,
            took_s=took_s,
            intervals=seen.intervals + 1,
            actions=actions,
        )

    def record_failure(self) -> None:
        """Count an interval that failed."""
        self._seen = replace(self._seen, failed_intervals=self._seen.failed_intervals + 1)

    def render(self) -> bytes:
        """Prometheus text format, UTF-8. Before the first interval only the counts are there."""
        from prometheus_client import CollectorRegistry, generate_latest
        from prometheus_client.registry import Collector

        seen, vcpus = self._seen, self.vcpus

        class Once(Collector):
            def collect(self) -> Iterator[Family]:
                yield from _families(seen)
                yield from vcpus.families()

        registry = CollectorRegistry(auto_describe=False)
        registry.register(Once())
        return generate_latest(registry)


def _families(seen: Seen) -> Iterator[Family]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily

    yield InfoMetricFamily("vmpack_agent", "The agent that tells this.", {"version": seen.version})
    for counter in COUNTERS:
        yield CounterMetricFamily(counter.name, counter.help, counter.value(seen))
    actions = CounterMetricFamily("vmpack_actions", "Actions by kind and outcome.", labels=("kind", "status"))
    for labels, count in sorted(seen.actions.items()):
        actions.add_metric(labels, count)
    yield actions
    if seen.interval is None:
        return
    for metric in HOST_METRICS:
        value = metric.value(seen, seen.interval)
        if value is not None:
            yield GaugeMetricFamily(metric.name, metric.help, value, unit=metric.unit)
    yield from _guest_families(seen.interval)
    yield from gpu_families(seen.interval.snapshot.gpus)


def _guest_families(interval: Interval) -> Iterator[Family]:
    from prometheus_client.core import GaugeMetricFamily

    plans = {plan.uuid: plan for plan in interval.plan.guests}
    for metric in GUEST_METRICS:
        family = GaugeMetricFamily(metric.name, metric.help, labels=("name", "uuid"), unit=metric.unit)
        for guest in interval.snapshot.guests:
            value = metric.value(guest, plans.get(guest.uuid))
            if value is not None:
                family.add_metric(_labels(guest), value)
        yield family
    verdict = GaugeMetricFamily(
        "vmpack_guest_verdict", "1 for what was decided.", labels=("name", "uuid", "verdict")
    )
    for guest in interval.snapshot.guests:
        if guest.uuid in plans:
            verdict.add_metric([*_labels(guest), plans[guest.uuid].verdict], 1)
    yield verdict


def _seconds(microseconds: int | None) -> float | None:
    return None if microseconds is None else microseconds / 1e6


def _labels(guest: GuestSnapshot) -> list[str]:
    return [text.encode(errors="replace").decode() for text in (guest.name, guest.uuid)]
