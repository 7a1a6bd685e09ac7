"""The best that pins can do, by examples worked by hand and by trying all seats."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from math import sqrt

import pytest

from vmpack.decide.vcpu.bound import least_squares
from vmpack.model.vcpu import LeftAlone, Pcpu
from vmpack.replay.vcpu_board import Board, board_of
from vmpack.replay.vcpu_draw import drawn
from vmpack.replay.vcpu_exact import Exact, exact
from vmpack.replay.vcpu_host import SimulatedHost
from vmpack.replay.vcpu_policy import pins
from vmpack.replay.vcpu_scene import Scene, SceneVcpu, SceneVm
from vmpack.replay.vcpu_scenes import floating, ones, pinned, published

TARGET_POINTS = 5.0


def board(scene: Scene) -> Board:
    return board_of(SimulatedHost(scene, 10.0))


def solved(scene: Scene) -> Exact:
    return exact(board(scene), TARGET_POINTS)


def one_vm(
    vcpus: Sequence[SceneVcpu],
    others: Sequence[SceneVcpu],
    pcpus: Sequence[Pcpu],
    nodes: tuple[int, ...] = (),
) -> Scene:
    """A VM of several vCPUs, and others of one."""
    vms = [SceneVm(f"vm{number}", (vcpu,)) for number, vcpu in enumerate(others)]
    return Scene("one", tuple(pcpus), (SceneVm("several", tuple(vcpus), nodes=nodes), *vms), "")


def test_the_published_cases() -> None:
    """Worked by hand: six must leave the one pCPU, four leave the two; none where all is even already."""
    found = [solved(scene) for scene in published(1)]
    assert [one.std_points for one in found] == [0.0] * 5
    assert [one.changes for one in found[:4]] == [6, 4, 0, 0]
    assert found[4].changes in (0, 2, 4)


def test_a_swap_is_two_changes() -> None:
    """Two heavy and two light, each pair on its pCPU: one of each must be pinned elsewhere, no fewer."""
    found = solved(ones("swap", pinned([1.0, 1.0, 0.5, 0.5], [0, 0, 1, 1]), 2))
    assert (found.std_points, found.changes) == (0.0, 2)
    assert found.pins is not None and set(found.pins.values()) == {(0,), (1,)}


def test_what_cannot_be_even_is_as_even_as_can_be() -> None:
    """Three of 0.6 on two pCPUs: 1.2 and 0.6, that is 30 points, and it is so with no change or with one."""
    assert solved(ones("odd", pinned([0.6] * 3, [0, 0, 1]), 2))[:2] == (pytest.approx(30.0), 0)
    assert solved(ones("odd", pinned([0.6] * 3, [0, 0, 0]), 2))[:2] == (pytest.approx(30.0), 1)


def test_the_target_is_enough() -> None:
    """0.50 against 0.58 are 4 points apart from their mean: within a target of 5 nothing has to move."""
    scene = ones("near", pinned([0.25, 0.25, 0.29, 0.29], [0, 0, 1, 1]), 2)
    found = solved(scene)
    assert (found.std_points, found.changes) == (pytest.approx(0.0), 0)
    assert exact(board(scene), 1.0).changes == 2


def test_strength_counts() -> None:
    """1.0 and 0.5 are even on pCPUs of strength 1 and 0.5; the other way round they must change places."""
    pcpus = (Pcpu(0), Pcpu(1, core=1, capacity_ratio=0.5))
    right, wrong = (
        Scene("strength", pcpus, tuple(SceneVm(f"vm{cpu}", (vcpu,)) for cpu, vcpu in enumerate(vcpus)), "")
        for vcpus in (pinned([1.0, 0.5], [0, 1]), pinned([1.0, 0.5], [1, 0]))
    )
    assert solved(right)[:2] == (pytest.approx(0.0), 0)
    assert solved(wrong)[:2] == (pytest.approx(0.0), 2)


def test_siblings_go_to_pcpus_of_their_own() -> None:
    """0.5 and 0.5 of one VM beside 1.0 of another: even with both on one pCPU, but they may not meet."""
    vcpus, other = pinned([0.5, 0.5], [0, 1]), pinned([1.0], [1])
    assert solved(one_vm(vcpus, other, (Pcpu(0), Pcpu(1))))[:2] == (pytest.approx(50.0), 0)
    apart = Scene(
        "apart", (Pcpu(0), Pcpu(1)), tuple(SceneVm(str(n), (v,)) for n, v in enumerate([*vcpus, *other])), ""
    )
    assert solved(apart)[:2] == (pytest.approx(0.0), 1)


def test_a_vm_stays_with_its_memory_and_in_one_node() -> None:
    """Two heavy on node 0 whose node 1 is empty: bound to it they stay; free ones go there both."""
    pcpus = [Pcpu(number, node=number // 2, core=number) for number in range(4)]
    vcpus, others = pinned([0.4, 0.4], [0, 1]), pinned([1.0, 1.0], [0, 1])
    free = solved(one_vm(vcpus, [SceneVcpu(1.0, (0,), 0), SceneVcpu(1.0, (1,), 1)], pcpus))
    assert free.pins is not None and free.changes == 2
    assert {cpus[0] // 2 for (uuid, _), cpus in free.pins.items() if uuid.endswith("several")} in (set(), {1})
    bound = Scene(
        "bound",
        tuple(pcpus),
        tuple(SceneVm(f"vm{n}", (vcpu,), nodes=(0,)) for n, vcpu in enumerate([*vcpus, *others])),
        "",
    )
    assert solved(bound)[:2] == (pytest.approx(70.0), 0)


def test_what_is_left_alone_stays_and_counts() -> None:
    """Four on one pCPU, one of them its owner's: two others leave, and they are enough."""
    why: list[LeftAlone | None] = ["owner_mask", None, None, None]
    vms = tuple(
        SceneVm(f"vm{n}", (vcpu,), alone)
        for n, (vcpu, alone) in enumerate(zip(pinned([1.0] * 4, [0] * 4), why, strict=True))
    )
    found = solved(Scene("owned", (Pcpu(0), Pcpu(1)), vms, ""))
    assert found.changes == 2 and found.pins is not None
    assert all(not uuid.endswith("vm0") for uuid, _ in found.pins)


