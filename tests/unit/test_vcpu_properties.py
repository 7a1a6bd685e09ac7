"""What every vCPU plan must keep, whatever the host looks like."""

from __future__ import annotations

from hypothesis import HealthCheck, assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tests.vcpu_hosts import BALANCE, Vcpu, after, first_plan, forgetting_moves, pcpus, snapshot, vm

from vmpack.decide.vcpu.plan import plan
from vmpack.model.settings import VcpuSettings
from vmpack.model.vcpu import VmVcpus

thorough = hypothesis_settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])
LEFT = ("dedicated_cpus", "owner_mask", "real_time", "job", "not_running", "held", "opt_out")


@st.composite
def hosts(draw):
    """pCPUs and VMs: pinned, floating, masked, left alone, of one or several vCPUs."""
    count = draw(st.sampled_from([1, 2, 4, 6, 8]))
    nodes = draw(st.sampled_from([1, 2])) if count % 2 == 0 else 1
    cpus = pcpus(count, nodes, draw(st.sampled_from([1, 2])))
    if draw(st.booleans()):
        cpus = tuple(c._replace(capacity_ratio=draw(st.sampled_from([0.5, 1.0]))) for c in cpus)
    one = st.integers(0, count - 1)
    some = st.sets(one, min_size=1).map(lambda found: tuple(sorted(found)))
    vcpu = st.builds(
        Vcpu,
        demand=st.floats(0, 1),
        cpus=st.one_of(one.map(lambda cpu: (cpu,)), one.map(lambda cpu: (cpu,)), st.just(()), some),
        seat=one,
        wait=st.sampled_from([0.0, 0.0, 0.3]),
    )
    vms = [
        vm(
            f"v{number}",
            *draw(st.lists(vcpu, min_size=1, max_size=4)),
            left_alone=draw(st.sampled_from([None] * 14 + list(LEFT))),
            nodes=draw(st.sampled_from([(), (), (), (0,)])),
        )
        for number in range(draw(st.integers(0, 8)))
    ]
    return cpus, vms


modes = st.sampled_from([BALANCE, VcpuSettings(mode="group"), VcpuSettings(mode="balance", target_points=1)])


@thorough
@given(hosts(), modes)
def test_only_what_may_be_touched_is_touched(host, settings):
    """An owner who paid for CPUs of his own would lose them, or a migration under way would fail."""
    cpus, vms = host
    by_uuid = {one.uuid: one for one in vms}
    usable = {cpu.number for cpu in cpus}
    for action in first_plan(cpus, vms, settings, looks=3).actions:
        found = by_uuid[action.uuid]
        assert found.left_alone is None or action.gives_back
        before = found.vcpus[action.number]
        assert action.from_cpus == before.cpus
        assert set(action.to_cpus) <= usable
        assert action.to_cpus and action.to_cpus != before.cpus
        assert settings.mode == "balance" or before.mask_of != "run_time"


@thorough
@given(hosts(), modes)
def test_the_loads_never_become_less_even(host, settings):
    """vmpack would slow VMs down that were served well before."""
    cpus, vms = host
    decided = first_plan(cpus, vms, settings, looks=3)
    rules = {reason.rule for one in decided.vms for reason in one.reasons}
    if settings.mode == "balance" and "vcpu_lost_its_pcpu" not in rules:
        assert decided.std_points_after <= decided.std_points_before + 1e-6


@thorough
@given(hosts(), modes)
def test_planning_on_the_planned_state_changes_nothing(host, settings):
    """vCPUs would be pinned to and fro for ever, and lose their caches each time."""
    cpus, vms = host
    vms = [one._replace(vcpus=tuple(v._replace(delay_ns=0) for v in one.vcpus)) for one in vms]
    decided = first_plan(cpus, vms, settings)
    again = plan(
        snapshot(cpus, after(vms, decided.actions), 2), forgetting_moves(decided.remembered), settings
    )
    assert again.actions == ()


@thorough
@given(hosts())
def test_siblings_are_not_put_together(host):
    """A VM of four vCPUs would do the work of one."""
    cpus, vms = host
    # Where these sit alone nobody else may go, and there may be too little room for siblings.
    assume(not any(one.left_alone in ("dedicated_cpus", "real_time") for one in vms))
    decided = first_plan(cpus, vms, looks=3)
    seats = {(one.uuid, v.number): v.seat for one in vms for v in one.vcpus}
    changed = {key for a in decided.actions if (seats[key := (a.uuid, a.number)],) != a.to_cpus}
    for one in after(vms, decided.actions):
        for v in one.vcpus:
            if (one.uuid, v.number) not in changed or len(one.vcpus) > _room(one, cpus):
                continue
            others = [o for o in one.vcpus if o.number != v.number and len(o.cpus) == 1]
            assert v.cpus not in [o.cpus for o in others]


@thorough
@given(hosts())
def test_a_vm_stays_on_the_nodes_of_its_memory(host):
    """Every access of the VM to its memory would go through the link between the nodes."""
    cpus, vms = host
    node_of = {cpu.number: cpu.node for cpu in cpus}
    bound = {one.uuid: one.nodes for one in vms if one.nodes}
    for action in first_plan(cpus, vms, looks=3).actions:
        if action.uuid in bound:
            assert {node_of[cpu] for cpu in action.to_cpus} <= set(bound[action.uuid])


def _room(one: VmVcpus, cpus) -> int:
    """pCPUs of the smallest group that it could be in."""
    groups: dict[tuple[int, int], int] = {}
    for cpu in cpus:
        if not one.nodes or cpu.node in one.nodes:
            groups[cpu.node, cpu.cache] = groups.get((cpu.node, cpu.cache), 0) + 1
    return min(groups.values())
