"""What a host's scheduler is granted: properties over all hosts and offers, and the cases one can name."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmpack.decide.grant import arriving_bytes, plan_grant, plan_withdrawal
from vmpack.model.cluster import AgentReport, CloudHost, GrantPlan, NoReport, ReportedVm
from vmpack.model.settings import GrantSettings
from vmpack.units import GIB, MIB

NOW_S = 1_790_000_000.0
SETTINGS = GrantSettings()
NOMINALS = {"one-1": 4 * GIB, "one-2": 4 * GIB, "one-3": 3 * GIB}

sizes = st.integers(0, 64 * GIB)
settings = st.builds(
    GrantSettings,
    factor=st.floats(0, 1),
    step_bytes=st.integers(MIB, GIB),
    calm_s=st.floats(0, 3600),
)
reports = st.builds(
    AgentReport,
    state=st.sampled_from(("active", "observe", "frozen")),
    stale=st.booleans(),
    capacity_bytes=sizes,
    packed_bytes=sizes,
    offered_bytes=sizes,
    vms=st.lists(
        st.builds(ReportedVm, st.just("u"), st.sampled_from(("one-1", "one-2", "wild")), sizes, sizes),
        max_size=3,
    ).map(tuple),
)
known = st.dictionaries(st.sampled_from(("one-1", "one-2", "one-3")), sizes)
answers = st.one_of(reports, st.builds(NoReport, st.just("no answer")))
hosts = st.builds(
    CloudHost,
    id=st.just("3"),
    name=st.just("node-a"),
    state=st.sampled_from(("up", "disabled", "down")),
    cluster=st.just("default"),
    managed=st.just(True),
    total_bytes=sizes,
    base_bytes=sizes,
    promised_bytes=sizes,
    granted_bytes=st.one_of(st.none(), st.integers(-GIB, 64 * GIB)),
    granted_s=st.one_of(st.none(), st.floats(0, 2 * NOW_S)),
    domains=st.just(("one-1", "one-2")),
)


def host(promised: int = 8 * GIB, granted: int | None = None, **more: object) -> CloudHost:
    """A host of 8 GiB with two VMs."""
    plain = CloudHost("3", "node-a", "up", "default", True, 8 * GIB, 8 * GIB, promised, granted)
    return replace(plain, domains=("one-1", "one-2"), **more)  # type: ignore[arg-type]


def report(offered: int, packed: int, *vms: ReportedVm) -> AgentReport:
    """What a packing agent says; its two VMs have 4 GiB each where none are named."""
    usual = (ReportedVm("u1", "one-1", 4 * GIB, GIB), ReportedVm("u2", "one-2", 4 * GIB, GIB))
    return AgentReport("active", False, 8 * GIB, packed, offered, vms or usual)


def carried_out(plan: GrantPlan) -> CloudHost:
    """The host as the cloud shows it afterwards."""
    if not plan.write:
        return plan.host
    granted = plan.granted_bytes or None
    return replace(plan.host, granted_bytes=granted, granted_s=NOW_S)


@given(hosts, known, answers, settings)
def test_the_scheduler_never_sees_more_than_the_room(
    host: CloudHost, nominals: dict[str, int], answer: AgentReport | NoReport, settings: GrantSettings
) -> None:
    """A byte promised twice is a VM that starves or a host that is killed."""
    after = carried_out(plan_grant(host, nominals, answer, settings, NOW_S))
    granted = after.granted_bytes or 0

    if granted > 0:
        assert isinstance(answer, AgentReport) and answer.state == "active" and not answer.stale
        assert granted <= settings.factor * answer.packed_bytes
        free = after.base_bytes + granted - after.promised_bytes
        assert free <= max(0, answer.offered_bytes - arriving_bytes(host, nominals, answer))


@given(hosts, known, answers, settings)
def test_a_host_is_never_left_with_less_than_its_base(
    host: CloudHost, nominals: dict[str, int], answer: AgentReport | NoReport, settings: GrantSettings
) -> None:
    """vmpack may give the scheduler more than the administrator did, never take from it."""
    plan = plan_grant(host, nominals, answer, settings, NOW_S)

    assert not plan.write or plan.granted_bytes >= 0


@given(hosts, known, answers, settings)
def test_a_second_pass_changes_nothing(
    host: CloudHost, nominals: dict[str, int], answer: AgentReport | NoReport, settings: GrantSettings
) -> None:
    """Each write is a row in the cloud's database and an event for all who listen."""
    after = carried_out(plan_grant(host, nominals, answer, settings, NOW_S))
    again = plan_grant(after, nominals, answer, replace(settings, calm_s=0.0), NOW_S)

    if not plan_grant(after, nominals, answer, settings, NOW_S).reason.startswith("may be raised"):
        assert not again.write


