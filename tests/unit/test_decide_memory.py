"""Where memory goes: one behaviour per test, on hand-made hosts."""

from __future__ import annotations

import dataclasses

import pytest
from tests.builders import EAGER, NOW_S, SETTINGS, guest, host, settings, unreadable
from tests.plans import after, done, of, rules, targets

from vmpack.decide.memory import plan, remember
from vmpack.model.action import Outcome, SetStatsPeriod
from vmpack.model.guest import GuestPolicy
from vmpack.model.host import Claim
from vmpack.model.plan import Remembered
from vmpack.model.policy_namespace import ACTION_HOLD_S
from vmpack.units import MIB

NOTHING = Remembered()


def test_unused_memory_is_packed_down_to_use_and_headroom():
    """Without this nothing is ever packed."""
    decided = plan(host(guest(used=60)), NOTHING, EAGER)

    # 60 used + 38 kernel + 16 fixed + 32 elastic, up to whole 2 MiB
    assert targets(decided) == {"g1": 146}


def test_a_vms_own_least_headroom_holds_instead_of_the_hosts():
    """An owner who asked for room that is always free must have it, also on a small guest."""
    roomy = guest(used=60, policy=GuestPolicy(headroom_min_bytes=64 * MIB))
    tight = guest(used=60, policy=GuestPolicy(headroom_min_bytes=0, headroom_ratio=0.0))

    assert targets(plan(host(roomy), NOTHING, EAGER)) == {"g1": 178}
    assert targets(plan(host(tight), NOTHING, EAGER)) == {"g1": 114}


def test_an_owners_wish_only_makes_packing_gentler():
    """An owner's zero would take more from his guest than the host's own rules do."""
    fields = ("floor_bytes", "headroom_min_bytes", "headroom_ratio")
    nothing = {"floor_bytes": 0, "headroom_min_bytes": 0, "headroom_ratio": 0.0}
    wish = plan(host(guest(used=60, policy=GuestPolicy(**nothing, of_owner=fields))), NOTHING, EAGER)
    plain = plan(host(guest(used=60)), NOTHING, EAGER)

    no_least = dataclasses.replace(EAGER, memory=dataclasses.replace(EAGER.memory, headroom_min_bytes=0))
    by_ratio = guest(used=60, policy=GuestPolicy(headroom_ratio=0.0, of_owner=("headroom_ratio",)))
    expected = targets(plan(host(guest(used=60)), NOTHING, no_least))

    assert targets(wish) == targets(plain)
    assert targets(plan(host(by_ratio), NOTHING, no_least)) == expected
    assert of(wish, "g1").floor_bytes == of(plain, "g1").floor_bytes > 0


def test_a_new_vm_is_left_alone_until_it_has_been_calm():
    """A booting guest would be squeezed before it shows what it needs."""
    snapshot = host(guest())

    first = plan(snapshot, NOTHING, SETTINGS)
    later, remembered = after(snapshot, first, later_s=29)
    second = plan(later, remembered, SETTINGS)
    latest, remembered = after(later, second, later_s=40)

    assert targets(first) == targets(second) == {}
    assert rules(second, "g1")[-1] == "not_calm_yet"
    assert targets(plan(latest, remembered, SETTINGS)) == {"g1": 192}


def test_shrinking_goes_in_steps_and_stops_at_the_target():
    """One large step would hit a guest that is about to need the memory."""
    snapshot, remembered, seen = host(guest()), NOTHING, []
    for _ in range(30):
        decided = plan(snapshot, remembered, settings(calm_s=0.0))
        seen += targets(decided).values()
        snapshot, remembered = after(snapshot, decided)

    assert seen == [192, 116]


def test_a_guest_below_its_minimum_grows_at_once_to_what_it_wants():
    """A guest in need would wait while the host has room."""
    decided = plan(host(guest(balloon=128, used=80)), NOTHING, SETTINGS)

    assert of(decided, "g1").verdict == "grow"
    assert targets(decided) == {"g1": 166}


def test_a_rise_under_way_is_met_before_it_arrives():
    """A ramp would outrun the interval and the guest would kill a process."""
    snapshot = host(guest(balloon=160, used=40))
    first = plan(snapshot, NOTHING, SETTINGS)
    later, remembered = after(snapshot, first)
    later = dataclasses.replace(later, guests=(guest(balloon=160, used=65, now_s=NOW_S + 5),))

    numbers = of(plan(later, remembered, SETTINGS), "g1").reasons[0].numbers

    # 25 MiB in 5 s, for a glance and a report every second and one second of slack
    assert numbers["rise_bytes"] == 5 * 3 * MIB


