"""What is learned of a vCPU's load: at once where it changes for good, its mean where it comes and goes."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from tests.vcpu_hosts import BALANCE, INTERVAL_S, NOTHING, Vcpu, after, pcpus, vm

from vmpack.decide.vcpu.demand import first_use, next_use
from vmpack.decide.vcpu.plan import plan, remember
from vmpack.model.vcpu import VcpuSnapshot, VcpuState, VcpuUse, VmVcpus


def seen(loads: Iterable[float]) -> list[VcpuUse]:
    """What is known after each interval of these loads, of a vCPU that never waits."""
    state = VcpuState(0, 0, 0, ())
    known = [first_use(state, 0.0)]
    for number, load in enumerate(loads, 1):
        state = state._replace(run_ns=state.run_ns + int(load * INTERVAL_S * 1e9))
        known.append(next_use(known[-1], state, number * INTERVAL_S))
    return known[1:]


def test_a_load_that_begins_is_known_after_two_looks():
    """A VM that starts to work would wait for a minute beside an idle pCPU."""
    known = seen([0.05] * 20 + [0.9] * 2)

    assert known[20].demand_ratio == pytest.approx(0.05)
    assert (known[21].demand_ratio, known[21].samples) == (pytest.approx(0.9), 1)


def test_one_look_that_differs_counts_like_any_other():
    """A VM that works for ten seconds of every minute would seem to be idle."""
    known = seen([0.0] * 30 + [1.0] + [0.0] * 5)

    assert known[30].demand_ratio == pytest.approx(0.0)
    assert 0.05 < known[-1].demand_ratio < 0.2


@pytest.mark.parametrize(
    "period", [[1.0, 0.0], [1.0, 0.0, 0.0, 0.0], [1.0] * 3 + [0.0] * 3, [1.0] * 6 + [0.0] * 24]
)
def test_a_load_that_comes_and_goes_has_its_mean(period: list[float]):
    """Its VM would be moved each time that it begins and each time that it ends."""
    known = seen(period * (360 // len(period)))
    later = known[180:]

    mean = sum(period) / len(period)
    assert all(abs(use.demand_ratio - mean) < 0.25 for use in later)
    assert all(use.samples > 1 for use in later)
    assert all(use.noise_squares > 0.03 for use in later)


def test_a_restless_load_that_ended_is_forgotten():
    """A VM that once was restless would be taken for that for ever, and all pins on its host be held back."""
    known = seen([1.0, 0.0] * 100 + [0.3] * 360)

    assert known[-1].demand_ratio == pytest.approx(0.3, abs=0.01)
    assert known[-1].noise_squares < 0.001


def test_even_pcpus_with_bursts_on_them_are_left_alone():
    """VMs that work now and then would be pinned to and fro all day, and the host be less even for it."""
    cpus = pcpus(4)
    vms = [vm(f"v{n}", Vcpu(0.0, (n % 4,))) for n in range(16)]
    remembered, changes = NOTHING, 0
    for look in range(360):
        snapshot = VcpuSnapshot(look * INTERVAL_S, look * INTERVAL_S, cpus, tuple(vms))
        decided = plan(snapshot, remembered, BALANCE)
        remembered = remember(decided, decided.actions, snapshot.time_s)
        changes += len(decided.actions)
        vms = [_worked(one, (look + 7 * n) % 10 < 2) for n, one in enumerate(after(vms, decided.actions))]

    assert changes <= 16


def _worked(one: VmVcpus, busy: bool) -> VmVcpus:
    """After an interval in which it worked, or did not."""
    (vcpu,) = one.vcpus
    return one._replace(vcpus=(vcpu._replace(run_ns=vcpu.run_ns + int(busy * INTERVAL_S * 1e9)),))
