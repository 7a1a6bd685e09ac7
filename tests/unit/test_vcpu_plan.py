"""vCPU decisions worked by hand: what is moved, what is left alone, and why."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from tests.vcpu_hosts import (
    BALANCE,
    NOTHING,
    Vcpu,
    after,
    first_plan,
    forgetting_moves,
    pcpus,
    pinned,
    snapshot,
    vm,
)

from vmpack.decide.explain import words
from vmpack.decide.vcpu.demand import demand_ratio
from vmpack.decide.vcpu.order import Change, in_order
from vmpack.decide.vcpu.plan import plan, remember
from vmpack.decide.vcpu.seats import cool_down_s
from vmpack.model.settings import VcpuSettings
from vmpack.model.vcpu import VcpuSnapshot, VcpuState

VECTORS = sorted((Path(__file__).parents[1] / "vectors" / "vcpu").glob("*.json"))
GROUP = VcpuSettings(mode="group")


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_the_fewest_changes_that_can_be(path: Path):
    """Each needless pin throws a VM out of its caches; each one that lacks leaves it waiting."""
    vector = json.loads(path.read_text())
    vms = [
        vm(
            f"v{number}",
            Vcpu(
                one["demand"],
                (one["pcpu"],) if vector["pinned"] else (),
                seat=one["pcpu"],
                wait=vector["wait_ratio"],
            ),
        )
        for number, one in enumerate(vector["vcpus"])
    ]
    decided = first_plan(pcpus(vector["pcpus"]), vms, looks=vector["looks"])

    assert len(decided.actions) == vector["expected_changes"]
    assert abs(decided.std_points_after - vector["expected_std_points"]) <= 5


def test_there_are_vectors():
    """A missing folder would pass as no test at all."""
    assert len(VECTORS) >= 8


@pytest.mark.parametrize(
    ("run", "wait", "wanted"),
    [(0.125, 0.875, 1.0), (0.125, 0.75, 0.5), (0.5, 0.0, 0.5), (0.0, 0.0, 0.0), (0.0, 1.0, 1.0)],
)
def test_demand_is_not_use(run: float, wait: float, wanted: float):
    """Eight busy vCPUs on one pCPU would look like eight idle ones, and stay there."""
    assert demand_ratio(run, wait) == pytest.approx(wanted)


def test_eight_on_one_are_spread_by_what_they_want():
    """Judged by use alone, a busy host would need many looks until it is even."""
    vms = [vm(f"v{n}", Vcpu(1.0, (0,), wait=0.875)) for n in range(8)]

    decided = first_plan(pcpus(4), vms)

    assert len(decided.actions) == 6
    assert decided.std_points_after == pytest.approx(0)


@pytest.mark.parametrize("left_alone", ["owner_mask", "dedicated_cpus", "real_time", "job", "held"])
def test_a_vm_that_is_to_be_left_alone_keeps_its_pcpu(left_alone):
    """Its owner paid for that CPU; the others make room."""
    vms = [vm("theirs", Vcpu(1.0, (0,)), left_alone=left_alone), *pinned(1.0, cpu=0)]

    decided = first_plan(pcpus(2), vms)

    assert [(action.name, action.to_cpus) for action in decided.actions] == [("p0-0", (1,))]
    assert "left alone" in words(decided.vms[0].reasons[0])[0]


def test_vcpus_that_float_and_do_not_wait_are_the_kernels():
    """Pinned, they could not use a pCPU that happens to be free."""
    vms = [vm(f"v{n}", Vcpu(0.4, seat=0)) for n in range(4)]

    decided = first_plan(pcpus(4), vms, looks=5)

    assert decided.actions == ()
    assert decided.std_points_before == pytest.approx(0)


def test_a_vcpu_whose_pcpu_went_offline_gets_another():
    """It would run on whatever the kernel gave it, unnoticed."""
    vms = [vm("lost", Vcpu(0.5, (7,), mask_of="vmpack")), *pinned(0.5, cpu=0)]

    decided = first_plan(pcpus(2), vms)

    assert [(action.name, action.to_cpus) for action in decided.actions] == [("lost", (1,))]


@pytest.mark.parametrize("demand", [0.02, 0.3, 1.0])
def test_who_lost_its_pcpu_stays_near_its_memory_and_brings_nobody_along(demand: float):
    """A VM would read its memory from afar for ever; or a CPU that goes off would shuffle the whole host."""
    here = [vm(f"h{n}", Vcpu(0.5, (n,))) for n in (1, 2, 3)]
    there = [vm(f"t{n}", Vcpu(level, (n,))) for n, level in enumerate((0.4, 0.4, 0.4, 0.45), 4)]
    bound = vm("bound", Vcpu(demand, (0,), mask_of="vmpack"), nodes=(0,))

    decided = first_plan(pcpus(8, nodes=2)[1:], [*here, *there, bound])

    assert [action.name for action in decided.actions] == ["bound"]
    assert decided.actions[0].to_cpus[0] in (1, 2, 3)


def test_who_has_no_pcpu_left_near_its_memory_stays():
    """Far from its memory a VM is slower than on a crowded CPU."""
    bound = vm("bound", Vcpu(0.3, (0,), mask_of="vmpack"), nodes=(0,))

    assert first_plan(pcpus(4, nodes=2)[2:], [bound], looks=20).actions == ()


def test_a_vm_that_lost_all_its_pcpus_comes_together_again():
    """vCPUs of one VM would speak to each other through the link between the nodes."""
    lost = vm("lost", Vcpu(0.5, (0,)), Vcpu(0.5, (1,)))
    others = [vm(f"o{n}", Vcpu(level, (n,))) for n, level in enumerate((0.1, 0.6, 0.2, 0.3), 2)]

    decided = first_plan(pcpus(6, nodes=3)[2:], [lost, *others])

    node_of = {pcpu.number: pcpu.node for pcpu in pcpus(6, nodes=3)}
    goes = [node_of[a.to_cpus[0]] for a in decided.actions if a.name == "lost"]
    assert len(goes) == 2 and len(set(goes)) == 1


def test_what_was_moved_stays_for_a_while():
    """Two loads that take turns would drag each other from pCPU to pCPU."""
    cpus, vms = pcpus(2), [*pinned(1.0, 1.0, cpu=0)]
    decided = first_plan(cpus, vms)
    (moved,) = decided.actions
    back = after(vms, decided.actions)
    # Now the other pCPU is full of somebody else's work.
    crowded = [*back, vm("owner", Vcpu(1.0, (moved.to_cpus[0],)), left_alone="owner_mask")]
    remembered = remember(decided, decided.actions, 10.0)
    seen = plan(snapshot(cpus, crowded, 2), remembered, BALANCE)
    seen = plan(snapshot(cpus, crowded, 3), seen.remembered, BALANCE)

    assert moved.name not in [action.name for action in seen.actions]


def test_loads_that_wander_by_chance_move_nothing():
    """Pins would follow the noise."""
    rng, settings = random.Random(3), VcpuSettings(mode="balance", target_points=2)
    cpus, names = pcpus(2), [("a", 0), ("b", 0), ("c", 1), ("d", 1)]
    run_ns = dict.fromkeys(names, 0.0)
    remembered, uneven = NOTHING, 0
    for look in range(60):
        vms = [
            vm(name, Vcpu(0, (cpu,)))._replace(
                vcpus=(VcpuState(0, int(run_ns[name, cpu]), 0, (cpu,), "vmpack"),)
            )
            for name, cpu in names
        ]
        decided = plan(VcpuSnapshot(look * 10.0, 0.0, cpus, tuple(vms)), remembered, settings)
        remembered = decided.remembered
        uneven += decided.std_points_before > 2
        assert decided.actions == ()
        for key in names:
            run_ns[key] += (0.5 + rng.uniform(-0.1, 0.1)) * 10e9
    assert uneven


@pytest.mark.parametrize(
    ("here", "there"),
    [
        ([(0.99, 0.67), (0.99, 0.67), (0.99, 0.67)], [(0.96, 0.55), (0.96, 0.55), (0.32, 0.5)]),
        ([(1.0, 0.66), (1.0, 0.66), (1.0, 0.66)], [(0.99, 0.55), (1.0, 0.55), (0.33, 0.5)]),
    ],
)
def test_differences_that_are_none_move_nothing(here, there):
    """Three busy VMs beside two and a light one would change places, as some VMs' counters lag a little."""
    vms = [
        vm(f"v{cpu}-{n}", Vcpu(demand, (cpu,), wait=wait))
        for cpu, loads in enumerate((here, there))
        for n, (demand, wait) in enumerate(loads)
    ]

    decided = first_plan(pcpus(2), vms, looks=20)

    assert decided.actions == ()
    assert decided.std_points_before > 30


