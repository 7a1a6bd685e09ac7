"""Proxmox VE's automatic ballooning, by examples worked by hand; MiB on a host of 10240, its aim 8192."""

from tests.benchmarks.rivals.proxmox import POLICIES, Proxmox
from tests.seen import seen, targets


def test_a_host_at_80_percent_is_left_alone_whoever_starves() -> None:
    """Its known flaw: need is no reason to act. If ours acted, Proxmox would be shown better than it is."""
    assert targets(Proxmox, seen([4096] * 2, [1024, 4096], unused=[0, 3000], host_available=2048)) == [
        1024,
        4096,
    ]
    assert targets(Proxmox, seen([4096] * 2, [1024, 4096], unused=[0, 3000], host_available=2058)) == [
        1024,
        4096,
    ]


def test_a_host_over_80_percent_shrinks_first_those_with_free_memory() -> None:
    """1024 over: two idle VMs would go from 4096 to 3584 each and go down by 100; one in need is spared."""
    assert targets(Proxmox, seen([4096] * 2, [4096] * 2, unused=[3000, 3000], host_available=1024)) == [
        3996,
        3996,
    ]
    assert targets(Proxmox, seen([4096] * 2, [4096] * 2, unused=[3000, 0], host_available=1024)) == [
        3996,
        4096,
    ]


def test_guests_in_need_are_shrunk_when_no_other_can() -> None:
    """Its known flaw: with nothing free anywhere all shrink, down to the minimum of 1024."""
    assert targets(Proxmox, seen([4096] * 2, [4096] * 2, unused=[0, 0], host_available=1024)) == [3996, 3996]
    assert targets(Proxmox, seen([4096] * 2, [1100] * 2, unused=[0, 0], host_available=1024)) == [1024, 1024]


def test_a_host_under_80_percent_gives_first_to_those_in_need_and_by_100() -> None:
    """1024 to give: the VM with 256 or less free gets 100, the other nothing; with nobody in need both do."""
    assert targets(Proxmox, seen([4096] * 2, [2048] * 2, unused=[256, 257], host_available=3072)) == [
        2148,
        2048,
    ]
    assert targets(Proxmox, seen([4096] * 2, [2048] * 2, unused=[257, 257], host_available=3072)) == [
        2148,
        2148,
    ]


def test_a_small_goal_is_spread_evenly() -> None:
    """50 to give, two VMs alike: 25 each. A rule that poured it into one would be another rule."""
    assert targets(Proxmox, seen([4096] * 2, [2048] * 2, unused=[0, 0], host_available=2098)) == [2073, 2073]


def test_a_round_that_grows_shrinks_those_above_their_part() -> None:
    """60 to give to 2048 and 1948 alike in all else: 2028 each, so that the larger one loses."""
    given = targets(Proxmox, seen([4096] * 2, [2048, 1948], unused=[0, 0], host_available=2108))
    assert given == [2028, 2028]


def test_the_part_of_one_at_its_nominal_goes_to_the_others() -> None:
    """60 to give, one VM has its 1100 of 1100: the other gets all 60."""
    assert targets(Proxmox, seen([1100, 4096], [1100, 2048], unused=[0, 0], host_available=2108)) == [
        1100,
        2108,
    ]


def test_the_lower_minimum_is_a_policy_of_its_own() -> None:
    """The administrator's guess decides how far it shrinks: 25 % of nominal, or 10 %."""
    tight = seen([4096], [1034], unused=[0], host_available=0)
    assert [targets(POLICIES[name], tight) for name in ("proxmox", "proxmox-min10")] == [[1024], [934]]
