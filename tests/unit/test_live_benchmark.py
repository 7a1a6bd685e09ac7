"""What the live benchmark tells guests to need, what it shows a rival's rule, and how it adds up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.benchmarks.live.course import Change, Course, course, need_bytes
from tests.benchmarks.live.measure import Sample, held_bytes, sums
from tests.benchmarks.live.rival import Eyes
from tests.benchmarks.live_memory import compared
from tests.builders import KERNEL_MIB, guest, host

from vmpack.units import MIB

CHANGES = [Change(-10, 100 * MIB, 50 * MIB), Change(20, 160 * MIB, 10 * MIB), Change(40, 30 * MIB)]


@pytest.mark.parametrize(
    ("time_s", "need_mib"),
    [(-11, 0), (-9, 50), (-8, 100), (19, 100), (23, 130), (26, 160), (39, 160), (40, 30), (99, 30)],
)
def test_need_rises_at_its_rate_and_falls_at_once(time_s: float, need_mib: int) -> None:
    """A shortage would be counted that no guest had, or one would go unseen."""
    assert need_bytes(CHANGES, time_s) == need_mib * MIB


def test_a_rise_that_is_cut_short_goes_on_from_where_it_was() -> None:
    """A guest would be told to need more than it was ever asked to take."""
    changes = [Change(0, 100 * MIB, 10 * MIB), Change(5, 80 * MIB, 5 * MIB)]

    assert need_bytes(changes, 4) == 40 * MIB
    assert need_bytes(changes, 6) == 55 * MIB


def test_the_same_seed_is_the_same_course_and_fits_a_host_of_half_the_nominals() -> None:
    """Policies would be compared on different needs, or on a host that nobody can serve."""
    for seed in range(1, 30):
        needs = course(seed, 768 * MIB)
        assert needs == course(seed, 768 * MIB)
        assert needs.peak_bytes() + len(needs.changes) * 140 * MIB <= 0.93 * len(needs.changes) * 384 * MIB


def test_a_rival_sees_each_report_with_the_balloon_of_its_moment() -> None:
    """A rule that is shown figures of different ages oscillates, and would lose for our mistake."""
    whole = guest("web", nominal=512, balloon=512, used=50)

    seen = Eyes(host(whole), 2048 * MIB).seen(host(replace(whole, balloon_bytes=300 * MIB)))

    assert seen.balloon_bytes.tolist() == [300 * MIB]
    assert seen.sampled_balloon_bytes.tolist() == [512 * MIB]
    assert seen.usable_bytes.tolist() == [(512 - KERNEL_MIB - 50) * MIB]


def test_a_rival_sees_the_guests_memory_on_the_host_and_not_what_qemu_adds() -> None:
    """Without hardware acceleration QEMU alone would make a rule believe that its host is full."""
    one = guest("web", nominal=512, balloon=512, rss_bytes=500 * MIB, ram_rss_bytes=380 * MIB)
    other = guest("db", nominal=512, balloon=200, ram_rss_bytes=None, stats=None)

    seen = Eyes(host(one, other), 1000 * MIB).seen(host(one, other))

    assert seen.host_available_bytes == (1000 - 380 - 200) * MIB
    assert np.isnan(seen.sampled_s).tolist() == [False, True]


class Host:
    """As much of a full host as is added up."""

    nominal_bytes = 500 * MIB
    room_bytes = 600 * MIB
    own_bytes = {"a": 100 * MIB, "b": 100 * MIB}  # noqa: RUF012
    guests = {"a": None, "b": None}  # noqa: RUF012


def test_shortage_is_need_above_the_balloon_in_the_scored_time_alone() -> None:
    """Worked by hand: two seconds 100 MiB short, one second over the host; the warm-up does not count."""
    needs = Course({"a": [Change(-9, 200 * MIB, 1 << 40)], "b": [Change(-9, 0)]}, 9, 4)
    balloons = [(-2, 100, 700), (0, 200, 500), (2, 300, 700), (3, 400, 600), (4, 400, 600), (6, 0, 900)]
    samples = [
        Sample(time_s, {"a": a * MIB, "b": 100 * MIB}, 3 * MIB * (time_s > 1), resident * MIB)
        for time_s, a, resident in balloons
    ]

    held = {"a": [(-9.0, 0), (-1.0, 90 * MIB)], "b": [(-9.0, 0)]}
    found = sums(samples, held, Host(), needs)  # type: ignore[arg-type]

    assert found.short_vm_s == 2.0
    assert found.short_gbs == round(2 * 100 * MIB / 1e9, 3)
    assert found.late_gbs == round(4 * 110 * MIB / 1e9, 3)
    assert found.host_over_s == 1.0
    assert found.swap_in_mib == 3.0
    assert found.balloon_ratio_mean == round((2 * 300 + 400 + 500) / 4 / 1000, 4)


def test_a_guest_that_lacks_cpu_time_is_not_short_of_memory() -> None:
    """On a busy machine every policy would be blamed for what none can cure; it still shows as lateness."""
    needs = Course({"a": [Change(-9, 200 * MIB, 1 << 40)], "b": [Change(-9, 0)]}, 9, 4)
    samples = [Sample(float(t), {"a": 200 * MIB, "b": 100 * MIB}, 0, 0) for t in range(5)]
    held = {"a": [(-9.0, 60 * MIB)], "b": [(-9.0, 0)]}

    found = sums(samples, held, Host(), needs)  # type: ignore[arg-type]

    assert found.short_gbs == 0
    assert found.late_gbs == round(4 * 140 * MIB / 1e9, 3)


def test_what_a_guest_holds_is_what_it_last_told() -> None:
    """A guest that does not answer would count as one that has all."""
    told = [(1.0, 5), (3.0, 7)]

    assert [held_bytes(told, time_s) for time_s in (0.5, 1.0, 2.9, 9.0)] == [0, 5, 5, 7]


def test_rows_are_compared_with_ours() -> None:
    """The benchmark's whole answer is how much worse the others are."""
    rows = [
        {"policy": "vmpack", "short_gbs": 2.0, "balloon_ratio_mean": 0.5},
        {"policy": "mom", "short_gbs": 8.0, "balloon_ratio_mean": 0.4},
    ]
    assert [row["short_to_ours"] for row in compared(rows)] == [1.0, 4.0]
    assert compared(rows)[1]["balloon_to_ours"] == 0.8