def test_half_an_improvement_waits_until_loads_are_known():
    """VMs that begin to work when vmpack first looks would be moved for what they had not yet begun."""
    here, there = [(0.89, 0.64), (0.975, 0.64), (0.875, 0.6)], [(0.87, 0.5), (0.87, 0.5), (0.3, 0.4)]
    vms = [
        vm(f"v{cpu}-{n}", Vcpu(demand, (cpu,), wait=wait))
        for cpu, loads in enumerate((here, there))
        for n, (demand, wait) in enumerate(loads)
    ]

    assert first_plan(pcpus(2), vms, looks=1).actions == ()
    assert len(first_plan(pcpus(2), vms, looks=3).actions) == 2


def test_patience_begins_anew_with_a_change():
    """Loads that cannot be made even would be moved at every third look after each change."""
    decided = first_plan(pcpus(2), [*pinned(1.0, 1.0, 1.0, cpu=0)], looks=3)

    assert decided.actions
    assert decided.std_points_after > 5
    assert decided.remembered.uneven == 0


def test_busy_vcpus_do_not_share_a_core_while_another_is_idle():
    """Each would run at half its speed beside an idle core."""
    cpus = pcpus(4, threads=2)

    decided = first_plan(cpus, [*pinned(1.0, cpu=0), *pinned(1.0, cpu=1)], looks=3)

    (action,) = decided.actions
    assert action.to_cpus in [(2,), (3,)]


