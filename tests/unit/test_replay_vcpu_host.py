"""Simulated hosts that share pCPUs among vCPUs, by examples worked by hand."""

from __future__ import annotations

import pytest

from vmpack.model.vcpu import Pcpu, SetAffinity, VcpuState
from vmpack.replay.vcpu_host import SimulatedHost, fair_shares, poured, usable_ratio, uuid_of
from vmpack.replay.vcpu_scene import Scene, SceneVcpu, SceneVm
from vmpack.replay.vcpu_scenes import floating, ones, pinned, vm_starts, vm_stops

INTERVAL_S = 10.0


def ran(scene: Scene) -> tuple[SimulatedHost, list[VcpuState]]:
    """A host after one interval, and its vCPUs."""
    host = SimulatedHost(scene, INTERVAL_S)
    host.run()
    return host, [vcpu for vm in host.look().vms for vcpu in vm.vcpus]


def shares(vcpu: VcpuState) -> tuple[float, float]:
    """Run and wait, of the first interval."""
    assert vcpu.delay_ns is not None
    return vcpu.run_ns / (INTERVAL_S * 1e9), vcpu.delay_ns / (INTERVAL_S * 1e9)


def seats(host: SimulatedHost) -> list[int | None]:
    return [vcpu.seat for vm in host.look().vms for vcpu in vm.vcpus]


def pin(host: SimulatedHost, name: str, cpus: tuple[int, ...]) -> None:
    """Change the mask of this VM's first vCPU."""
    found = next(vm for vm in host.look().vms if vm.name == name)
    host.carry_out([SetAffinity(uuid_of(name), name, "vcpu", 0, found.vcpus[0].cpus, cpus)])
    host.settle()


def test_eight_on_one_pcpu_get_an_eighth_and_wait_the_rest() -> None:
    """Use alone would say that each wants 12.5 %: the very trap that a scheduler must see through."""
    _, vcpus = ran(ones("eight", pinned([1.0] * 8, [0] * 8), 4))
    assert {shares(vcpu) for vcpu in vcpus} == {(0.125, 0.875)}


def test_who_waits_neither_works_nor_rests() -> None:
    """Two that want 0.8 and one 0.3 on one pCPU: 0.35, 0.35, 0.3, and run / (1 - wait) is what they want."""
    _, vcpus = ran(ones("loop", pinned([0.8, 0.8, 0.3], [0] * 3), 2))
    found = [shares(vcpu) for vcpu in vcpus]
    assert [run for run, _ in found] == pytest.approx([0.35, 0.35, 0.3])
    assert [run / (1 - wait) for run, wait in found] == pytest.approx([0.8, 0.8, 0.3])


def test_a_weak_pcpu_takes_longer_for_the_same_work() -> None:
    """Half of a fast pCPU's time on one of 0.5: as much again for the work, the same rest: two thirds."""
    assert usable_ratio(0.5, 0.5) == pytest.approx(2 / 3)
    assert (usable_ratio(1.0, 0.5), usable_ratio(0.0, 0.5)) == (1.0, 0.0)


def test_time_is_shared_alike_but_nobody_gets_more_than_he_uses() -> None:
    """A share beyond what one uses would be lost to the others, as on no real kernel."""
    assert fair_shares([0.9, 0.1, 0.9]) == pytest.approx([0.45, 0.1, 0.45])
    assert fair_shares([0.2, 0.3]) == [0.2, 0.3]


def test_floats_are_moved_until_no_pcpu_has_two_more_than_another() -> None:
    """A kernel that left four on one pCPU would be beaten too easily."""
    host = SimulatedHost(ones("heap", floating([1.0] * 4, [0] * 4), 3), INTERVAL_S)
    counts = sorted(seats(host).count(cpu) for cpu in range(3))
    assert counts == [1, 1, 2]


def test_the_kernel_counts_and_does_not_weigh() -> None:
    """Two heavy on one pCPU, two light on the other are even to it: that is what pins can cure."""
    host = SimulatedHost(ones("blind", floating([1.0, 1.0, 0.5, 0.5], [0, 0, 1, 1]), 2), INTERVAL_S)
    assert seats(host) == [0, 0, 1, 1]
    assert host.std_points() == pytest.approx(50.0)


