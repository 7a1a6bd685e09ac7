"""Carrying out plans, on VMs whose balloons move as a fake clock passes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fake_vms import FakeClock, FakeDriver, FakeVm

from vmpack.act.executor import Executor
from vmpack.model.action import Action, Outcome, SetMemory, SetStatsPeriod
from vmpack.model.plan import Budget, Offer, Plan, Remembered
from vmpack.units import MIB


def move(uuid: str, from_mib: int, to_mib: int, nominal_mib: int = 256) -> SetMemory:
    return SetMemory(uuid, uuid, from_mib * MIB, to_mib * MIB, nominal_mib * MIB)


def plan(*actions: Action, room_mib: int = 0) -> Plan:
    nothing = Budget(0, 0, 0, 0, 0)
    return Plan(actions, room_mib * MIB, (), nothing, Offer(0, 0, 0, 0, None, ()), (), None, Remembered())


def vm(balloon_mib: int, **fields: object) -> FakeVm:
    return FakeVm(balloon_mib * MIB, **fields)  # type: ignore[arg-type]


def carry_out(
    decided: Plan, clock: FakeClock | None = None, **vms: FakeVm
) -> tuple[tuple[Outcome, ...], FakeDriver]:
    clock = clock or FakeClock()
    driver = FakeDriver(clock, **vms)
    return Executor(driver, clock).carry_out(decided), driver


def summary(outcomes: tuple[Outcome, ...]) -> list[tuple[str, int | None]]:
    """Status and the size reached in MiB."""
    return [
        (entry.status, None if entry.reached_bytes is None else entry.reached_bytes // MIB)
        for entry in outcomes
    ]


def test_an_empty_plan_asks_for_nothing():
    """A quiet host would be touched in every interval."""
    outcomes, driver = carry_out(plan())

    assert outcomes == ()
    assert driver.asked == []


def test_outcomes_are_in_the_order_of_the_actions():
    """The journal would blame the wrong VM."""
    actions = (SetStatsPeriod("a", "a", 1), move("a", 200, 150), move("b", 100, 120))

    outcomes, driver = carry_out(plan(*actions, room_mib=0), a=vm(200), b=vm(100))

    assert tuple(entry.action for entry in outcomes) == actions
    assert summary(outcomes) == [("done", None), ("done", 150), ("done", 120)]
    assert driver.vms["a"].period_s == 1


def test_a_grow_waits_for_what_pays_for_it():
    """The host would be over its budget for as long as the shrink takes."""
    slow = vm(200, rate_bytes_per_s=100 * MIB)

    outcomes, driver = carry_out(plan(move("a", 200, 150), move("b", 100, 150)), a=slow, b=vm(100))

    assert summary(outcomes) == [("done", 150), ("done", 150)]
    assert driver.asked == [("a", 150), ("b", 150)]
    assert max(driver.granted_in_all_bytes) <= 300 * MIB


def test_a_promise_taken_back_pays_at_once():
    """A guest in need would wait for memory that nobody has taken."""
    lowered = SetMemory("a", "a", 100 * MIB, 150 * MIB, 256 * MIB, promised_bytes=200 * MIB)

    outcomes, driver = carry_out(plan(lowered, move("b", 100, 150)), a=vm(100, rate_bytes_per_s=0), b=vm(100))

    assert driver.asked == [("a", 150), ("b", 150)]
    assert summary(outcomes) == [("done", 100), ("done", 150)]


def test_a_promise_is_not_cut_by_a_grow_that_cannot_be_paid():
    """Asking for more would leave a guest with less than it was promised already."""
    more = SetMemory("a", "a", 100 * MIB, 250 * MIB, 256 * MIB, promised_bytes=200 * MIB)

    outcomes, driver = carry_out(plan(more, room_mib=-50), a=vm(100))

    assert driver.asked == []
    assert summary(outcomes) == [("skipped", 100)]


def test_only_what_goes_beyond_a_promise_is_paid():
    """Room would be kept back twice for the same memory."""
    more = SetMemory("a", "a", 100 * MIB, 250 * MIB, 256 * MIB, promised_bytes=200 * MIB)

    _, driver = carry_out(plan(more, room_mib=50), a=vm(100))

    assert driver.asked == [("a", 250)]


def test_a_paused_vm_can_be_promised_memory_and_not_robbed_of_it():
    """A VM that is paused when the agent stops would wake up small, with nobody there to help."""
    paused = {"running": False, "paused": True}
    outcomes, driver = carry_out(
        plan(move("b", 200, 150), move("a", 100, 200), room_mib=100), a=vm(100, **paused), b=vm(200, **paused)
    )

    assert driver.asked == [("a", 200)]
    assert summary(outcomes) == [("skipped", 200), ("partial", 100)]


def test_a_grow_that_free_room_pays_for_does_not_wait_for_shrinks():
    """A starving guest would wait for a neighbour's slow balloon although memory is free."""
    clock = FakeClock()
    stuck = vm(200, hard_floor_bytes=200 * MIB)
    starved = vm(100)
    seen: list[int] = []
    clock.each_step.append(lambda _: seen.append(starved.target_bytes or 0))

    carry_out(plan(move("a", 200, 150), move("b", 100, 120), room_mib=20), clock, a=stuck, b=starved)

    assert seen[0] == 120 * MIB