def test_a_vm_is_kept_on_one_node_and_the_nodes_are_even():
    """A VM over two nodes waits for memory on every other access."""
    cpus = pcpus(8, nodes=2)
    vms = [vm(f"v{n}", Vcpu(0.5, seat=0), Vcpu(0.5, seat=1)) for n in range(4)]

    decided = first_plan(cpus, vms, GROUP)

    masks = {action.uuid: set() for action in decided.actions}
    for action in decided.actions:
        masks[action.uuid].add(action.to_cpus)
    assert sorted(cpus for of_vm in masks.values() for cpus in of_vm) == 2 * [(0, 1, 2, 3)] + 2 * [
        (4, 5, 6, 7)
    ]
    again = plan(snapshot(cpus, after(vms, decided.actions), 2), forgetting_moves(decided.remembered), GROUP)
    assert again.actions == ()


def test_one_cache_needs_no_group():
    """Pins that gain nothing would only be in the way of hotplug and of the kernel."""
    assert first_plan(pcpus(4), pinned(1.0, 1.0, cpu=0), GROUP, looks=3).actions == ()


def test_an_owner_who_opts_out_gets_his_pins_off():
    """A VM that is to be left alone would stay locked to the pCPU that vmpack had chosen."""
    vms = [vm("ours", Vcpu(1.0, (0,), mask_of="vmpack"), left_alone="opt_out")]

    decided = first_plan(pcpus(2), vms)

    assert [(action.name, action.gives_back) for action in decided.actions] == [("ours", True)]


def test_group_gives_back_what_balance_pinned():
    """After a change of the mode single vCPUs would stay locked to one pCPU each."""
    vms = [vm("ours", Vcpu(1.0, (0,), mask_of="vmpack"))]
    cpus = pcpus(2)
    first = plan(snapshot(cpus, vms), NOTHING, GROUP)

    decided = plan(snapshot(cpus, vms, 2), first.remembered, GROUP)

    assert [(action.name, action.gives_back) for action in decided.actions] == [("ours", True)]


