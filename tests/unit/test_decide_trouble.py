"""Guests that do not do what they are told, and what vmpack owes them all the same."""

from __future__ import annotations

import dataclasses

from tests.builders import EAGER, NOW_S, SETTINGS, carried_out, guest, host, settings, unreadable
from tests.plans import rules, targets

from vmpack.decide.budget import budget
from vmpack.decide.memory import plan, remember
from vmpack.decide.release import plan_release
from vmpack.model.action import Outcome, SetMemory, SetStatsPeriod
from vmpack.model.guest import GuestPolicy
from vmpack.model.plan import Plan, Remembered
from vmpack.units import MIB

NOTHING = Remembered()


def outcomes(decided: Plan, deaf: tuple[str, ...] = ()) -> tuple[Outcome, ...]:
    """All done, but deaf VMs' balloons stay where they are."""
    found = []
    for action in decided.actions:
        if not isinstance(action, SetMemory):
            found.append(Outcome(action, "done"))
        elif action.name in deaf:
            found.append(Outcome(action, "partial", "", action.from_bytes))
        else:
            found.append(Outcome(action, "done", "", action.to_bytes))
    return tuple(found)


def without_deaf(decided: Plan, deaf: tuple[str, ...]) -> Plan:
    kept = tuple(action for action in decided.actions if action.name not in deaf)
    return dataclasses.replace(decided, actions=kept)