def test_only_what_was_really_freed_is_granted():
    """A balloon that stops short would be paid for with memory that the host does not have."""
    stuck = vm(200, hard_floor_bytes=180 * MIB)

    outcomes, driver = carry_out(plan(move("a", 200, 150), move("b", 100, 150)), a=stuck, b=vm(100))

    assert summary(outcomes) == [("partial", 180), ("partial", 120)]
    assert "180 MiB" in outcomes[0].detail
    assert "120 MiB" in outcomes[1].detail
    assert max(driver.granted_in_all_bytes) <= 300 * MIB


def test_a_grow_is_left_out_when_next_to_nothing_is_there():
    """A guest would be woken up for a sliver, and the journal would say that it was helped."""
    stuck = vm(200, hard_floor_bytes=198 * MIB)

    outcomes, driver = carry_out(plan(move("a", 200, 150), move("b", 100, 150)), a=stuck, b=vm(100))

    assert summary(outcomes)[1] == ("skipped", 100)
    assert driver.asked == [("a", 150)]


def test_grows_are_paid_in_the_order_of_the_plan():
    """The most starved VM, which comes first, would lose its turn to one that needs less."""
    decided = plan(move("a", 100, 160), move("b", 100, 110), room_mib=30)

    outcomes, _ = carry_out(decided, a=vm(100), b=vm(100))

    assert summary(outcomes) == [("partial", 130), ("skipped", 100)]


def test_a_host_over_its_budget_grants_nothing_before_it_is_below():
    """Negative room must be paid back first, or an overcommitted host gets worse."""
    decided = plan(move("a", 200, 150), move("b", 100, 150), room_mib=-40)

    outcomes, _ = carry_out(decided, a=vm(200), b=vm(100))

    assert summary(outcomes) == [("done", 150), ("partial", 110)]


@pytest.mark.parametrize(
    ("state", "status", "words"),
    [
        ({"fault": "gone"}, "skipped", "gone"),
        ({"fault": "busy"}, "skipped", "no answer"),
        ({"fault": "failed"}, "failed", "refused"),
        ({"running": False}, "skipped", "not running"),
        ({"job": "migration out"}, "skipped", "migration out"),
        ({"nominal_bytes": 512 * MIB}, "skipped", "nominal has changed to 512 MiB"),
    ],
)
@pytest.mark.parametrize("to_mib", [150, 250])
def test_a_vm_that_must_not_be_touched_is_an_outcome(state, status, words, to_mib):
    """One VM in trouble would end the interval of all, or be resized in the middle of its migration."""
    decided = plan(move("bad", 200, to_mib), move("b", 100, 120), room_mib=100)

    outcomes, driver = carry_out(decided, bad=vm(200, **state), b=vm(100))

    assert outcomes[0].status == status
    assert words in outcomes[0].detail
    assert summary(outcomes)[1] == ("done", 120)
    assert [uuid for uuid, _ in driver.asked] == ["b"]


def test_a_vm_that_took_memory_back_by_itself_is_not_squeezed():
    """Autodeflate gave way to real need since the snapshot; squeezing again could kill a process."""
    outcomes, driver = carry_out(plan(move("a", 150, 140)), a=vm(200))

    assert summary(outcomes) == [("skipped", 200)]
    assert driver.asked == []


def test_what_a_vm_took_by_itself_is_not_granted_again():
    """The same free memory would be spent twice."""
    decided = plan(move("a", 150, 140), move("b", 100, 150), room_mib=60)

    outcomes, _ = carry_out(decided, a=vm(180), b=vm(100))

    assert summary(outcomes)[1] == ("partial", 130)


def test_what_a_shrink_gives_back_is_not_granted_to_another():
    """A balloon that an older order took too far is let up again: that memory is not there for others."""
    deep = vm(140, target_bytes=100 * MIB)

    outcomes, driver = carry_out(plan(move("a", 200, 150), move("b", 100, 160)), a=deep, b=vm(100))

    assert summary(outcomes)[1] == ("partial", 150)
    assert max(driver.granted_in_all_bytes) <= 300 * MIB


