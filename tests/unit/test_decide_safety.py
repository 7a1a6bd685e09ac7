"""The brake for a host that runs short, and what is learned from a guest that killed something."""

from __future__ import annotations

import dataclasses

from tests.builders import EAGER, NOW_S, SETTINGS, guest, host

from vmpack.decide import explain
from vmpack.decide.memory import plan, remember
from vmpack.decide.release import plan_release
from vmpack.model.action import Outcome, SetMemory, SetStatsPeriod
from vmpack.model.host import HostSnapshot, Pressure
from vmpack.model.plan import Plan, Remembered
from vmpack.units import GIB, MIB

NOTHING = Remembered()
RESERVED = dataclasses.replace(SETTINGS, host=dataclasses.replace(SETTINGS.host, reserve_ratio=0.05))


def moves(decided: Plan) -> dict[str, int]:
    return {a.name: a.to_bytes // MIB for a in decided.actions if isinstance(a, SetMemory)}


def test_a_host_that_stalls_for_memory_takes_back_comfort_at_once():
    """Waiting for calm while the machine thrashes ends with QEMUs killed by the host."""
    stalls = Pressure(0.5, 0.2, 10**6, 10**6)
    idle, busy = guest("idle", used=30), guest("busy", used=100, balloon=160)

    near = {"memory_available_bytes": 90 * GIB, "memory_total_bytes": 1024 * GIB}
    small = [dataclasses.replace(entry, rss_bytes=None) for entry in (idle, busy)]

    calm = plan(host(*small, budget=2000), NOTHING, SETTINGS)
    braked = plan(host(*small, budget=2000, pressure=stalls, **near), NOTHING, RESERVED)

    assert moves(calm) == {"busy": 186}
    # used + 38 kernel + 16 fixed headroom; no elastic part, and no growth for comfort
    assert moves(braked) == {"idle": 84, "busy": 154}
    assert braked.offer.memory_bytes == 0 < calm.offer.memory_bytes
    assert "stalls for want of memory (20 % of the time)" in explain.words(braked.reasons[0])[0]


def test_a_job_that_thrashes_in_its_own_limit_brakes_nobody():
    """One container at its limit stalls for memory on a host that has plenty; all VMs would pay for it."""
    stalls = Pressure(0.5, 0.2, 10**6, 10**6)

    assert plan(host(guest(), pressure=stalls), NOTHING, RESERVED).reasons == ()


def test_the_brake_is_let_go_only_after_calm():
    """Comfort would be given and taken again with every wave of pressure."""
    short = dataclasses.replace(host(guest()), memory_available_bytes=20 * GIB)
    remembered = plan(short, NOTHING, RESERVED).remembered

    def braked(later_s: float) -> bool:
        calm = dataclasses.replace(host(guest(now_s=NOW_S + later_s)), time_s=NOW_S + later_s)
        return "host_runs_short" in {why.rule for why in plan(calm, remembered, RESERVED).reasons}

    assert braked(29) and not braked(31)


def test_a_host_whose_reserve_is_half_eaten_brakes_too():
    """A kernel without PSI still has MemAvailable."""
    short = dataclasses.replace(host(guest(used=30)), memory_available_bytes=20 * GIB)
    enough = dataclasses.replace(short, memory_available_bytes=30 * GIB)

    assert plan(short, NOTHING, RESERVED).reasons[0].rule == "host_runs_short"
    assert "host_runs_short" not in {reason.rule for reason in plan(enough, NOTHING, RESERVED).reasons}


def kills(counts: list[int | None], balloon: int = 120, step_s: float = 5.0) -> tuple[Plan, Remembered]:
    """The plan after a guest at this balloon told these counts, one per interval."""
    remembered, decided = NOTHING, None
    for number, count in enumerate(counts):
        now_s = NOW_S + step_s * number
        snapshot = host(guest(balloon=balloon, used=30, now_s=now_s, oom_kills=count), now_s=now_s)
        decided = plan(snapshot, remembered, EAGER)
        remembered = remember(decided, (), now_s)
    assert decided is not None
    return decided, remembered


def test_a_guest_that_killed_something_while_packed_gets_its_nominal_for_an_hour():
    """The next identical burst would be killed again, every time."""
    decided, remembered = kills([3, 3, 4])
    known = remembered.guests["uuid-g1"]

    assert moves(decided) == {"g1": 256}
    assert decided.guests[0].reasons[0].rule == "guest_killed_something"
    assert known.kill_floor_until_s == NOW_S + 10 + 3600 and known.killed_s == NOW_S + 10

    decided, remembered = kills([3, 3, 4] + [4] * 721)
    assert remembered.guests["uuid-g1"].kill_floor_until_s is None
    assert decided.guests[0].reasons[0].rule == "use_plus_headroom"


def test_a_second_kill_counts_double():
    """A guest that is killed each hour would be squeezed each hour."""
    _, remembered = kills([3, 4, 5])
    known = remembered.guests["uuid-g1"]

    assert known.kills_seen == 2
    assert known.kill_floor_until_s == NOW_S + 10 + 7200


def test_kills_that_are_not_ours_teach_nothing():
    """A guest too small for its work would never be packed again, though packing did it no harm."""
    for counts, balloon in (([5], 120), ([5, 0], 120), ([None, 7], 120), ([5, 6], 256), ([5, None, 5], 120)):
        decided, remembered = kills(list(counts), balloon)
        assert remembered.guests["uuid-g1"].kills_seen == 0, counts
        assert decided.guests[0].reasons[0].rule == "use_plus_headroom"


def periods(snapshot: HostSnapshot, remembered: Remembered) -> list[SetStatsPeriod]:
    decided = plan(snapshot, remembered, SETTINGS)
    return [action for action in decided.actions if isinstance(action, SetStatsPeriod)]


def test_a_long_statistics_period_is_shortened_once_and_remembered():
    """Ten seconds, as OpenStack sets it, is too late for a guest that was packed; its owner may insist."""
    snapshot = host(guest(stats_period_s=10))
    decided = plan(snapshot, NOTHING, SETTINGS)
    (shorten,) = periods(snapshot, NOTHING)
    remembered = remember(decided, [Outcome(shorten, "done")], NOW_S)

    assert (shorten.period_s, shorten.before_s) == (1, 10)
    assert remembered.guests["uuid-g1"].stats_period_before_s == 10
    assert periods(host(guest(stats_period_s=2)), NOTHING) == []
    assert periods(snapshot, remembered) == []


def test_a_kill_after_a_quiet_week_is_the_first_again():
    """One kill a fortnight would end in a VM that is never packed."""
    _, remembered = kills([3, 4])
    known = remembered.guests["uuid-g1"]
    later_s = NOW_S + 8 * 86400
    snapshot = host(guest(balloon=120, used=30, now_s=later_s, oom_kills=5), now_s=later_s)

    assert known.kills_seen == 1
    assert plan(snapshot, remembered, EAGER).remembered.guests["uuid-g1"].kills_seen == 1


def test_a_braked_host_gives_nobody_more_for_an_old_kill():
    """While the host dies, a guest's bad memory must not be paid by its neighbours."""
    _, remembered = kills([3, 3, 4])
    now_s = NOW_S + 15
    snapshot = host(guest(balloon=120, used=30, now_s=now_s, oom_kills=4), now_s=now_s)
    short = dataclasses.replace(snapshot, memory_available_bytes=20 * GIB)

    assert moves(plan(snapshot, remembered, EAGER)) == {"g1": 256}
    assert moves(plan(short, remembered, RESERVED)) == {}


def test_a_period_that_was_given_back_is_shortened_again_by_the_next_agent():
    """After one restart need would be seen ten seconds late for ever."""
    found = host(guest(stats_period_s=10))
    (shorten,) = periods(found, NOTHING)
    remembered = remember(plan(found, NOTHING, SETTINGS), [Outcome(shorten, "done")], NOW_S)
    set_ = host(guest(stats_period_s=1))
    release = plan_release(set_, remembered, SETTINGS, None)
    (back,) = [action for action in release.actions if isinstance(action, SetStatsPeriod)]

    assert (back.period_s, back.gives_back) == (10, True)
    unheard = remember(release, [Outcome(back, "partial")], NOW_S)
    assert plan_release(set_, unheard, SETTINGS, None).actions == (back,)
    assert periods(found, remember(release, [Outcome(back, "done")], NOW_S)) == [shorten]


def test_a_period_that_another_host_set_goes_back_to_the_lasting_definition():
    """A VM that migrated would report every second for the rest of its life."""
    came = host(guest(balloon=120, used=30, stats_period_s=1, configured_period_s=10))
    decided = plan(came, NOTHING, EAGER)
    moved = [Outcome(a, "done", "", a.to_bytes) for a in decided.actions if isinstance(a, SetMemory)]
    ours = plan_release(came, NOTHING, SETTINGS, None).actions
    assert not [action for action in ours if isinstance(action, SetStatsPeriod)] and moved == []

    grown = host(guest(balloon=120, used=90, stats_period_s=1, configured_period_s=10))
    decided = plan(grown, NOTHING, EAGER)
    moved = [Outcome(a, "done", "", a.to_bytes) for a in decided.actions if isinstance(a, SetMemory)]
    remembered = remember(decided, moved, NOW_S)
    back = [
        a for a in plan_release(grown, remembered, SETTINGS, None).actions if isinstance(a, SetStatsPeriod)
    ]
    assert [action.period_s for action in back] == [10]