@given(hosts, known, answers, settings)
def test_lowering_never_waits(
    host: CloudHost, nominals: dict[str, int], answer: AgentReport | NoReport, settings: GrantSettings
) -> None:
    """Between need and the next look a scheduler places VMs on room that is gone."""
    patient = plan_grant(host, nominals, answer, replace(settings, calm_s=3600.0), NOW_S)
    eager = plan_grant(host, nominals, answer, replace(settings, calm_s=0.0), NOW_S)

    if eager.granted_bytes < (host.granted_bytes or 0):
        assert patient == eager


@given(hosts)
def test_switched_off_means_nothing_of_ours_is_left(host: CloudHost) -> None:
    """Who takes vmpack away wants his own numbers back."""
    plan = plan_withdrawal(host, "switched off")

    assert plan.granted_bytes == 0 and plan.write == (host.granted_bytes is not None)


@pytest.mark.parametrize(
    ("promised", "offered", "packed", "granted"),
    [
        (8 * GIB, 3 * GIB, 4 * GIB, 3 * GIB),
        (8 * GIB, 3 * GIB + 70 * MIB, 4 * GIB, 3 * GIB + 64 * MIB),
        (8 * GIB, 3 * GIB, 2 * GIB, 2 * GIB),
        (8 * GIB, 0, 4 * GIB, 0),
        (8 * GIB, 63 * MIB, 4 * GIB, 0),
    ],
    ids=["the offer", "in whole steps", "no more than is packed", "no offer", "less than a step"],
)
def test_a_full_host(promised: int, offered: int, packed: int, granted: int) -> None:
    """These are the sums that an administrator does in his head; they must come out the same."""
    plan = plan_grant(host(promised), NOMINALS, report(offered, packed), SETTINGS, NOW_S)

    assert (plan.granted_bytes, plan.write) == (granted, granted > 0)


def test_a_half_empty_host_is_not_promised_twice() -> None:
    """The scheduler already sees the unused half: adding the whole offer would count it again."""
    vm = ReportedVm("u1", "one-1", 4 * GIB, 2 * GIB)

    plan = plan_grant(host(4 * GIB), NOMINALS, report(5 * GIB, 2 * GIB, vm), SETTINGS, NOW_S)

    assert plan.granted_bytes == GIB


def test_a_vm_that_is_still_on_its_way_counts() -> None:
    """Else each new VM would make room for the next one until its guest boots."""
    packing = report(3 * GIB, 4 * GIB)
    first = carried_out(plan_grant(host(8 * GIB), NOMINALS, packing, SETTINGS, NOW_S))

    second = plan_grant(replace(first, promised_bytes=11 * GIB), NOMINALS, packing, SETTINGS, NOW_S + 3600)

    assert second.granted_bytes == 3 * GIB
    assert second.host.base_bytes + second.granted_bytes - second.host.promised_bytes == 0


def test_grants_that_are_used_do_not_end_the_granting() -> None:
    """A host with more promised than it has may still have room: what counts is what its VMs use."""
    more = ReportedVm("u3", "one-3", 3 * GIB, 2 * GIB)
    used = replace(host(11 * GIB, 3 * GIB, granted_s=0.0), domains=("one-1", "one-2", "one-3"))
    known = report(2 * GIB, 7 * GIB)

    plan = plan_grant(used, NOMINALS, replace(known, vms=(*known.vms, more)), SETTINGS, NOW_S)

    assert plan.granted_bytes == 5 * GIB


def test_memory_that_no_owner_pays_for_is_not_granted() -> None:
    """A VM built with more than its owner pays for looks packed, and nobody was ever promised the rest."""
    built_larger = ReportedVm("u1", "one-1", 16 * GIB, 4 * GIB)
    plain = ReportedVm("u2", "one-2", 4 * GIB, 3 * GIB)

    plan = plan_grant(host(), NOMINALS, report(3 * GIB, 13 * GIB, built_larger, plain), SETTINGS, NOW_S)

    assert plan.granted_bytes == GIB


def test_a_larger_nominal_at_the_agent_hides_no_vm_on_its_way() -> None:
    """Else the room of a VM that still boots would be given away again."""
    built_larger = ReportedVm("u1", "one-1", 16 * GIB, GIB)
    sound = report(3 * GIB, 16 * GIB, built_larger)

    assert arriving_bytes(host(8 * GIB), NOMINALS, sound) == 4 * GIB