def test_whom_the_kernel_would_move_away_must_be_pinned() -> None:
    """1, 1, 0.4 and four of 0.4: the one goes over, and then the kernel would move one of the five back."""
    scene = ones("restless", floating([1.0, 1.0, *[0.4] * 5], [0, 0, 0, 1, 1, 1, 1]), 2)
    found = solved(scene)
    assert (found.std_points, found.changes) == (pytest.approx(0.0), 5)
    host = SimulatedHost(scene, 10.0)
    assert host.std_points() == pytest.approx(40.0) and found.pins is not None
    host.carry_out(pins(host.look(), found.pins))
    host.settle()
    assert host.std_points() == pytest.approx(0.0)


def test_what_the_kernel_pours_is_even_enough() -> None:
    """A host with idle pCPUs needs no pins; what pins could do beside what is poured is not known."""
    assert solved(ones("idle", floating([0.3] * 5, [0, 0, 0, 0, 0]), 3))[:2] == (pytest.approx(0.0), 0)
    stacked = ones("stacked", [*pinned([0.5] * 3, [0] * 3), *floating([0.2], [1])], 3)
    assert solved(stacked).changes is None


def test_a_search_that_takes_too_long_says_so() -> None:
    """A guess in place of the optimum would make a good plan look bad, or a bad one good."""
    scene = drawn(1, 12)
    assert exact(board(scene), TARGET_POINTS, most_nodes=0) == (None, None, None)
    found = exact(board(scene), TARGET_POINTS, most_nodes=200)
    assert found.std_points is not None and found.changes is None


@pytest.mark.parametrize("seed", range(101, 105))
def test_nothing_that_can_be_tried_is_better(seed: int) -> None:
    """All seats of small hosts: one that is better than "the best possible" would make marks worthless."""
    for number in range(1, 13):
        tried = board(drawn(seed, number))
        count, items = len(tried.capacities), tried.items
        if count ** len(items) > 5_000:
            continue
        ways = [
            seats
            for seats in itertools.product(range(count), repeat=len(items))
            if all(tried.may(item, seat, seats) for item, seat in enumerate(seats)) and tried.near(seats)
        ]
        squares = [tried.squares(tried.loads(seats)) for seats in ways]
        least = min(tried.squares_now, *squares)
        assert least_squares(tried.fixed, tried.capacities, sum(item.size for item in items)) <= least + 1e-9
        target = max(least, count * (TARGET_POINTS / 100) ** 2) + 1e-9
        fewest: int | None = 0 if tried.squares_now <= target else None
        if fewest is None and not tried.is_poured:
            fewest = min(
                sum(seat != item.seat for seat, item in zip(seats, items, strict=True))
                + len(tried.restless(seats))
                for seats, found in zip(ways, squares, strict=True)
                if found <= target
            )
        best = exact(tried, TARGET_POINTS)
        assert (best.std_points, best.changes) == (pytest.approx(100 * sqrt(least / count)), fewest)
