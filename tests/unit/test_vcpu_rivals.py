"""Other ways of pinning vCPUs, by examples worked by hand."""

from __future__ import annotations

from collections.abc import Sequence

from tests.benchmarks.vcpu_rivals.lpt import Lpt
from tests.benchmarks.vcpu_rivals.numad import NumadLike

from vmpack.model.vcpu import LeftAlone, Pcpu, VcpuSnapshot, VcpuState, VmVcpus
from vmpack.replay.vcpu_exact import Exact
from vmpack.replay.vcpu_policy import VcpuFacts

FACTS = VcpuFacts(10.0, 5.0, Exact(None, None, None), 0)
NOBODY: dict[str, LeftAlone] = {}


def looks(
    vms: Sequence[tuple[Sequence[float], Sequence[int], tuple[int, ...]]],
    nodes: int = 1,
    moments: int = 2,
    left_alone: dict[str, LeftAlone] = NOBODY,
) -> list[VcpuSnapshot]:
    """Looks 10 s apart at VMs a, b, ... on four pCPUs: use of each vCPU, seats, and the one mask of all."""
    pcpus = tuple(Pcpu(number, node=number * nodes // 4, core=number) for number in range(4))
    return [
        VcpuSnapshot(
            10.0 * moment,
            0.0,
            pcpus,
            tuple(
                VmVcpus(
                    name,
                    name,
                    tuple(
                        VcpuState(number, int(moment * ratio * 10e9), 0, mask, seat=seat)
                        for number, (ratio, seat) in enumerate(zip(used, seats, strict=True))
                    ),
                    left_alone.get(name),
                )
                for name, (used, seats, mask) in zip("abcdefgh", vms, strict=False)
            ),
        )
        for moment in range(moments)
    ]


def masks(policy: Lpt | NumadLike, snapshots: Sequence[VcpuSnapshot]) -> list[dict[str, tuple[int, ...]]]:
    """What each look changes: masks by VM and vCPU."""
    return [
        {f"{action.name}{action.number}": action.to_cpus for action in policy.decide(snapshot)}
        for snapshot in snapshots
    ]


def test_lpt_measures_first_and_then_refills_from_empty() -> None:
    """0.9, 0.8, 0.3, 0.2, 0.2 on four: 0.9 | 0.8 | 0.3 | 0.2 + 0.2, whoever was where; one is there."""
    vms = [([ratio], [0], (0,)) for ratio in (0.2, 0.3, 0.8, 0.9, 0.2)]
    first, second = masks(Lpt(FACTS), looks(vms))
    assert first == {}
    assert second == {"a0": (3,), "b0": (2,), "c0": (1,), "e0": (3,)}


def test_lpt_takes_use_for_want() -> None:
    """Its known flaw: 0.3 that waits and wants all is put beside others as 0.3."""
    vms = [([0.3], [0], (0,)), ([0.35], [1], (1,)), *[([0.9], [2], (2,))] * 3]
    assert masks(Lpt(FACTS), looks(vms))[1] == {"c0": (0,), "d0": (1,), "a0": (3,), "b0": (3,)}


def test_lpt_leaves_alone_what_is_not_its_own() -> None:
    """The public programs know no owners; ours is the kinder one, and the host refuses such changes."""
    vms = [([0.9], [0], (0,)), ([0.5], [1], (1,))]
    assert masks(Lpt(FACTS), looks(vms, left_alone={"a": "owner_mask"}))[1] == {}


def test_numad_binds_one_vm_a_round_to_the_best_node() -> None:
    """a: 1.2 and b: 0.8 on node 0, node 1 empty. a, the largest: wants 1.41. Node 0: 2 - 2 + 1.2 = 1.2 free:
    6 x 1.2 = 7.2; node 1: 6 x 1.41 + 0.59 = 9.06. All its threads go there; b waits for its round."""
    vms = [([0.6, 0.6], [0, 1], ()), ([0.8], [0], ())]
    assert masks(NumadLike(FACTS), looks(vms, nodes=2))[1] == {"a0": (2, 3), "a1": (2, 3)}


def test_numad_leaves_small_vms_and_hosts_of_one_node() -> None:
    """Half a CPU or less is not looked at; within a node the kernel is trusted."""
    assert masks(NumadLike(FACTS), looks([([0.5], [0], ())], nodes=2))[1] == {}
    assert masks(NumadLike(FACTS), looks([([1.0], [0], (0,)), ([1.0], [0], (0,))]))[1] == {}


def test_numad_takes_as_many_nodes_as_must_be() -> None:
    """Four times 0.9 want 3.6 / 85 %, at most 4; less 0.15 of slack: two nodes of two. 1.9 takes one."""
    large, middle = ([0.9] * 4, [0, 1, 2, 3], (0, 1)), ([0.95, 0.95], [0, 1], (0, 1, 2, 3))
    assert set(masks(NumadLike(FACTS), looks([large], nodes=2))[1].values()) == {(0, 1, 2, 3)}
    assert set(masks(NumadLike(FACTS), looks([middle], nodes=2))[1].values()) == {(0, 1)}


def test_numad_looks_again_after_five_minutes() -> None:
    """0.9 beside 0.1 on node 0 goes to node 1. There it meets 0.1 again, too little to look before 300 s."""
    before = looks([([0.9], [0], ()), ([0.1], [1], ())], nodes=2, moments=2)
    after = looks([([0.9], [2], (2, 3)), ([0.1], [3], ())], nodes=2, moments=40)[2:]
    found = masks(NumadLike(FACTS), [*before, *after])
    assert {look: changed for look, changed in enumerate(found) if changed and look < 32} == {
        1: {"a0": (2, 3)},
        31: {"a0": (0, 1)},
    }


def test_numad_looks_at_once_where_a_node_is_much_fuller() -> None:
    """0.9 goes from 0.3 to node 1, where 0.3 come to it: moving it back evens both, and is not put off."""
    before = looks([([0.9], [0], ()), ([0.3], [1], ())], nodes=2, moments=2)
    after = looks([([0.9], [2], (2, 3)), ([0.3], [3], ())], nodes=2, moments=4)[2:]
    assert masks(NumadLike(FACTS), [*before, *after])[1:] == [{"a0": (2, 3)}, {"a0": (0, 1)}, {}]
