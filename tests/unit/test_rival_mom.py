"""MoM's balloon rules, by examples worked by hand; MiB on a host of 10240."""

import pytest
from tests.benchmarks.rivals.mom import Mom
from tests.seen import seen, targets


def test_under_pressure_all_guests_shrink_alike_and_a_starving_one_gets_nothing() -> None:
    """Host free 10 %: used 700 and 880 of 1000 go to 950 and 980, used 930 stays. Its known flaw:
    if ours gave the starving guest its neighbours' memory, MoM would be shown better than it is."""
    full = seen([2000] * 3, [1000] * 3, unused=[300, 120, 70], host_available=1024)
    assert targets(Mom, full) == [950, 980, 1000]


def test_under_critical_pressure_guests_are_made_to_swap() -> None:
    """Host free 3 %: a guest with 990 of 1000 used may go to 990 - 20 = 970. MoM is not kinder."""
    swapping = targets(Mom, seen([2000], [1000], unused=[10], host_available=307.2))
    assert swapping == pytest.approx([970], abs=1 / 1024)


def test_without_pressure_guests_grow_by_a_twentieth_or_to_a_fifth_free() -> None:
    """Host free 30 %: used 700 of 1000 gets 1050, used 900 gets 1100, one at its nominal keeps it."""
    roomy = seen([2000, 2000, 1000], [1000] * 3, unused=[300, 100, 100], host_available=3072)
    assert targets(Mom, roomy) == [1050, 1100, 1000]


def test_its_view_is_fifty_seconds_old_on_average() -> None:
    """Four idle reports and a fifth with 0 unused: used is 260, not 900, and it goes on shrinking; a
    prompt MoM would be a better one than there is."""
    idle = [seen([2000], [900], unused=[800], host_available=1024, time_s=at) for at in (0, 10, 20, 30)]
    busy = seen([2000], [900], unused=[0], host_available=1024, time_s=40)
    assert targets(Mom, *idle, busy) == [855]
    assert targets(Mom, busy) == [900]


def test_changes_of_a_quarter_percent_are_left_out() -> None:
    """Wants 998 of 1000 (used 898, g 10 %): left; wants 997: done. Else its operations would be ours."""
    assert targets(Mom, seen([2000], [1000], unused=[102], host_available=1024)) == [1000]
    assert targets(Mom, seen([2000], [1000], unused=[103], host_available=1024)) == [997]


def test_a_guest_without_statistics_is_not_in_the_policy() -> None:
    """MoM cannot see such a guest: shrinking it would be another tool."""
    assert targets(Mom, seen([2000], [1000], unused=[0], host_available=1024, silent=[0])) == [1000]
