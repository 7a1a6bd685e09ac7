"""Hyper-V's formula, by examples worked by hand; MiB."""

from tests.seen import seen, targets

from vmpack.replay.hyperv import HyperV


def test_a_guest_gets_its_commitment_and_a_fifth() -> None:
    """Committed 1000: 1200. A rival with another buffer is not Hyper-V."""
    assert targets(HyperV, seen([4096], [4096], unused=[0], committed=[1000])) == [1200]


def test_the_minimum_and_the_nominal_hold() -> None:
    """Committed 100 gets 512, committed 4000 its 4096: other sizes would not be Hyper-V's."""
    assert targets(HyperV, seen([4096] * 2, [4096] * 2, unused=[0] * 2, committed=[100, 4000])) == [512, 4096]


def test_buffers_are_shared_where_they_do_not_fit() -> None:
    """Two times 1000 on 2200: 200 of 400 MiB of buffers are there. Whole buffers would take the host over."""
    full = seen([4096] * 2, [900] * 2, unused=[0] * 2, capacity=2200, committed=[1000] * 2)
    assert targets(HyperV, full) == [1100, 1100]


def test_demand_that_does_not_fit_is_cut_alike_above_the_minimum() -> None:
    """1512 and 2512 on 2524: of 3000 above two minimums of 512, half is there: 1012 and 1512."""
    full = seen([4096] * 2, [512] * 2, unused=[0] * 2, capacity=2524, committed=[1512, 2512])
    assert targets(HyperV, full) == [1012, 1512]


def test_a_rise_comes_from_what_is_free_now() -> None:
    """300 free on the host: of a rise of 600 half is given, though a neighbour is about to leave 2800."""
    moment = seen([4096] * 2, [600, 4000], unused=[0] * 2, capacity=4900, committed=[1000, 1000])
    assert targets(HyperV, moment) == [900, 1200]


def test_without_commitment_demand_is_what_memavailable_leaves() -> None:
    """1000 of balloon, 200 usable: 800 used and 160 of buffer. On libvirt nobody reports more."""
    assert targets(HyperV, seen([4096], [1000], unused=[100], caches=[100])) == [960]


def test_a_silent_guest_keeps_what_it_has_and_counts() -> None:
    """3000 of 4400 are held by a silent guest: the other's buffer of 200 is given, on 4100 only 100 of it."""
    roomy, tight = (
        seen([4096] * 2, [3000, 900], unused=[0] * 2, capacity=size, committed=[0, 1000], silent=[0])
        for size in (4400, 4100)
    )
    assert targets(HyperV, roomy) == [3000, 1200]
    assert targets(HyperV, tight) == [3000, 1100]