def test_no_pcpu_is_overloaded_on_the_way():
    """While pins are changed one by one a VM would be starved that had its share before and has it after."""
    changes = [Change(0, 0, 1, 0.5), Change(1, 1, 2, 0.9), Change(2, 0, 2, 0.1)]
    levels = [1.0, 0.9, 0.0]

    ordered = in_order(changes, levels, [1.0] * 3)

    assert ordered.index(changes[1]) < ordered.index(changes[0])
    now = list(levels)
    for change in ordered:
        now[change.from_bin] -= change.size
        now[change.to_bin] += change.size
        assert now[change.to_bin] <= 1.0 + 1e-9


def test_the_emptiest_pcpu_gets_its_vcpu_first():
    """Whoever stops the changes half way would have the idle pCPU left idle."""
    fuller, emptier = Change(0, 0, 1, 0.1), Change(1, 0, 2, 0.1)

    assert in_order([fuller, emptier], [0.9, 0.5, 0.1], [1.0] * 3) == [emptier, fuller]


def test_a_circle_begins_where_it_overloads_least():
    """Where each waits for the other, the largest one would be put on top of a full pCPU first."""
    large, middle, small = Change(0, 0, 1, 0.8), Change(1, 1, 2, 0.5), Change(2, 2, 0, 0.2)

    assert in_order([large, middle, small], [1.0] * 3, [1.0] * 3) == [middle, large, small]


def test_the_reason_tells_the_numbers():
    """`vmpack explain` could not say why a vCPU was moved."""
    decided = first_plan(pcpus(2), pinned(1.0, 0.5, cpu=0))
    (action,) = decided.actions
    (mine,) = [one for one in decided.vms if one.uuid == action.uuid]

    text, _ = words(mine.reasons[0])

    assert "leaves pCPU 0" in text
    assert "150 %" in text


@pytest.mark.parametrize("left_alone", ["dedicated_cpus", "real_time"])
def test_nobody_is_put_beside_a_vcpu_that_has_a_pcpu_of_its_own(left_alone):
    """Its owner, idle just now, would wake up beside somebody who cannot leave."""
    owner = vm("owner", Vcpu(0.02, (3,), mask_of="owner"), left_alone=left_alone)

    decided = first_plan(pcpus(4), [owner, *pinned(1.0, 1.0, 1.0, 1.0, cpu=0)])

    assert decided.actions
    assert all(action.to_cpus in [(1,), (2,)] for action in decided.actions)


def test_a_group_is_kept_while_a_load_is_unknown():
    """After each restart of the agent every VM would be let loose, and perhaps end up on another node."""
    cpus = pcpus(8, nodes=2)
    vms = [vm(f"v{n}", Vcpu(0.5, (0, 1, 2, 3), mask_of="vmpack", seat=n)) for n in range(2)]

    decided = plan(snapshot(cpus, vms, 0), NOTHING, GROUP)

    assert decided.actions == ()


def test_each_move_makes_the_next_one_rarer():
    """Loads that come and go by the minute would be chased for ever."""
    remembered = first_plan(pcpus(2), pinned(1.0, 1.0, cpu=0), looks=0).remembered
    decided = first_plan(pcpus(2), pinned(1.0, 1.0, cpu=0))
    (action,) = decided.actions
    rests = []
    for time_s in (10.0, 100.0, 300.0):
        remembered = remember(replace(decided, remembered=remembered), [action], time_s)
        (use,) = remembered.vms[action.uuid]
        rests.append(cool_down_s(use.moves))

    assert rests == [60.0, 120.0, 240.0]


def test_a_guest_that_is_gone_is_forgotten():
    """What is remembered would grow for ever."""
    first = first_plan(pcpus(2), pinned(1.0, 1.0, cpu=0))

    second = plan(replace(snapshot(pcpus(2), []), time_s=99.0), first.remembered, BALANCE)

    assert second.remembered.vms == {}