def test_neighbours_pay_at_once_for_a_guest_in_need_on_a_full_host():
    """The needy guest would starve while others sit on unused memory."""
    snapshot = host(guest("needy", balloon=128, used=85), guest("idle", balloon=256, used=20), budget=384)

    decided = plan(snapshot, NOTHING, SETTINGS)

    assert targets(decided) == {"needy": 172, "idle": 192}
    assert [action.to_bytes > action.from_bytes for action in decided.actions] == [False, True]
    assert rules(decided, "idle") == ["use_plus_headroom", "pays_for_others"]


def test_elastic_headroom_gives_way_before_anyone_lacks_its_minimum():
    """Comfort of one guest would cost another its need."""
    guests = (guest("a", balloon=200, used=110), guest("b", balloon=160, used=110))
    decided = plan(host(*guests, budget=340), NOTHING, SETTINGS)

    assert targets(decided) == {"a": 170, "b": 170}
    assert decided.migration is None


def test_equal_guests_get_equal_parts_when_even_minimums_do_not_fit():
    """One starving guest would be fed and its twin forgotten."""
    guests = [guest(name, balloon=100, used=100) for name in ("a", "b", "c")]

    decided = plan(host(*guests, budget=360), NOTHING, SETTINGS)

    assert targets(decided) == {"a": 120, "b": 120, "c": 120}


def test_twice_the_shares_is_half_the_unmet_need():
    """Shares that an administrator sold would mean nothing; what a starving VM may need is its nominal."""
    shares, balloons, remembered = {"one": 1000, "two": 2000}, {"one": 120, "two": 120}, NOTHING
    for number in range(6):
        now_s = NOW_S + 5 * number
        starving = [
            guest(name, balloon=size, used=400, now_s=now_s, policy=GuestPolicy(shares=shares[name]))
            for name, size in balloons.items()
        ]
        decided = plan(host(*starving, budget=340, now_s=now_s), remembered, SETTINGS)
        remembered = remember(decided, done(decided), now_s)
        balloons |= targets(decided)
    unmet = {name: 256 - size for name, size in balloons.items()}

    assert sum(balloons.values()) > 336
    assert unmet["one"] / unmet["two"] == pytest.approx(2, rel=0.05)


