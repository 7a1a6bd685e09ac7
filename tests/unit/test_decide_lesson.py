"""What was learned goes with the VM: another agent decides as the first one would have."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tests.builders import EAGER, NOW_S, guest, host

from vmpack.decide.experience import experience
from vmpack.decide.explain import words
from vmpack.decide.lesson import FORGOTTEN_S, is_news, lesson
from vmpack.decide.memory import plan
from vmpack.decide.volatility import DAY_S, usual_bytes
from vmpack.model.codec import dumps, loads
from vmpack.model.guest import GuestSnapshot
from vmpack.model.learned import Lapse, Learned, from_attributes, to_attributes
from vmpack.model.plan import Plan, Remembered, RememberedGuest, Rises
from vmpack.units import MIB

quick = hypothesis_settings(max_examples=80)
RISES = Rises((*[0.0] * 20, 12.0, *[0.0] * 5, 14.0), NOW_S - 2 * DAY_S, NOW_S - DAY_S)
"""Jumps of 32 MiB and of 90 MiB and a little."""
USUAL_MIB = 90


def known_guest(**use: object) -> RememberedGuest:
    """A guest that an agent has known for two days."""
    seen = guest(used=40)
    known = plan(host(seen), Remembered(), EAGER).remembered.guests[seen.uuid]
    assert known.use is not None
    return known._replace(use=known.use._replace(rises=RISES)._replace(**use))


def elsewhere(learned: Learned | None, later_s: float = 0.0, **changes: object) -> tuple[GuestSnapshot, Plan]:
    """The same VM and what another host's agent plans that meets it, with another clock."""
    now_s = 77.0
    brought = None if learned is None else learned._replace(written_s=now_s - later_s)
    seen = dataclasses.replace(guest(used=40, now_s=now_s), learned=brought, **changes)
    return seen, plan(host(seen, now_s=now_s), Remembered(), EAGER)


def through_text(learned: Learned | None) -> Learned:
    assert learned is not None
    return from_attributes(to_attributes(learned))


def wanted(decided: Plan) -> int:
    return decided.guests[0].wanted_bytes // MIB


def learned_of(decided: Plan) -> Rises:
    (known,) = decided.remembered.guests.values()
    assert known.use is not None and known.use.rises is not None
    return known.use.rises


def test_another_agent_keeps_the_same_room():
    """A VM that jumps twice a day would be packed to the bone by each host that it comes to."""
    there = learned_of(elsewhere(through_text(lesson(known_guest(), NOW_S)))[1])

    assert there.usual_bytes // MIB == USUAL_MIB
    for rate in (0.05, 2.0, 10.0):
        assert usual_bytes(there, rate, 77.0) == usual_bytes(RISES, rate, NOW_S)
    assert wanted(elsewhere(lesson(known_guest(), NOW_S))[1]) > wanted(elsewhere(None)[1]) + USUAL_MIB


def test_rises_within_another_interval_are_not_taken_up():
    """A host that looks once a minute would keep room for what the VM does within five seconds."""
    ours_s = EAGER.memory.interval_s
    same = through_text(lesson(known_guest(rises=RISES._replace(interval_s=ours_s)), NOW_S))
    other = through_text(lesson(known_guest(rises=RISES._replace(interval_s=12 * ours_s)), NOW_S))

    assert learned_of(elsewhere(same)[1]).usual_bytes // MIB == USUAL_MIB
    assert wanted(elsewhere(other)[1]) == wanted(elsewhere(None)[1])
    assert is_news(same, other)


def test_it_waits_for_the_first_report():
    """A VM is seen before its balloon driver reports there: what it brought would be lost by then."""
    seen, first = elsewhere(lesson(known_guest(), NOW_S), stats=None)
    later = dataclasses.replace(guest(used=40, now_s=90.0), learned=None)
    second = plan(host(later, now_s=90.0), first.remembered, EAGER)

    assert first.remembered.guests[seen.uuid].carried is not None
    assert learned_of(second).usual_bytes // MIB == USUAL_MIB
    assert second.remembered.guests[seen.uuid].carried is None


def test_it_is_taken_up_once():
    """A text of last week would overwrite what this agent itself has learned, in every interval."""
    seen, first = elsewhere(lesson(known_guest(), NOW_S))
    older = dataclasses.replace(seen, learned=Learned(77.0, seen.nominal_bytes, 60.0, (5.0,)))
    again = plan(host(older, now_s=77.0), first.remembered, EAGER)

    assert learned_of(again) == learned_of(first)


def test_a_new_nominal_is_another_vm():
    """A VM resized for other work would be packed by what it did before."""
    learned = lesson(known_guest(), NOW_S)
    assert learned is not None
    other = learned._replace(nominal_bytes=learned.nominal_bytes * 2)

    assert wanted(elsewhere(other)[1]) == wanted(elsewhere(None)[1])


def test_time_in_which_nobody_looked_counts_for_a_day_at_most():
    """A VM that was saved over the weekend would come back as one that never jumps."""
    learned = lesson(known_guest(), NOW_S)
    monday = learned_of(elsewhere(learned, later_s=3 * DAY_S)[1])

    assert monday.usual_bytes // MIB == USUAL_MIB
    assert learned_of(elsewhere(learned, later_s=DAY_S)[1]).usual_bytes // MIB == USUAL_MIB


def test_after_a_week_unseen_it_is_forgotten():
    """A disk image that was put to another use would be judged by a former life."""
    learned = lesson(known_guest(), NOW_S)

    assert wanted(elsewhere(learned, later_s=FORGOTTEN_S)[1]) == wanted(elsewhere(None)[1])


