"""Prometheus text, read back by Prometheus' own parser."""

import dataclasses

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests import intervals

from vmpack.model.action import Outcome
from vmpack.model.guest import KernelCounts
from vmpack.model.interval import Interval
from vmpack.publish.metrics import GUEST_METRICS, HOST_METRICS, Metrics

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(metrics: Metrics) -> Samples:
    """Every sample by name and sorted labels; a name and label set that comes twice is an error."""
    found: Samples = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            key = sample.name, tuple(sorted(sample.labels.items()))
            assert key not in found
            found[key] = sample.value
    return found


def recorded(interval: Interval) -> Metrics:
    metrics = Metrics(intervals.VERSION)
    metrics.record(interval, observe_only=False, took_s=0.25)
    return metrics


def of_guest(index: int, **more: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted({"name": f"web-{index}", "uuid": intervals.uuid_of(index), **more}.items()))


def test_every_metric_of_the_table_is_there() -> None:
    """A dashboard built on a name finds it, with its unit in it."""
    told = {"kernel": KernelCounts(1.0, 40, 8, 2_500_000, 7), "huge_pages_ratio": 0.75}
    found = samples(recorded(intervals.interval(dataclasses.replace(intervals.guest(1), **told))))
    names = {name for name, _ in found}
    for metric in (*HOST_METRICS, *GUEST_METRICS):
        assert f"{metric.name}_{metric.unit}".rstrip("_") in names
    assert found["vmpack_guest_refaults", of_guest(1)] == 40
    assert found["vmpack_guest_stalled_seconds", of_guest(1)] == 2.5
    assert found["vmpack_guest_huge_pages_ratio", of_guest(1)] == 0.75


def test_values_are_those_of_the_interval() -> None:
    """Alerts on these numbers are alerts on the host."""
    turn = intervals.history_of(3)[-1][0]
    found = samples(recorded(turn))
    guest, plan = turn.snapshot.guests[1], turn.plan.guests[1]
    assert guest.stats is not None
    assert found["vmpack_host_budget_bytes", ()] == turn.plan.budget.budget_bytes
    assert found["vmpack_packed_bytes", ()] == turn.plan.offer.packed_bytes
    assert found["vmpack_host_pressure_some_ratio", ()] == 0.01
    assert found["vmpack_last_interval_duration_seconds", ()] == 0.25
    assert found["vmpack_last_interval_timestamp_seconds", ()] == turn.snapshot.wall_s
    assert found["vmpack_guest_balloon_bytes", of_guest(1)] == guest.balloon_bytes
    assert found["vmpack_guest_usable_bytes", of_guest(1)] == guest.stats.usable_bytes
    assert found["vmpack_guest_target_bytes", of_guest(1)] == plan.target_bytes
    assert found["vmpack_guest_verdict", of_guest(1, verdict=plan.verdict)] == 1


def test_what_is_not_known_is_left_out() -> None:
    """A guest without statistics must not look like one with no usable memory."""
    silent = dataclasses.replace(intervals.guest(1), stats=None, rss_bytes=None)
    turn = intervals.interval(silent)
    turn = dataclasses.replace(turn, snapshot=dataclasses.replace(turn.snapshot, pressure=None))
    names = {name for name, _ in samples(recorded(turn))}
    assert "vmpack_guest_balloon_bytes" in names
    absent = {"vmpack_guest_usable_bytes", "vmpack_guest_rss_bytes", "vmpack_host_pressure_some_ratio"}
    assert not absent & names


def test_counts_go_on() -> None:
    """Rates over these counters are how an administrator sees failing intervals and actions."""
    metrics = Metrics(intervals.VERSION)
    assert samples(metrics)["vmpack_intervals_total", ()] == 0
    turn = intervals.interval(intervals.guest(1), intervals.guest(2))
    one, other = turn.plan.actions[:2]
    turn = dataclasses.replace(turn, outcomes=(Outcome(one, "done"), Outcome(other, "failed", "refused")))
    for _ in range(3):
        metrics.record(turn, observe_only=True, took_s=0.1)
    metrics.record_failure()
    found = samples(metrics)
    assert found["vmpack_intervals_total", ()] == 3
    assert found["vmpack_failed_intervals_total", ()] == 1
    assert found["vmpack_actions_total", (("kind", one.kind), ("status", "done"))] == 3
    assert found["vmpack_actions_total", (("kind", other.kind), ("status", "failed"))] == 3
    assert found["vmpack_observe_only", ()] == 1


@pytest.mark.parametrize("name", ['a"} 1\nvmpack_packed_bytes 0', "back\\slash", "naïve 🐘", "{}=,", ""])
def test_guest_names_cannot_forge_samples(name: str) -> None:
    """A VM's owner chooses its name: it must stay one label value."""
    turn = intervals.interval(intervals.guest(1, name))
    found = samples(recorded(turn))
    assert ("vmpack_guest_balloon_bytes", (("name", name), ("uuid", intervals.uuid_of(1)))) in found
    assert found["vmpack_packed_bytes", ()] == turn.plan.offer.packed_bytes
    assert len([key for key in found if key[0] == "vmpack_packed_bytes"]) == 1


def test_an_undecodable_name_does_not_stop_the_scrape() -> None:
    """One VM with a broken name must not blind the monitoring of the host."""
    assert (
        "vmpack_guest_balloon_bytes"
        in recorded(intervals.interval(intervals.guest(1, "a\udcffb"))).render().decode()
    )
