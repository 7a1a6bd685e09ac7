"""What every memory plan must keep, whatever the host looks like."""

from __future__ import annotations

import dataclasses
import random

from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tests.builders import EAGER, NOW_S, SETTINGS, carried_out, settings
from tests.plans import done
from tests.strategies import hosts, known_hosts

from vmpack.decide.demand import demand
from vmpack.decide.learn import learn
from vmpack.decide.memory import plan, remember
from vmpack.decide.release import plan_release
from vmpack.decide.share import fill
from vmpack.decide.sizes import size_table
from vmpack.decide.stance import stance
from vmpack.model import codec
from vmpack.model.action import SetMemory
from vmpack.model.host import HostSnapshot
from vmpack.model.plan import Plan, Remembered

thorough = hypothesis_settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
rules = st.sampled_from(
    [
        SETTINGS,
        EAGER,
        *(settings(stance=name, calm_s=0.0, shrink_step_ratio=1.0) for name in ("safe", "dense")),
    ]
)
NOTHING = Remembered()


def sizes_after(snapshot: HostSnapshot, decided: Plan) -> dict[str, int]:
    sizes = {entry.uuid: entry.balloon_bytes for entry in snapshot.guests}
    return sizes | {a.uuid: a.to_bytes for a in decided.actions if isinstance(a, SetMemory)}


@thorough
@given(known_hosts(), rules)
def test_the_budget_is_kept(known_host, settings):
    """The host itself would run out of memory, and every VM on it with it."""
    snapshot, remembered = known_host
    decided = plan(snapshot, remembered, settings)
    by_uuid = {entry.uuid: entry for entry in decided.guests}
    least = sum(
        entry.balloon_bytes
        if by_uuid[entry.uuid].verdict == "excluded"
        else min(entry.balloon_bytes, by_uuid[entry.uuid].bare_bytes)
        for entry in snapshot.guests
    )
    assert sum(sizes_after(snapshot, decided).values()) <= max(decided.budget.budget_bytes, least)


@thorough
@given(known_hosts(), rules)
def test_no_vm_goes_below_its_floor_or_its_minimum(known_host, settings):
    """A guest would be squeezed until it kills its own processes."""
    snapshot, remembered = known_host
    decided = plan(snapshot, remembered, settings)
    after = sizes_after(snapshot, decided)
    for before, entry in zip(sorted(snapshot.guests, key=lambda g: g.uuid), decided.guests, strict=True):
        assert after[entry.uuid] >= min(before.balloon_bytes, max(entry.floor_bytes, entry.bare_bytes))
        assert after[entry.uuid] <= before.nominal_bytes


@thorough
@given(known_hosts(), rules)
def test_planning_on_the_planned_state_does_nothing(known_host, settings):
    """Balloons would move to and fro for ever."""
    snapshot, remembered = known_host
    first = plan(snapshot, remembered, settings)
    second = plan(carried_out(snapshot, first), remember(first, done(first), snapshot.time_s), settings)

    assert [a for a in second.actions if isinstance(a, SetMemory)] == []


@thorough
@given(known_hosts(), rules)
def test_what_gives_way_last_lies_between_need_and_comfort(known_host, settings):
    """A guest's room for its rises would go before others' comfort, or be kept where no stance wants it."""
    snapshot, remembered = known_host
    for entry in snapshot.guests:
        limits = size_table(settings.memory)[entry.nominal_bytes]
        known = learn(entry, remembered.guests[entry.uuid], NOW_S, limits, settings.memory)
        need = demand(entry, known, snapshot, limits, settings.memory, stance(settings.memory))
        assert 0 <= need.bare_bytes <= need.minimum_bytes <= need.ready_bytes <= need.wanted_bytes
        if need.movable:
            assert need.wanted_bytes <= max(entry.nominal_bytes, need.bare_bytes)


@thorough
@given(hosts())
def test_a_steady_host_falls_quiet(snapshot):
    """Balloon operations cost the guests something, every time."""
    remembered, moves = NOTHING, []
    for _ in range(40):
        decided = plan(snapshot, remembered, EAGER)
        moves = [a for a in decided.actions if isinstance(a, SetMemory)]
        remembered = remember(decided, done(decided), snapshot.time_s)
        snapshot = carried_out(snapshot, decided, later_s=5.0)

    assert moves == []


@thorough
@given(hosts(), rules, st.randoms(use_true_random=False))
def test_the_order_of_vms_does_not_matter(snapshot, settings, dice: random.Random):
    """Whoever libvirt happens to list first would be served first."""
    shuffled = list(snapshot.guests)
    dice.shuffle(shuffled)
    other = dataclasses.replace(snapshot, guests=tuple(shuffled))

    assert plan(other, NOTHING, settings) == plan(snapshot, NOTHING, settings)


@thorough
@given(known_hosts(), rules)
def test_no_vm_in_need_shrinks_while_another_keeps_spare(known_host, settings):
    """The poor would pay for the rich."""
    snapshot, remembered = known_host
    decided = plan(snapshot, remembered, settings)
    after = sizes_after(snapshot, decided)
    before = {entry.uuid: entry for entry in snapshot.guests}
    movable = [entry for entry in decided.guests if entry.verdict != "excluded"]
    for entry in movable:
        if after[entry.uuid] < before[entry.uuid].balloon_bytes:
            assert after[entry.uuid] >= entry.bare_bytes
    starving = [entry for entry in movable if after[entry.uuid] < entry.minimum_bytes]
    if any(entry.minimum_bytes - after[entry.uuid] > (4 << 20) for entry in starving):
        # Hungry VMs share by what they may come to want; they are all in need.
        content = [entry for entry in movable if entry.minimum_bytes == entry.bare_bytes]
        spare = sum(max(0, after[entry.uuid] - entry.minimum_bytes) for entry in content)
        unspent = decided.budget.budget_bytes - sum(after.values())
        # What is left is less than the finest useful step for each VM.
        assert spare <= len(movable) << 21
        assert unspent <= len(movable) << 21


@thorough
@given(known_hosts(), rules)
def test_plans_survive_the_journal(known_host, settings):
    """A journal that cannot be read back proves nothing."""
    snapshot, remembered = known_host
    decided = plan(snapshot, remembered, settings)

    assert codec.loads(HostSnapshot, codec.dumps(snapshot)) == snapshot
    assert codec.loads(Plan, codec.dumps(decided)) == decided


@thorough
@given(hosts())
def test_release_gives_only_what_the_host_can_hold_and_takes_nothing(snapshot):
    """Stopping the agent on a full host would drive that host into its OOM killer."""
    decided = plan_release(snapshot, NOTHING, SETTINGS, None)
    after = sizes_after(snapshot, decided)
    held = sum(entry.balloon_bytes for entry in snapshot.guests)

    assert sum(after.values()) <= max(decided.budget.budget_bytes, held)
    for entry in snapshot.guests:
        assert entry.balloon_bytes <= after[entry.uuid] <= entry.nominal_bytes


@thorough
@given(
    st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(1, 10**5)), max_size=8),
    st.integers(0, 10**10),
)
def test_filling_keeps_its_bounds_and_spends_what_it_may(rows, total):
    """Shares would lose memory or invent it."""
    least = [min(a, b) for a, b, _ in rows]
    most = [max(a, b) for a, b, _ in rows]
    given_ = fill(total, least, most, [weight for _, _, weight in rows])

    assert all(low <= got <= high for low, got, high in zip(least, given_, most, strict=True))
    assert sum(given_) <= max(total, sum(least))
    assert sum(given_) >= min(total, sum(most)) - 2 * len(rows)
