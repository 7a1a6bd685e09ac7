"""squeezed's proportional rule, by examples worked by hand; MiB, to the 16 KiB that it leaves."""

import pytest
from tests.benchmarks.rivals.squeezed import Squeezed
from tests.seen import made_for, seen, targets

from vmpack.units import MIB


def test_all_guests_get_the_same_part_of_their_range_whatever_they_need() -> None:
    """gamma 1/3 for an idle and a starving VM alike. Its known flaw: need does not count."""
    idle = seen([4096, 8192], [4096, 8192], unused=[4000, 8000], capacity=6153)
    starving = seen([4096, 8192], [4096, 8192], unused=[4000, 0], capacity=6153)
    assert targets(Squeezed, idle) == targets(Squeezed, starving)
    assert targets(Squeezed, idle) == pytest.approx([2048, 4096], abs=16 / 1024)


def test_a_host_with_room_for_all_gives_all() -> None:
    """Surplus above the ranges is gamma 1: a host that is not full must not look ballooned."""
    assert targets(Squeezed, seen([4096] * 2, [2048] * 2, unused=[0, 0], capacity=9000)) == [4096, 4096]


def test_a_host_with_room_for_none_leaves_the_minimum() -> None:
    """2048 are the two minimums themselves: gamma 0 and 1024 each, as squeezed's floor says."""
    assert targets(Squeezed, seen([4096] * 2, [4096] * 2, unused=[0, 0], capacity=2048)) == [1024, 1024]


def test_those_that_shrink_come_first() -> None:
    """1024 and 4096 toward 2555.5 each: the second is told first, the first when it has gone. Else the host
    would be asked for memory that is not free yet, and squeezed shown worse than it is."""
    before = seen([4096] * 2, [1024, 4096], unused=[0, 0], capacity=5120)
    after = seen([4096] * 2, [1024, 2555.5], unused=[0, 0], capacity=5120, time_s=10)
    assert targets(Squeezed, before) == pytest.approx([1024, 2555.5], abs=16 / 1024)
    assert targets(Squeezed, before, after) == pytest.approx([2555.5, 2555.5], abs=16 / 1024)


def test_a_stuck_balloon_is_left_out_and_the_others_give_its_part() -> None:
    """Both asked for 2555.5; the first stays at 4096 for 10 s: the second goes to its minimum."""
    before = seen([4096] * 2, [4096] * 2, unused=[0, 0], capacity=5120)
    after = seen([4096] * 2, [4096, 2555.5], unused=[0, 0], capacity=5120, time_s=10)
    policy = made_for(before, Squeezed)
    policy.decide(before)
    assert policy.decide(after)[1] == 1024 * MIB
