"""CloudVAMP's rule, shipped and repaired, by examples worked by hand; MiB unless named otherwise."""

import pytest
from tests.benchmarks.rivals.cloudvamp_shipped import CloudVampShipped
from tests.seen import seen, targets

from vmpack.replay.cloudvamp_fixed import CloudVampFixed
from vmpack.replay.policy import Seen

OFFSET = 80_000 / 1024
BOTH = pytest.mark.parametrize("rule", [CloudVampFixed, CloudVampShipped])


def idle_at(time_s: float) -> Seen:
    """4 GiB of balloon and nominal, 64 for the kernel, 3151232 KiB of free memory and caches."""
    return seen([4096], [4096], unused=[2048], caches=[3151232 / 1024 - 2048], kernel=64, time_s=time_s)


@BOTH
def test_an_idle_guest_keeps_used_through_0_7(rule: type[CloudVampFixed]) -> None:
    """A rival that keeps another size than the real one would make every comparison with it wrong."""
    assert targets(rule, idle_at(0), idle_at(10)) == [1576301 / 1024]


@BOTH
def test_the_first_wish_waits_for_a_cooldown(rule: type[CloudVampFixed]) -> None:
    """A rival that acts sooner or later than the real one has another shortage."""
    assert targets(rule, idle_at(0)) == [4096]
    assert targets(rule, idle_at(0), idle_at(5)) == [4096]


@BOTH
def test_nothing_happens_inside_the_band(rule: type[CloudVampFixed]) -> None:
    """Free 300 of 1000 is the 30 % that the rule aims at: operations there would be ours, not its."""
    moments = [seen([4096], [1000], unused=[300 + OFFSET], time_s=at) for at in (0, 10, 20)]
    assert targets(rule, *moments) == [1000]


@BOTH
def test_a_guest_is_never_below_256_nor_above_its_nominal(rule: type[CloudVampFixed]) -> None:
    """Used 60 asks for 86 and gets 256; used 900 of 1000 asks for 1286 and gets its 1000."""
    small = [seen([1000], [1000], unused=[940 + OFFSET], time_s=at) for at in (0, 10)]
    large = [seen([1000], [950], unused=[50 + OFFSET], time_s=at) for at in (0, 10)]
    assert targets(rule, *small) == [256]
    assert targets(rule, *large) == [1000]


def starving(count: int) -> list[Seen]:
    """A VM of 4096 with a balloon of 1024 and 40000 KiB free, which count as none."""
    return [seen([4096], [1024], unused=[40_000 / 1024], time_s=10.0 * turn) for turn in range(count)]


def test_the_repaired_rule_gives_a_starving_guest_half_of_the_rest_and_then_all() -> None:
    """Used 1024: 1024 + half of 3072 at two turns, all 4096 at the third.

    Without it the rival to beat would be a straw man."""
    assert targets(CloudVampFixed, *starving(2)) == [2560]
    assert targets(CloudVampFixed, *starving(3)) == [2560]
    assert targets(CloudVampFixed, *starving(4)) == [4096]


def test_the_shipped_rule_never_serves_a_guest_without_free_memory() -> None:
    """Its known flaw: if ours served that guest, the shipped rule would be shown better than it is."""
    assert targets(CloudVampShipped, *starving(9)) == [1024]


@BOTH
def test_a_rise_leaves_the_host_its_margin(rule: type[CloudVampFixed]) -> None:
    """Used 900 of 1000 wants 1285.7: given with 386 and more free on the host, else not even a part."""
    tight, roomy = (
        [seen([4096], [1000], unused=[100 + OFFSET], host_available=free, time_s=at) for at in (0, 10)]
        for free in (385, 386)
    )
    assert targets(rule, *tight) == [1000]
    assert targets(rule, *roomy) == [int(900 * 1024 / 0.7) / 1024]


def test_each_rise_of_a_round_is_measured_against_the_same_free_memory() -> None:
    """Two rises of 285.7 with 400 free are both given: that is how this rule takes a host over its memory."""
    moments = [
        seen([4096] * 2, [1000] * 2, unused=[100 + OFFSET] * 2, host_available=400, time_s=at)
        for at in (0, 10)
    ]
    assert targets(CloudVampFixed, *moments) == [int(900 * 1024 / 0.7) / 1024] * 2


@BOTH
def test_a_guest_that_never_reports_is_left_alone(rule: type[CloudVampFixed]) -> None:
    """Zeros of a silent guest taken for its figures would give it away or starve it."""
    assert targets(rule, *(seen([4096], [4096], unused=[0], silent=[0], time_s=at) for at in (0, 10))) == [
        4096
    ]