@pytest.mark.parametrize(("left_s", "kept"), [(900.0, 200), (-900.0, 0)])
def test_a_pressed_floor_goes_along(left_s, kept):
    """A VM would be pressed again by each host that it comes to."""
    known = known_guest(
        rises=None, pressed_floor_bytes=200 * MIB, pressed_floor_until_s=NOW_S + left_s, presses=3
    )
    learned = through_text(lesson(known, NOW_S))
    _, decided = elsewhere(learned, later_s=60.0)
    (there,) = decided.remembered.guests.values()

    assert learned.pressed == Lapse(3, left_s, 200 * MIB)
    assert there.use is not None and there.use.presses == 3
    told = [words(reason)[0] for reason in experience(there, 0.0, EAGER.memory)]
    assert any("before it came here" in what for what in told) == (kept > 0)
    assert there.use.pressed_floor_until_s == 77.0 - 60.0 + left_s
    assert wanted(decided) == max(kept, wanted(elsewhere(None)[1]))


def test_kills_go_along():
    """A guest that just killed its database would be packed anew by the host that took it in."""
    known = known_guest()._replace(kills_seen=2, killed_s=NOW_S - 600, kill_floor_until_s=NOW_S + 6600)
    learned = through_text(lesson(known, NOW_S))
    seen, decided = elsewhere(learned)
    there = decided.remembered.guests[seen.uuid]

    assert (there.kills_seen, there.kill_floor_until_s) == (2, 77.0 + 6600)
    assert decided.guests[0].minimum_bytes == seen.nominal_bytes
    over = learned._replace(killed=Lapse(2, -60.0))
    later = elsewhere(over)[1].remembered.guests[seen.uuid]
    assert (later.kills_seen, later.killed_s, later.kill_floor_until_s) == (2, 17.0, None)


def test_a_vm_that_is_quiet_for_years_is_no_error():
    """Every turn of the agent would end with an overflow, three years after the VM's last rise."""
    learned = lesson(known_guest(), NOW_S + 4000 * DAY_S)

    assert learned is not None and max(learned.counts) < 1e-9
    assert not any(through_text(learned).counts)


def test_nothing_learned_leaves_nothing():
    """Every idle VM's definition would have an element of ours for no use."""
    assert lesson(known_guest(rises=None), NOW_S) is None
    assert lesson(known_guest()._replace(use=None), NOW_S) is None


def test_only_what_a_reader_would_decide_by_is_news():
    """Each rise of each VM would be a write to its metadata, and on persistent VMs to the disk."""
    written = lesson(known_guest(), NOW_S)
    hour = lesson(known_guest(), NOW_S + 3600)
    louder = RISES._replace(counts=(*RISES.counts, *[0.0] * 10, 9.0))

    assert not is_news(None, None)
    assert is_news(None, written) and is_news(written, None)
    assert not is_news(written, written) and not is_news(written, hour)
    assert is_news(written, lesson(known_guest(rises=louder), NOW_S + 3600))
    assert is_news(written, lesson(known_guest(), NOW_S + DAY_S))
    assert is_news(written, lesson(known_guest()._replace(nominal_bytes=1), NOW_S))


def test_what_keeps_a_vm_large_is_news():
    """A VM that was pressed or killed something would move without a word of it."""
    written = lesson(known_guest(), NOW_S)
    pressed = known_guest(pressed_floor_bytes=MIB, pressed_floor_until_s=NOW_S + 1800, presses=1)
    longer = known_guest(pressed_floor_bytes=MIB, pressed_floor_until_s=NOW_S + 3600, presses=1)
    killed = known_guest()._replace(kills_seen=1, killed_s=NOW_S, kill_floor_until_s=NOW_S + 3600)

    assert is_news(written, lesson(pressed, NOW_S))
    assert is_news(lesson(pressed, NOW_S), lesson(longer, NOW_S))
    assert is_news(written, lesson(killed, NOW_S))
    assert not is_news(lesson(pressed, NOW_S), lesson(pressed, NOW_S + 600))
    assert not is_news(lesson(killed, NOW_S), lesson(killed, NOW_S + 600))


def test_what_is_remembered_of_it_survives_the_state_file():
    """A restart of the agent between a VM's arrival and its first report would lose what it brought."""
    _, decided = elsewhere(lesson(known_guest(), NOW_S), stats=None)

    assert loads(Remembered, dumps(decided.remembered)) == decided.remembered


lapses = st.none() | st.builds(Lapse, st.integers(1, 1000), st.floats(-1e8, 1e8), st.integers(0, 2**60))


@quick
@given(
    st.builds(
        Learned,
        st.just(0.0),
        st.just(256 * MIB),
        st.floats(0, 3e8),
        st.lists(st.floats(0, 2.0**21), max_size=80).map(tuple),
        lapses,
        lapses,
        st.sampled_from((None, EAGER.memory.interval_s, 60.0)),
    ),
    st.floats(0, 9 * DAY_S),
    st.integers(0, 400),
)
def test_whatever_is_brought_only_adds_when_it_is_taken_up(learned, later_s, used):
    """What a VM brought could take memory from it at once, or more than its nominal for it."""
    now_s = 1e6
    brought = learned._replace(written_s=now_s - later_s)
    plain = guest(used=used, now_s=now_s)
    without = plan(host(plain, now_s=now_s), Remembered(), EAGER).guests[0]
    with_it = plan(
        host(dataclasses.replace(plain, learned=brought), now_s=now_s), Remembered(), EAGER
    ).guests[0]

    assert with_it.bare_bytes >= without.bare_bytes
    assert without.minimum_bytes <= with_it.minimum_bytes <= plain.nominal_bytes
    assert without.wanted_bytes <= with_it.wanted_bytes <= plain.nominal_bytes
