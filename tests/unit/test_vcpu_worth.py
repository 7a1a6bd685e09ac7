"""When pins are changed at all: each rule right below and right above where it turns."""

from __future__ import annotations

from math import sqrt

import pytest
from tests.vcpu_hosts import Vcpu, pcpus, snapshot, vm

from vmpack.decide.vcpu.balance import Balanced
from vmpack.decide.vcpu.plan import BALANCED_MASKS
from vmpack.decide.vcpu.seats import Seat, Seating, seating
from vmpack.decide.vcpu.worth import is_worth, sight
from vmpack.model.vcpu import VcpuState, VcpuUse

TARGET = 0.05
MOVED = Seat(0, VcpuState(0, 0, 0, (0,)), 0.3, 0, is_pinned=True, stays=False, wait_ratio=0.0)


def seated(
    *, fresh: bool = False, settled: bool = False, floats: bool = False, noise: float = 0.0
) -> Seating:
    return Seating([MOVED], {0: 0.0, 1: 0.0}, {}, floats, fresh, settled, noise)


@pytest.mark.parametrize(
    ("loads", "std", "uneven", "seen"),
    [
        (seated(settled=True), 0.050, 1, "not_yet"),
        (seated(settled=True), 0.051, 1, "known"),
        (seated(), 0.5, 1, "not_yet"),
        (seated(), 0.5, 2, "not_yet"),
        (seated(), 0.066, 3, "known"),
        (seated(), 0.064, 3, "not_yet"),
        (seated(), 0.5, 4, "not_yet"),
        (seated(), 0.051, 17, "not_yet"),
        (seated(), 0.051, 18, "known"),
        (seated(), 0.051, 36, "known"),
        (seated(fresh=True), 0.21, 1, "first"),
        (seated(fresh=True), 0.19, 1, "not_yet"),
        (seated(fresh=True, floats=True), 0.9, 1, "not_yet"),
        (seated(fresh=True, floats=True), 0.9, 2, "known"),
        (seated(), 0.9, 2, "not_yet"),
    ],
)
def test_it_is_time_when_loads_are_known(loads: Seating, std: float, uneven: int, seen: str):
    """A chance look would move VMs; or a host would stay uneven for longer than three looks."""
    assert sight(loads, std, uneven, TARGET) == seen


def levels(std: float) -> dict[int, float]:
    """Two pCPUs as uneven as that."""
    return {0: 0.5 + std, 1: 0.5 - std}


@pytest.mark.parametrize(
    ("loads", "seen", "before", "after", "worth"),
    [
        # At first sight three quarters of the variance have to go.
        (seated(fresh=True), "first", 0.3, 0.3 * sqrt(0.26), False),
        (seated(fresh=True), "first", 0.3, 0.3 * sqrt(0.24), True),
        # Three standard deviations of what chance does to the levels.
        (seated(noise=0.09 / 9 * 1.01), "known", 0.3, 0.0, False),
        (seated(noise=0.09 / 9 * 0.99), "known", 0.3, 0.0, True),
        # A quarter of the variance, but for new loads that are steady.
        (seated(), "known", 0.3, 0.3 * sqrt(0.76), False),
        (seated(), "known", 0.3, 0.3 * sqrt(0.74), True),
        (seated(settled=True, noise=2.4e-5), "known", 0.3, 0.3 * sqrt(0.9), True),
        (seated(settled=True, noise=2.6e-5), "known", 0.3, 0.3 * sqrt(0.9), False),
        # Four squared targets of the sum of squares, for each change.
        (seated(), "known", 0.0705, 0.0, False),
        (seated(), "known", 0.0710, 0.0, True),
        # Never for less evenness.
        (seated(fresh=True, settled=True), "known", 0.3, 0.3, False),
    ],
)
def test_a_change_is_worth_what_it_wins(loads: Seating, seen: str, before: float, after: float, worth: bool):
    """VMs would lose their caches for nothing, or stand in each other's way for want of a little."""
    done = Balanced([(MOVED, 1)], levels(before), levels(after))

    assert is_worth(loads, done, pcpus(2), seen, TARGET) is worth


def test_two_changes_must_win_twice_as_much():
    """Evenness would be bought with any number of changes."""
    done = Balanced([(MOVED, 1), (MOVED, 1)], levels(0.0710), levels(0.0))

    assert not is_worth(seated(), done, pcpus(2), "known", TARGET)


@pytest.mark.parametrize(("samples", "left"), [(4, 0.25), (10_000, 0.08)])
def test_a_restless_load_is_never_quite_known(samples: int, left: float):
    """However long it was watched, its next minute is not its mean: pins would follow chance."""
    one = vm("one", Vcpu(0.5, (0,)))
    use = VcpuUse(0, 0.0, 0, 0, demand_ratio=0.5, samples=samples, noise_squares=0.02)

    found = seating(snapshot(pcpus(2), [one]), {one.uuid: (use,)}, BALANCED_MASKS)

    assert found.noise_squares == pytest.approx(left * 0.02 / 2)