def test_what_rests_finds_the_idle_pcpus() -> None:
    """0.3 and 0.3 that float beside 0.5 that is pinned, on two pCPUs: 0.55 each, and nobody waits. Seats of
    one moment would make a host with much idle time look uneven, and pins look useful there."""
    vcpus = [*pinned([0.5], [0]), *floating([0.3, 0.3], [0, 0])]
    host, found = ran(ones("idle", vcpus, 2))
    assert host.levels() == pytest.approx([0.55, 0.55])
    assert [shares(vcpu) for vcpu in found] == [(0.5, 0.0), (0.3, 0.0), (0.3, 0.0)]


def test_what_never_rests_goes_to_a_stronger_pcpu_that_is_empty() -> None:
    """On hosts with cores of two kinds kernels do so; a rival that did not would be a straw man."""
    scene = Scene(
        "weak", (Pcpu(0, capacity_ratio=0.5), Pcpu(1)), (SceneVm("vm1", (SceneVcpu(1.0, (), 0),)),), ""
    )
    assert seats(SimulatedHost(scene, INTERVAL_S)) == [1]


def test_a_pinned_vcpu_goes_where_its_mask_says_and_stays() -> None:
    """The kernel evens out around pins, and never against them."""
    host = SimulatedHost(ones("pins", floating([1.0] * 4, [0, 0, 1, 1]), 2), INTERVAL_S)
    for name in ("vm1", "vm2", "vm3"):
        pin(host, name, (1,))
    assert seats(host) == [1, 1, 1, 0]
    pin(host, "vm1", (0, 1))
    assert seats(host) == [0, 1, 1, 0]


@pytest.mark.parametrize(
    ("wrong", "from_cpus", "cpus"), [("owner", (0,), (1,)), ("free", (1,), (0,)), ("free", (0,), (7,))]
)
def test_what_an_executor_would_refuse_is_refused(
    wrong: str, from_cpus: tuple[int, ...], cpus: tuple[int, ...]
) -> None:
    """No policy may win by an owner's pins, by masks that are no longer so, or on pCPUs that are gone."""
    vms = tuple(
        SceneVm(name, tuple(pinned([0.5], [0])), why)
        for name, why in (("owner", "owner_mask"), ("free", None))
    )
    host = SimulatedHost(Scene("refuse", (Pcpu(0), Pcpu(1)), vms, ""), INTERVAL_S)
    assert [vm.vcpus[0].mask_of for vm in host.look().vms] == ["owner", "run_time"]
    with pytest.raises(ValueError, match="not to be carried out"):
        host.carry_out([SetAffinity(uuid_of(wrong), wrong, "vcpu", 0, from_cpus, cpus)])


def test_vms_come_and_go_in_their_time() -> None:
    """Counters of a VM that starts begin at 0; the load of one that stops is gone."""
    for scene, vms in ((vm_starts(), (8, 9)), (vm_stops(), (11, 10))):
        host = SimulatedHost(scene, INTERVAL_S)
        for _ in range(scene.changes_at - 1):
            host.run()
        before, stds = len(host.look().vms), [host.std_points()]
        host.run()
        assert (before, len(host.look().vms)) == vms
        assert [*stds, host.std_points()] == pytest.approx([0.0, stds[0] + host.std_points()])
    assert host.look().time_s == pytest.approx(1_000.0 + 3 * INTERVAL_S)


def test_noise_is_the_same_for_the_same_seed() -> None:
    """Policies must meet the same load; its mean is what counts as wanted."""
    scene = ones("noisy", pinned([0.5] * 2, [0, 1]), 2)._replace(noise_ratio=0.1)
    host, first = ran(scene)
    assert [shares(vcpu) for vcpu in ran(scene)[1]] == [shares(vcpu) for vcpu in first]
    assert all(0.45 <= shares(vcpu)[0] <= 0.55 and shares(vcpu)[0] != 0.5 for vcpu in first)
    assert host.std_points() == 0.0


def test_pouring_fills_the_lowest_first() -> None:
    """0.6 onto 0.1 and 0.5 and 0.9: 0.5 and 0.1 and nothing; on rooms of 1 and 0.5 in their proportion."""
    assert poured([0.1, 0.5, 0.9], [1.0] * 3, 0.6) == pytest.approx([0.5, 0.1, 0.0])
    assert poured([0.0, 0.0], [1.0, 0.5], 0.6) == pytest.approx([0.4, 0.2])
