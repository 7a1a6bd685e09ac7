"""Guests' reports: a guest may send anything, and only what is possible gets through."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmpack.model.guest import MemoryStats
from vmpack.observe.balloon_stats import Sighting, date_report, read_stats
from vmpack.units import KIB, MIB

# As libvirt 9.0 gave it for a real 256 MiB guest.
REPORT = {
    "balloon.current": 262144, "balloon.maximum": 262144,
    "balloon.swap_in": 0, "balloon.swap_out": 8, "balloon.major_fault": 3, "balloon.minor_fault": 7513,
    "balloon.unused": 192164, "balloon.available": 223632, "balloon.usable": 195412,
    "balloon.last-update": 1795174568, "balloon.disk_caches": 2872, "balloon.rss": 234540,
}  # fmt: skip
NOMINAL = 256 * MIB


def test_a_real_report_is_read_in_bytes():
    """Every decision stands on these numbers; a unit mixed up makes them a thousand times too small."""
    stats, fault = read_stats(REPORT, NOMINAL, 7.0)

    assert fault is None
    assert stats == MemoryStats(
        sampled_s=7.0,
        available_bytes=223632 * KIB,
        usable_bytes=195412 * KIB,
        unused_bytes=192164 * KIB,
        caches_bytes=2872 * KIB,
        swap_in_bytes=0,
        swap_out_bytes=8 * KIB,
        major_faults=3,
        minor_faults=7513,
    )


@pytest.mark.parametrize(
    "change",
    [
        {"balloon.usable": -1},
        {"balloon.usable": 223633},
        {"balloon.unused": 223633},
        {"balloon.unused": "many"},
        {"balloon.available": 0, "balloon.usable": 0, "balloon.unused": 0},
        {"balloon.available": 262145},
        {"balloon.available": 2**64 - 1},
        {"balloon.usable": 1.5},
        {"balloon.usable": True},
        {"balloon.swap_in": -5},
        {"balloon.disk_caches": 2**70},
    ],
)
def test_an_impossible_report_is_thrown_away_with_a_reason(change):
    """A lying guest would be packed by its lie, or take its neighbours' memory."""
    stats, fault = read_stats(REPORT | change, NOMINAL, 7.0)

    assert stats is None
    assert fault


def test_a_driver_that_does_not_say_what_is_usable_is_named():
    """doctor could not tell an old guest kernel from a guest that is just booting."""
    old = {key: value for key, value in REPORT.items() if key != "balloon.usable"}
    booting = {"balloon.current": 262144, "balloon.last-update": 0, "balloon.rss": 1}

    assert read_stats(old, NOMINAL, 7.0) == (None, "the driver does not report what is usable")
    assert read_stats(booting, NOMINAL, 7.0) == (None, None)
    assert date_report(booting, None, 7.0, 1795174568.0) == (None, None)


@given(st.dictionaries(st.sampled_from(sorted(REPORT)), st.integers() | st.text() | st.none() | st.floats()))
def test_what_gets_through_is_always_possible(change):
    """Whatever a guest sends, decide must not see numbers that cannot be."""
    stats, fault = read_stats(REPORT | change, NOMINAL, 7.0)

    assert stats is None or fault is None
    if stats is not None:
        assert 0 <= stats.usable_bytes <= stats.available_bytes <= NOMINAL
        assert stats.unused_bytes is None or 0 <= stats.unused_bytes <= stats.available_bytes


def stamped(stamp: object) -> dict[str, object]:
    return {"balloon.last-update": stamp}


def test_a_report_is_dated_on_the_monotonic_clock():
    """Ages would be wrong by the seconds since boot."""
    sighting, fault = date_report(stamped(1000), None, time_s=50.0, wall_s=1003.0)

    assert (sighting, fault) == (Sighting(1000, 47.0, 50.0), None)


def test_the_same_report_keeps_its_date_when_the_clock_is_stepped():
    """Each correction of the host's clock would make all guests look silent, and be given their nominal."""
    first, _ = date_report(stamped(1000), None, time_s=50.0, wall_s=1003.0)

    forward, _ = date_report(stamped(1000), first, time_s=52.0, wall_s=4605.0)
    back, _ = date_report(stamped(1000), first, time_s=52.0, wall_s=5.0)

    assert forward is not None and forward.sampled_s == 47.0
    assert back is not None and back.sampled_s == 47.0


@given(stamp=st.integers(1, 2**33), wall_s=st.floats(0, 2**33), later_wall_s=st.floats(0, 2**33))
def test_a_report_is_never_from_the_future_and_a_new_one_never_old(stamp, wall_s, later_wall_s):
    """A negative age would break every comparison; a fresh report taken for an old one is silence."""
    first, _ = date_report(stamped(stamp), None, time_s=50.0, wall_s=wall_s)
    assert first is None or first.sampled_s <= 50.0

    later, fault = date_report(stamped(stamp + 5), first, time_s=55.0, wall_s=later_wall_s)
    if first is not None:
        assert fault is None and later is not None
        assert 49.0 <= later.sampled_s <= 55.0


@pytest.mark.parametrize("stamp", [-1, "soon", 2**80, 1.5, 1795174574])
def test_an_impossible_date_is_a_fault(stamp):
    """A report from the future would count as fresh for ever."""
    sighting, fault = date_report(stamped(stamp), None, time_s=50.0, wall_s=1795174568.0)

    assert sighting is None
    assert fault