def test_a_balloon_still_on_its_way_down_is_grown_from_where_it_is():
    """A starving guest would be refused because an older shrink went on since the snapshot."""
    outcomes, _ = carry_out(plan(move("a", 150, 180), room_mib=30), a=vm(140, target_bytes=100 * MIB))

    assert summary(outcomes) == [("done", 180)]


def test_a_vm_that_has_more_than_it_is_to_get_is_let_be():
    """Granting must never shrink."""
    outcomes, driver = carry_out(plan(move("a", 150, 180), room_mib=30), a=vm(200))

    assert summary(outcomes) == [("done", 200)]
    assert driver.asked == []


def test_an_order_to_stay_stops_an_older_squeeze():
    """A guest that the decision wants left alone would be squeezed on by an order from before."""
    squeezed = vm(150, target_bytes=100 * MIB, rate_bytes_per_s=10 * MIB)

    outcomes, driver = carry_out(plan(move("a", 150, 150)), a=squeezed)

    assert outcomes[0].status == "done"
    assert driver.vms["a"].target_bytes == 150 * MIB


def test_a_lost_connection_skips_the_rest():
    """Without libvirt every further call would wait for its deadline, guests unserved for minutes."""
    decided = plan(move("a", 200, 150), move("b", 200, 150), move("c", 100, 150), room_mib=50)

    outcomes, driver = carry_out(decided, a=vm(200), b=vm(200, fault="lost"), c=vm(100))

    assert [entry.status for entry in outcomes] == ["partial", "skipped", "skipped"]
    assert all("connection" in entry.detail for entry in outcomes)
    assert driver.asked == [("a", 150)]


def test_a_vm_that_ends_while_it_shrinks_does_not_hold_up_the_others():
    """The executor would wait for a balloon that no longer exists, or end with an exception."""
    clock = FakeClock()
    dying = vm(200, rate_bytes_per_s=10 * MIB)
    clock.each_step.append(lambda _: setattr(dying, "fault", "gone"))

    outcomes, _ = carry_out(plan(move("a", 200, 150), move("b", 200, 150)), clock, a=dying, b=vm(200))

    assert summary(outcomes) == [("partial", 200), ("done", 150)]
    assert clock.now_s < 1001


def test_a_stop_request_ends_the_watch():
    """Stopping the agent would take as long as the slowest balloon."""
    clock = FakeClock()
    clock.stopping = True

    outcomes, _ = carry_out(plan(move("a", 200, 150)), clock, a=vm(200, hard_floor_bytes=200 * MIB))

    assert summary(outcomes) == [("partial", 200)]
    assert clock.now_s < 1000.1


@given(
    shrinks=st.lists(st.tuples(st.integers(100, 256), st.integers(60, 256), st.integers(0, 256)), max_size=5),
    grows=st.lists(st.tuples(st.integers(60, 250), st.integers(1, 190)), max_size=5),
    room_mib=st.integers(-100, 300),
)
def test_grants_never_exceed_room_and_what_was_freed(shrinks, grows, room_mib):
    """The budget is the promise that keeps the host alive, whatever balloons do."""
    vms, actions = {}, []
    for number, (balloon, target, floor) in enumerate(shrinks):
        vms[f"s{number}"] = vm(balloon, hard_floor_bytes=floor * MIB)
        actions.append(move(f"s{number}", balloon, min(balloon, target)))
    for number, (balloon, more) in enumerate(grows):
        vms[f"g{number}"] = vm(balloon)
        actions.append(move(f"g{number}", balloon, min(256, balloon + more)))
    before = sum(entry.balloon_bytes for entry in vms.values())

    outcomes, driver = carry_out(plan(*actions, room_mib=room_mib), **vms)

    assert len(outcomes) == len(actions)
    after = sum(entry.balloon_bytes for entry in driver.vms.values())
    assert after <= before + max(0, room_mib) * MIB


@pytest.mark.parametrize(
    ("gives_back", "fault", "status"),
    [
        (False, "busy", "partial"),
        (False, "lost", "partial"),
        (False, "failed", "failed"),
        (True, "busy", "skipped"),
    ],
)
def test_a_period_without_an_answer_counts_as_asked(gives_back: bool, fault: str, status: str):
    """It may be set all the same; forgotten, nobody would ever put the owner's back."""
    (outcome,), _ = carry_out(plan(SetStatsPeriod("a", "a", 1, 10, gives_back)), a=vm(200, fault=fault))

    assert outcome.status == status and outcome.detail