def test_a_donor_whose_balloon_does_not_move_blocks_nobody():
    """A guest in need would wait for ever for memory that never comes, while another has plenty."""
    snapshot = host(
        guest("deaf", nominal=512, balloon=512, used=20),
        guest("other", nominal=512, balloon=400, used=20),
        guest("needy", nominal=512, balloon=200, used=150),
        budget=1112,
    )
    remembered, deaf = NOTHING, ("deaf",)
    for _ in range(8):
        decided = plan(snapshot, remembered, SETTINGS)
        # What a deaf donor owes is not there to be given.
        paid = {a.name for a in decided.actions if isinstance(a, SetMemory) and not a.grows} - set(deaf)
        if not paid and decided.room_bytes <= 0:
            decided = dataclasses.replace(
                decided, actions=tuple(a for a in decided.actions if a.name != "needy")
            )
        remembered = remember(decided, outcomes(decided, deaf), snapshot.time_s)
        snapshot = carried_out(snapshot, without_deaf(decided, deaf), later_s=5.0)

    sizes = {entry.name: entry.balloon_bytes // MIB for entry in snapshot.guests}
    assert sizes["needy"] >= 204
    assert remembered.guests["uuid-deaf"].learned_floor_bytes == 512 * MIB


def given_and_not_taken(needy_balloon: int = 200) -> tuple[Plan, Remembered]:
    """A grow that was ordered and that the guest has not begun to take."""
    snapshot = host(guest("g1", nominal=512, balloon=needy_balloon, used=150))
    decided = plan(snapshot, NOTHING, SETTINGS)
    return decided, remember(decided, outcomes(decided, ("g1",)), NOW_S)


def later(seconds: float, **fields: object):
    now_s = NOW_S + seconds
    return host(guest("g1", nominal=512, balloon=200, used=150, now_s=now_s, **fields), now_s=now_s)


def test_an_order_that_got_lost_is_given_again():
    """A guest would stay short for ever because somebody else moved its balloon once."""
    decided, remembered = given_and_not_taken()
    asked = targets(decided)
    seen = []
    for seconds in range(5, 65, 5):
        decided = plan(later(seconds), remembered, SETTINGS)
        seen.append(targets(decided))
        remembered = remember(decided, outcomes(decided, ("g1",)), NOW_S + seconds)

    assert seen.count(asked) == 2
    assert "balloon_does_not_grow" in rules(decided, "g1")


def test_a_promise_not_yet_taken_is_taken_back_at_no_cost():
    """Room that nobody uses could not be given to those who need it."""
    decided, remembered = given_and_not_taken()
    (promised,) = targets(decided).values()
    needy = guest("needy", nominal=512, balloon=300, used=255, now_s=NOW_S + 5)
    snapshot = host(*later(5).guests, needy, budget=promised + 300, now_s=NOW_S + 5)
    decided = plan(snapshot, remembered, SETTINGS)
    lowered = next(action for action in decided.actions if action.name == "g1")

    assert lowered.promised_bytes == promised * MIB
    assert 200 * MIB < lowered.to_bytes < lowered.promised_bytes
    assert not lowered.grows


def test_a_shrink_that_need_has_overtaken_is_stopped():
    """A slow balloon would go on squeezing a guest that has begun to work."""
    snapshot = host(guest("g1", nominal=2048, balloon=2048, used=300))
    decided = plan(snapshot, NOTHING, EAGER)
    half_way = tuple(Outcome(action, "partial", "", 1500 * MIB) for action in decided.actions)
    remembered = remember(decided, half_way, NOW_S)
    busy = host(guest("g1", nominal=2048, balloon=1300, used=600, now_s=NOW_S + 5), now_s=NOW_S + 5)
    decided = plan(busy, remembered, EAGER)

    assert rules(decided, "g1")[-1] == "need_overtook_the_shrink"
    assert targets(decided)["g1"] == 1074


def test_a_silent_guest_is_fed_although_its_period_was_taken_away():
    """A guest that vmpack shrank would stay small because it can no longer say that it suffers."""
    snapshot = host(guest(used=30))
    decided = plan(snapshot, NOTHING, EAGER)
    remembered = remember(decided, outcomes(decided), NOW_S)
    heard = carried_out(snapshot, decided).guests[0]
    mute = dataclasses.replace(heard, stats_period_s=0)
    for seconds in range(5, 45, 5):
        decided = plan(host(mute, now_s=NOW_S + seconds), remembered, EAGER)
        remembered = remember(decided, (), NOW_S + seconds)

    assert targets(decided) == {"g1": 256}


def test_a_guests_word_on_its_balloon_does_not_make_host_memory():
    """One lying guest would let the host promise memory that is not there."""
    honest = guest("g1", nominal=8192, balloon=8000, used=400)
    liar = dataclasses.replace(honest, balloon_bytes=500 * MIB)

    truth = budget(host(honest, budget=9000), SETTINGS.host)
    lie = budget(dataclasses.replace(host(honest, budget=9000), guests=(liar,)), SETTINGS.host)

    assert lie.budget_bytes - 500 * MIB == truth.budget_bytes - 8000 * MIB


def test_a_hung_vm_is_counted_once():
    """Its neighbours would be squeezed to pay for memory that is counted twice."""
    fleet = (guest("a", used=60), guest("hung", used=60))
    resident = sum(entry.rss_bytes or 0 for entry in fleet)
    real = {"memory_total_bytes": 2048 * MIB, "memory_available_bytes": 2048 * MIB - resident - 300 * MIB}
    before = plan(host(*fleet, **real), NOTHING, SETTINGS)
    after = plan(host(fleet[0], unreadable=(unreadable("hung"),), **real), before.remembered, SETTINGS)

    assert abs(after.room_bytes - before.room_bytes) <= 128 * MIB


def test_a_hung_vm_that_was_never_seen_still_holds_its_memory():
    """After the agent's restart the host would be promised twice."""
    snapshot = host(guest("a"), unreadable=(unreadable("hung", 8192),), budget=9000)

    assert plan(snapshot, NOTHING, SETTINGS).room_bytes == (9000 - 8192 - 64 - 256) * MIB


def test_release_gives_back_what_nobody_remembers_having_taken():
    """A VM that was saved and restored, or an agent killed at the wrong moment, would stay small for ever."""
    restored = guest("restored", balloon=120, used=30)
    small_by_choice = guest("small", balloon=128, used=30, configured_bytes=128 * MIB)
    decided = plan_release(host(restored, small_by_choice), NOTHING, SETTINGS, None)
    by_hand = plan_release(host(small_by_choice), NOTHING, SETTINGS, frozenset({"uuid-small"}))

    assert targets(decided) == {"restored": 256}
    assert targets(by_hand) == {"small": 256}


def test_opting_out_gives_back_what_nobody_remembers_having_taken():
    """An owner's opt-out would be ignored after a restart of the host's agent."""
    out = guest(balloon=120, used=30, policy=GuestPolicy(opt_out=True))

    assert targets(plan(host(out), NOTHING, SETTINGS)) == {"g1": 256}


def test_release_stops_a_shrink_under_way():
    """The agent would be gone and the balloon go on taking."""
    snapshot = host(guest("g1", nominal=2048, balloon=2048, used=300))
    decided = plan(snapshot, NOTHING, EAGER)
    half_way = tuple(Outcome(action, "partial", "", 1500 * MIB) for action in decided.actions)
    remembered = remember(decided, half_way, NOW_S)
    still = host(
        guest("g1", nominal=2048, balloon=1500, used=300, now_s=NOW_S + 1), budget=1500, now_s=NOW_S + 1
    )

    assert targets(plan_release(still, remembered, SETTINGS, None)) == {"g1": 1500}


def test_a_paused_vm_is_promised_what_it_takes_when_it_goes_on():
    """Nobody would be there to give it its memory when it wakes."""
    decided = plan_release(host(guest(balloon=120, used=30, state="paused")), NOTHING, SETTINGS, None)

    assert targets(decided) == {"g1": 256}
    assert rules(decided, "g1") == ["released_when_it_goes_on"]


def test_only_our_own_statistics_period_is_put_back():
    """A period that the owner chose later would be overwritten."""
    snapshot = host(guest(stats=None, stats_period_s=0))
    decided = plan(snapshot, NOTHING, SETTINGS)
    remembered = remember(decided, outcomes(decided), NOW_S)

    def released(period_s: int) -> list[int]:
        now = host(guest(stats_period_s=period_s, now_s=NOW_S + 5), now_s=NOW_S + 5)
        actions = plan_release(now, remembered, SETTINGS, None).actions
        return [action.period_s for action in actions if isinstance(action, SetStatsPeriod)]

    assert released(1) == [0]
    assert released(10) == []


def test_a_report_that_is_older_than_the_balloons_arrival_teaches_nothing_of_the_mode():
    """One such report would make vmpack shrink the guest below its use."""
    rules_ = settings(calm_s=0.0, shrink_step_ratio=1.0)
    snapshot = host(guest("g1", nominal=2048, balloon=2048, used=300))
    decided = plan(snapshot, NOTHING, rules_)
    moving = tuple(
        Outcome(action, "partial", "", 1900 * MIB, ended_s=NOW_S + 4) for action in decided.actions
    )
    remembered = remember(decided, moving, NOW_S)
    (target,) = targets(decided).values()
    arrived = guest("g1", nominal=2048, balloon=target, used=300, now_s=NOW_S + 5)
    early = dataclasses.replace(
        arrived,
        stats=dataclasses.replace(
            arrived.stats, available_bytes=1700 * MIB, usable_bytes=1400 * MIB, sampled_s=NOW_S + 3.5
        ),
    )
    learned = plan(host(early, now_s=NOW_S + 5), remembered, rules_).remembered.guests["uuid-g1"]

    assert learned.use is not None
    assert learned.use.counts_balloon is not True
    assert learned.use.used_bytes == 300 * MIB


def test_a_vm_that_was_never_seen_costs_its_qemus_overhead_too():
    """A hung VM would make room on a pretended host, and its neighbours would grow over the budget."""
    alone = plan(host(guest("g1"), budget=900), NOTHING, SETTINGS)
    beside = plan(host(guest("g1"), budget=900, unreadable=(unreadable("hung"),)), NOTHING, SETTINGS)

    assert alone.budget.budget_bytes - beside.budget.budget_bytes == SETTINGS.host.vm_overhead_bytes
    assert alone.room_bytes - beside.room_bytes == 256 * MIB + SETTINGS.host.vm_overhead_bytes


def test_a_driver_that_is_not_up_teaches_no_floor():
    """A VM that was reset in the middle of a shrink would not be packed for ten minutes."""
    snapshot, remembered = host(guest(nominal=512, balloon=512, used=20)), NOTHING
    for number in range(4):
        decided = plan(snapshot, remembered, EAGER)
        stands = tuple(
            Outcome(a, "partial", "", a.from_bytes) for a in decided.actions if isinstance(a, SetMemory)
        )
        remembered = remember(decided, stands, snapshot.time_s)
        now_s = NOW_S + 5 * (number + 1)
        snapshot = host(guest(nominal=512, balloon=512, used=20, now_s=NOW_S), now_s=now_s)

    assert remembered.guests["uuid-g1"].learned_floor_bytes is None