def test_raising_waits_for_calm_and_lowering_does_not() -> None:
    """A scheduler must not chase every breath of the guests."""
    fresh = host(granted=GIB, granted_s=NOW_S - 59)

    assert not plan_grant(fresh, NOMINALS, report(3 * GIB, 4 * GIB), SETTINGS, NOW_S).write
    assert plan_grant(fresh, NOMINALS, report(3 * GIB, 4 * GIB), SETTINGS, NOW_S + 1).granted_bytes == 3 * GIB
    assert plan_grant(fresh, NOMINALS, report(512 * MIB, 4 * GIB), SETTINGS, NOW_S).granted_bytes == 512 * MIB
    assert not plan_grant(fresh, NOMINALS, report(GIB, 4 * GIB), SETTINGS, NOW_S).write


def test_a_clock_that_ran_ahead_stops_no_grant() -> None:
    """One wrong clock must not keep a host's memory unused for years."""
    ahead = host(granted=GIB, granted_s=2 * NOW_S)

    assert plan_grant(ahead, NOMINALS, report(3 * GIB, 4 * GIB), SETTINGS, NOW_S).granted_bytes == 3 * GIB


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (NoReport("ssh: no route to host"), "no route to host"),
        (replace(report(3 * GIB, 4 * GIB), state="observe"), "only observes"),
        (replace(report(3 * GIB, 4 * GIB), state="frozen"), "frozen"),
        (replace(report(3 * GIB, 4 * GIB), stale=True), "is old"),
    ],
)
def test_a_host_that_does_not_pack_gets_its_grant_withdrawn(answer: AgentReport | NoReport, why: str) -> None:
    """Nobody gives memory back there when it is needed: nothing beyond the host's own may be promised."""
    plan = plan_grant(host(granted=GIB), NOMINALS, answer, SETTINGS, NOW_S)

    assert (plan.granted_bytes, plan.write) == (0, True) and why in plan.reason
    assert not plan_grant(host(), NOMINALS, answer, SETTINGS, NOW_S).write


def test_what_cannot_be_understood_is_left_as_it_is() -> None:
    """An administrator's value is not overwritten because vmpack does not know what he meant."""
    odd = host(granted=None, fault="RESERVED_MEM is 'abc'")

    packing = report(3 * GIB, 4 * GIB)
    for plan in (plan_grant(odd, NOMINALS, packing, SETTINGS, NOW_S), plan_withdrawal(odd, "off")):
        assert not plan.write and "abc" in plan.reason


def test_a_grant_that_stands_goes_when_its_base_is_no_longer_understood() -> None:
    """A typing mistake elsewhere would freeze an overcommitted host as it is."""
    odd = host(granted=GIB, marked=True, fault="its cluster's RESERVED_MEM is 'abc'")
    packing = report(3 * GIB, 4 * GIB)

    for plan in (plan_grant(odd, NOMINALS, packing, SETTINGS, NOW_S), plan_withdrawal(odd, "off")):
        assert (plan.write, plan.granted_bytes) == (True, 0) and "abc" in plan.reason


def test_what_is_left_of_an_overwritten_grant_is_cleared() -> None:
    """Its marks would keep the host from ever being converted back."""
    overwritten = host(granted=None, marked=True)

    plan = plan_withdrawal(overwritten, "off")
    assert (plan.write, plan.granted_bytes) == (True, 0)


def test_without_the_clouds_vms_nothing_is_raised_and_all_is_lowered() -> None:
    """A VM pool that cannot be read would leave the grants of dead hosts standing."""
    packing = report(3 * GIB, 4 * GIB)
    assert not plan_grant(host(granted=GIB), None, packing, SETTINGS, NOW_S).write
    lowered = plan_grant(host(granted=4 * GIB), None, packing, SETTINGS, NOW_S)
    assert (lowered.write, lowered.granted_bytes) == (True, 3 * GIB)
    assert plan_grant(host(granted=GIB), None, NoReport("dead"), SETTINGS, NOW_S).write


def test_an_offer_beyond_the_hosts_memory_is_not_believed() -> None:
    """An agent that says it offers more than its host has would fill that host to its death."""
    odd = replace(report(64 * GIB, 8 * GIB), capacity_bytes=2 * GIB)

    assert plan_grant(host(), NOMINALS, odd, SETTINGS, NOW_S).granted_bytes == 2 * GIB


def test_a_vm_that_is_told_twice_counts_once() -> None:
    """An agent that names a VM twice would hide one that is on its way."""
    twice = ReportedVm("u1", "one-1", 4 * GIB, GIB)
    answer = report(3 * GIB, 8 * GIB, twice, twice)

    assert arriving_bytes(host(8 * GIB), NOMINALS, answer) == 4 * GIB