def test_equal_hungry_vms_get_equal_parts_however_far_each_has_grown():
    """Who asks first would keep more for as long as the shortage lasts."""
    ahead, behind = guest("ahead", balloon=200, used=100), guest("behind", balloon=130, used=60)
    first = plan(host(ahead, behind, budget=330), NOTHING, SETTINGS)
    rising = host(
        guest("ahead", balloon=200, used=125, now_s=NOW_S + 1),
        guest("behind", balloon=130, used=85, now_s=NOW_S + 1),
        budget=330,
        now_s=NOW_S + 1,
    )
    decided = plan(rising, remember(first, (), NOW_S), SETTINGS)
    parts = [of(decided, name).target_bytes // MIB for name in ("ahead", "behind")]

    assert "host_is_scarce" in {reason.rule for reason in decided.reasons}
    # What `ahead` uses with its fixed headroom is never taken from it.
    assert parts[0] == pytest.approx(180, abs=2)
    assert sum(parts) >= 326


def test_over_budget_everyone_with_spare_shrinks_and_nobody_grows():
    """The host itself would run out of memory: the worst outcome of all."""
    guests = (guest("full", balloon=128, used=90), guest("spare", balloon=256, used=20))

    decided = plan(host(*guests, budget=200), NOTHING, SETTINGS)

    assert targets(decided) == {"spare": 80}
    assert {reason.rule for reason in decided.reasons} == {"host_over_budget", "host_is_scarce"}


def test_migration_is_asked_for_only_when_scarcity_lasts():
    """A short peak would move VMs around; a lasting shortage would never be cured."""
    snapshot, remembered, asked = host(guest(balloon=136, used=90), budget=100), NOTHING, []
    for _ in range(4):
        decided = plan(snapshot, remembered, SETTINGS)
        asked.append(decided.migration)
        snapshot, remembered = after(snapshot, decided)

    assert asked[:2] == [None, None]
    assert asked[3] is not None
    assert asked[3].starving == ("g1",)
    assert asked[3].deficit_bytes == (144 - 100) * MIB


def test_a_running_job_an_exclusion_a_hold_and_a_pause_leave_the_vm_alone():
    """A migration would hang for its whole length, or a promise to the owner be broken."""
    held = GuestPolicy(hold_until_s=NOW_S + 1_700_000_000.0 + 60)
    snapshot = host(
        guest("job", job="migration out"),
        guest("huge", exclusions=("huge_pages",)),
        guest("held", policy=held),
        guest("paused", state="paused"),
        guest("out", policy=GuestPolicy(opt_out=True)),
    )
    decided = plan(snapshot, NOTHING, EAGER)

    assert decided.actions == ()
    assert [rules(decided, name) for name in ("job", "huge", "held", "paused", "out")] == [
        ["job_running"],
        ["excluded"],
        ["on_hold"],
        ["not_running"],
        ["opt_out"],
    ]


@pytest.mark.parametrize(
    ("ahead_s", "held"), [(ACTION_HOLD_S, True), (1, True), (-1, False), (3600, False), (1e18, False)]
)
def test_an_action_holds_a_vm_by_this_host_s_clock(ahead_s, held):
    """A VM that comes from a host whose clock is fast would be left alone for as long as that is ahead."""
    snapshot = host(guest(used=30))
    policy = GuestPolicy(action_until_s=snapshot.wall_s + ahead_s)
    snapshot = host(guest(used=30, policy=policy))
    decided = plan(snapshot, NOTHING, EAGER)
    assert (rules(decided, "g1") == ["action_running"]) is held
    assert (decided.actions == ()) is held


def test_opting_out_gives_back_what_was_taken():
    """An owner who opts out would stay shrunk for ever."""
    snapshot = host(guest(used=30))
    later, remembered = after(snapshot, plan(snapshot, NOTHING, EAGER))
    out = dataclasses.replace(later.guests[0], policy=GuestPolicy(opt_out=True))

    assert targets(plan(dataclasses.replace(later, guests=(out,)), remembered, EAGER)) == {"g1": 256}


def test_a_guest_with_nothing_free_gets_a_large_step():
    """Its visible need is only what it has; small steps would let it kill processes."""
    decided = plan(host(guest(balloon=120, used=200, nominal=512)), NOTHING, SETTINGS)

    assert rules(decided, "g1") == ["guest_has_no_free_memory"]
    assert targets(decided)["g1"] >= 120 + 128


def test_swap_in_counts_as_need():
    """A guest that swaps shows memory that it could use and is still short."""
    snapshot = host(guest(balloon=140, used=40))
    later, remembered = after(snapshot, plan(snapshot, NOTHING, SETTINGS))
    entry = later.guests[0]
    swapping = dataclasses.replace(
        entry,
        stats=dataclasses.replace(
            entry.stats, swap_in_bytes=64 * MIB, unused_bytes=4 * MIB, sampled_s=NOW_S + 4
        ),
    )
    decided = plan(dataclasses.replace(later, guests=(swapping,)), remembered, SETTINGS)

    assert rules(decided, "g1") == ["guest_is_pressed"]
    assert targets(decided) == {"g1": 175}


def test_a_balloon_that_stops_short_is_not_squeezed_for_ever():
    """The guest's own services would be killed by the squeeze."""
    snapshot = host(guest(used=30))
    decided = plan(snapshot, NOTHING, EAGER)
    short = tuple(Outcome(action, "partial", "", 180 * MIB) for action in decided.actions)
    remembered, stuck = remember(decided, short, NOW_S), guest(balloon=180, used=30)
    moves = []
    for late in (5, 10, 15, 20):
        entry = dataclasses.replace(stuck, stats=dataclasses.replace(stuck.stats, sampled_s=NOW_S + late - 1))
        decided = plan(host(entry, now_s=NOW_S + late), remembered, EAGER)
        moves.append(targets(decided))
        remembered = remember(decided, done(decided), NOW_S + late)

    # Stopped where it is, once; then nothing more while the learned floor holds.
    assert moves == [{}, {"g1": 180}, {}, {}]
    assert of(decided, "g1").floor_bytes == 180 * MIB


def test_memory_promised_but_not_yet_taken_counts_as_held():
    """The same room would be given away twice while a slow guest takes its time."""
    snapshot = host(guest("slow", balloon=100, used=100), budget=300)
    decided = plan(snapshot, NOTHING, SETTINGS)
    remembered = remember(decided, (Outcome(decided.actions[0], "partial", "", 100 * MIB),), NOW_S)
    newcomer = guest("new", balloon=128, used=100, now_s=NOW_S + 5)
    later = host(guest("slow", balloon=100, used=100, now_s=NOW_S + 5), newcomer, budget=300, now_s=NOW_S + 5)

    assert targets(decided) == {"slow": 196}
    assert plan(later, remembered, SETTINGS).room_bytes == (300 - 196 - 128) * MIB


def test_only_what_could_be_paid_counts_as_promised():
    """Memory that was never promised would be kept from others, and a healthy balloon called stuck."""
    decided = plan(host(guest(balloon=100, used=100), budget=300), NOTHING, SETTINGS)
    part = Outcome(decided.actions[0], "partial", "", 120 * MIB, asked_bytes=120 * MIB)

    assert remember(decided, (part,), NOW_S).guests["uuid-g1"].target_bytes is None


def test_an_unreadable_vm_still_holds_its_memory():
    """A hung QEMU's memory would be given to others and the host run over."""
    snapshot = host(guest("a", used=30), guest("hung", used=30), budget=600)
    later, remembered = after(snapshot, plan(snapshot, NOTHING, SETTINGS))
    without = dataclasses.replace(later, guests=later.guests[:1], unreadable=(unreadable("hung"),))
    decided = plan(without, remembered, SETTINGS)

    assert decided.room_bytes == decided.budget.budget_bytes - 512 * MIB
    assert "uuid-hung" in decided.remembered.guests


def test_missing_statistics_periods_are_set_and_nothing_else_is_guessed():
    """Guests that never report could never be packed."""
    decided = plan(host(guest(stats=None, stats_period_s=0)), NOTHING, SETTINGS)

    assert decided.actions == (SetStatsPeriod("uuid-g1", "g1", 1, before_s=0),)


def test_without_outcomes_nothing_is_remembered_as_asked():
    """Observe mode would believe its own plans, and a failed call count as a stuck balloon."""
    decided = plan(host(guest(used=30)), NOTHING, EAGER)

    assert targets(decided)
    for outcomes in ((), tuple(Outcome(action, "failed") for action in decided.actions)):
        known = remember(decided, outcomes, NOW_S).guests["uuid-g1"]
        assert (known.target_bytes, known.asked_s, known.safe_bytes) == (None, None, None)


def test_a_resized_vm_is_learned_anew_but_not_forgotten():
    """An owner's resize would make vmpack forget that it must give something back."""
    snapshot = host(guest(stats=None, stats_period_s=0))
    decided = plan(snapshot, NOTHING, SETTINGS)
    remembered = remember(decided, done(decided), NOW_S)
    resized = plan(host(guest(nominal=512, balloon=512, used=200)), remembered, SETTINGS)

    known = resized.remembered.guests["uuid-g1"]
    assert (known.nominal_bytes, known.stats_period_before_s) == (512 * MIB, 0)
    assert known.use is not None
    assert known.use.used_bytes == 200 * MIB


def test_claims_take_comfort_but_never_need():
    """A migration on its way in would starve a guest, or find no room at all."""
    claim = Claim("migration", 30 * MIB, "VM on its way in")
    guests = (guest("a", balloon=200, used=110), guest("b", balloon=200, used=110))
    free = plan(host(*guests, budget=400), NOTHING, EAGER)
    claimed = plan(host(*guests, budget=400, claims=(claim,)), NOTHING, EAGER)
    huge = dataclasses.replace(claim, amount_bytes=4096 * MIB)

    assert of(free, "a").target_bytes == 196 * MIB
    assert of(claimed, "a").target_bytes == 185 * MIB
    assert of(plan(host(*guests, budget=400, claims=(huge,)), NOTHING, EAGER), "a").target_bytes == 164 * MIB


def test_expired_claims_hold_nothing():
    """A crashed client's claim would block the host for ever."""
    claim = Claim("bid 7", 50 * MIB, "bid", expires_s=NOW_S)
    with_it = plan(host(guest(), budget=1000, claims=(claim,)), NOTHING, SETTINGS)

    assert with_it.offer == plan(host(guest(), budget=1000), NOTHING, SETTINGS).offer


def test_a_pretended_host_never_outgrows_the_real_one():
    """A configuration mistake would drive the real machine out of memory."""
    snapshot = host(guest(), pretended_bytes=10**13)

    assert plan(snapshot, NOTHING, SETTINGS).budget.capacity_bytes == snapshot.memory_total_bytes
