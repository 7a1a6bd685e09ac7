"""The soak's own judgement: one that overlooks a leak, or plans other events for its seed, proves nothing."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest
from tests.intervals import interval
from tests.soak.churn import NORMAL_EVERY_S, events, phases
from tests.soak.vitals import Vitals, growths
from tests.soak.watch import BudgetKept, Counts

from vmpack.units import KIB, MIB

SAMPLE = Vitals(
    at_s=0.0, pid=7, rss_bytes=40 * MIB, descriptors=10, threads=4, state_bytes=KIB, state_files=3,
    journal_bytes=KIB, run_bytes=KIB, run_files=20, connections=2,
)  # fmt: skip


def samples(pid: int, begin_s: float, count: int, leak_bytes: int = 0) -> list[Vitals]:
    return [
        dataclasses.replace(
            SAMPLE, pid=pid, at_s=begin_s + 10.0 * n, rss_bytes=SAMPLE.rss_bytes + n * leak_bytes
        )
        for n in range(count)
    ]


def test_the_same_seed_gives_the_same_churn():
    """A soak that failed could not be repeated."""
    times = phases(2.0)

    assert events(5, 10.0, times) == events(5, 10.0, times) != events(6, 10.0, times)


def test_churn_comes_at_its_rate_and_never_in_a_calm_phase():
    """A soak with fewer events than it says, or with some in the calm, would be believed for nothing."""
    times = phases(2.0)
    found = events(1, 10.0, times)

    assert [(phase.calm, phase.begin_s, phase.settled_s) for phase in times] == [
        (False, 0.0, 300.0), (True, 1800.0, 2100.0), (False, 3600.0, 3900.0), (True, 5400.0, 5700.0)
    ]  # fmt: skip
    assert Counter(event.kind for event in found) == {
        kind: round(3600 * 10 / every_s) for kind, every_s in NORMAL_EVERY_S.items()
    }
    calm = [phase for phase in times if phase.calm]
    assert not [e for e in found for phase in calm if phase.begin_s <= e.at_s < phase.end_s]
    assert all(event.at_s < 1800 for event in found if event.kind == "restart")


@pytest.mark.parametrize("hours", [0.05, 0.5, 24.0])
def test_every_soak_has_churn_of_every_kind_and_calm(hours):
    """A short trial would pass without having tried half of it."""
    times = phases(hours)

    assert times[0].calm is False and times[-1].calm is True
    assert times[-1].end_s == pytest.approx(hours * 3600)
    assert {event.kind for event in events(1, 10.0, times)} == set(NORMAL_EVERY_S)


def test_a_leak_in_one_life_is_found_and_a_steady_agent_is_not_blamed():
    """A leak of 6 MiB an hour ends a host's agent in weeks; a false alarm ends the trust in this test."""
    steady = growths(samples(1, 0.0, 60) + samples(2, 600.0, 360))
    leaking = growths(samples(1, 0.0, 60) + samples(2, 600.0, 360, leak_bytes=20 * KIB))

    assert not [figure for figures in steady.values() for figure in figures if figure.grew]
    assert [figure.name for figure in leaking["longest_life"] if figure.grew] == ["rss_bytes"]


def test_what_is_left_behind_by_restarts_is_found():
    """Files or connections that each agent leaves to the next one fill a disk, or libvirt."""
    piled = [
        dataclasses.replace(sample, connections=2 + life)
        for life in range(4)
        for sample in samples(life, 300.0 * life, 30)
    ]

    assert [figure.name for figure in growths(piled)["all_lives"] if figure.grew] == ["connections"]


def test_too_few_samples_show_nothing():
    """Three samples of a minute would be called a trend."""
    assert growths(samples(1, 0.0, 14))["longest_life"] == ()


def test_counters_go_on_over_restarts():
    """Actions of an agent that ended would be forgotten, and a restart in the calm would hide them."""
    counts = Counts()
    counts.take('vmpack_intervals_total 7.0\nvmpack_actions_total{kind="a",status="done"} 2.0\n')
    counts.take('vmpack_actions_total{kind="a",status="done"} 3.0\nvmpack_actions_total{kind="b"} 1.0\n')
    counts.agent_ended()
    counts.take("vmpack_actions_total 5.0\n")

    assert counts["actions"] == 9


def test_a_host_that_stays_over_its_budget_is_found():
    """The worst outcome of all is a host that runs out of memory."""
    turn = interval()

    def at(time_s: float, room_bytes: int):
        snapshot = dataclasses.replace(turn.snapshot, time_s=time_s)
        return dataclasses.replace(
            turn, snapshot=snapshot, plan=dataclasses.replace(turn.plan, room_bytes=room_bytes)
        )

    brief, lasting, full = BudgetKept(), BudgetKept(), BudgetKept()
    for time_s, room_bytes in ((0.0, 0), (5.0, -90 * MIB), (15.0, 0), (70.0, -MIB), (75.0, -9 * MIB)):
        brief.take(at(time_s, room_bytes), 0)
    for time_s in range(0, 70, 5):
        lasting.take(at(time_s, -9 * MIB), 0)
    full.take(at(0.0, 0), turn.plan.budget.capacity_bytes + 1)

    assert (brief.is_broken, lasting.is_broken, full.is_broken) == (False, True, True)
    assert (brief.lowest_room_bytes, brief.longest_over_s) == (-90 * MIB, 0.0)
