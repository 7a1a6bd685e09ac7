"""What is learned of how far a guest's use jumps."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from vmpack.decide.volatility import DAY_S, HALF_LIFE_S, JUDGE_EVERY_S, MOST_SIZES, learned, usual_bytes
from vmpack.model.plan import Rises
from vmpack.units import GIB, MIB

START_S = 1000.0
INTERVAL_S = 5.0
quick = hypothesis_settings(max_examples=60)
sizes = st.integers(MIB, 2**45)
rates = st.floats(0.01, 50)
moments = st.floats(0, 4 * DAY_S)
histories = st.lists(st.tuples(moments, sizes), min_size=1, max_size=25)


def taught(history: list[tuple[float, int]], kept_per_day: float = 2.0) -> Rises:
    """What a guest is known for after these rises, as (when, how much)."""
    rises: Rises | None = None
    for at_s, rise in sorted(history, key=lambda entry: entry[0]):
        rises = learned(rises, rise, START_S + at_s, kept_per_day, INTERVAL_S)
    assert rises is not None
    return rises


def daily(rise: int, days: int, each_day: int = 1) -> list[tuple[float, int]]:
    step_s = DAY_S / each_day
    return [(number * step_s, rise) for number in range(days * each_day)]


def test_a_guest_of_one_rise_is_ready_for_that_one():
    """A VM that was just seen to jump by 100 MiB would be taken down to where the next jump finds nothing."""
    rises = taught([(0.0, 100 * MIB)])

    # The next quarter of an octave: 2^(27/4) = 107.6.
    assert rises.usual_bytes == rises.kept_bytes == int(2 ** (27 / 4) * MIB)


def test_a_size_between_two_is_counted_as_the_larger():
    """Room a little too small is a guest that swaps; a little too large costs a few MiB."""
    for mib in (1, 2, 3, 5, 100, 1000, 4097):
        kept = taught([(0.0, mib * MIB)]).usual_bytes
        assert mib * MIB <= kept + 1 and kept <= mib * MIB * 2**0.25


def test_small_rises_are_noise():
    """Each report's flicker would fill the VM's metadata and the host's journal."""
    assert learned(None, MIB - 1, START_S, 2.0, INTERVAL_S) is None
    assert learned(None, -5 * GIB, START_S, 2.0, INTERVAL_S) is None


def test_what_comes_more_often_than_allowed_is_kept_and_what_is_seldom_is_not():
    """Each night's backup would be met by nothing, or one jump a month would be paid for all month."""
    often, seldom = daily(64 * MIB, 8, each_day=4), [(0.5 * DAY_S, 512 * MIB)]
    now_s = START_S + 8 * DAY_S
    rises = taught([*often, *seldom])

    assert usual_bytes(rises, 2.0, now_s) == 64 * MIB
    assert usual_bytes(rises, 0.0, now_s) == 512 * MIB
    assert usual_bytes(rises, 10.0, now_s) == 0


def test_once_a_day_is_judged_as_once_a_day():
    """A half life of a day must not make a daily rise count as one and a half, or as a half, a day."""
    now_s = START_S + 20 * DAY_S
    rises = taught(daily(64 * MIB, 20))

    assert usual_bytes(rises, 0.5, now_s) == 64 * MIB
    assert usual_bytes(rises, 1.5, now_s) == 0


def test_a_guest_known_for_an_hour_is_judged_by_that_hour():
    """A booting VM's first jumps would count for nothing until a whole day has passed."""
    rises = taught([(0.0, 64 * MIB), (1800.0, 64 * MIB)])

    assert usual_bytes(rises, 2.0, START_S + 3600) == 64 * MIB


def test_old_rises_fade():
    """What a VM did in its former life would be paid for until it is deleted."""
    rises = taught([(minute * 60.0, 256 * MIB) for minute in range(20)])
    after = [usual_bytes(rises, 2.0, START_S + days * DAY_S) for days in (0, 1, 2, 8)]

    assert after == [256 * MIB, 256 * MIB, 256 * MIB, 0]


def test_another_interval_starts_afresh():
    """Rises within 5 s would be taken for rises within a minute: too little would be kept, for days."""
    before = taught([(minute * 60.0, 32 * MIB) for minute in range(20)])
    now_s = START_S + DAY_S

    assert learned(before, 0, now_s, 2.0, 60.0) is None
    after = learned(before, 512 * MIB, now_s, 2.0, 60.0)
    assert after is not None and (after.since_s, after.interval_s, sum(after.counts)) == (now_s, 60.0, 1.0)


def test_what_an_older_vmpack_counted_is_kept():
    """At the update all hosts would forget what their VMs do."""
    before = taught([(minute * 60.0, 32 * MIB) for minute in range(20)])
    after = learned(before._replace(interval_s=None), 0, START_S + DAY_S, 2.0, 60.0)

    assert after is not None and (after.counts, after.interval_s) == (before.counts, 60.0)


def test_a_quiet_guest_is_judged_again_by_itself():
    """Room for rises that no longer come would be kept, for nothing would bring the sizes up to date."""
    rises = taught([(minute * 60.0, 256 * MIB) for minute in range(20)])
    week_s = START_S + 8 * DAY_S
    later = learned(rises, 0, week_s, 2.0, INTERVAL_S)

    assert later is not None and (later.usual_bytes, later.judged_s) == (0, week_s)
    assert learned(later, 0, week_s + JUDGE_EVERY_S - 1, 2.0, INTERVAL_S) is later


def test_a_larger_rise_counts_at_once():
    """The second jump of a burst comes within the minute; ten minutes later is too late."""
    first = learned(None, 32 * MIB, START_S, 2.0, INTERVAL_S)
    second = learned(first, 512 * MIB, START_S + 60, 2.0, INTERVAL_S)

    assert second is not None and second.usual_bytes == 512 * MIB


def test_a_safe_stance_keeps_for_what_is_seldom():
    """Administrators who choose `safe` would get no more than the others."""
    history = [*daily(64 * MIB, 8, each_day=4), *[(day * DAY_S, 512 * MIB) for day in (1, 4, 7)]]

    assert taught(history, kept_per_day=0.05).kept_bytes == 512 * MIB
    assert taught(history, kept_per_day=2.0).kept_bytes == 64 * MIB
    assert taught(history, kept_per_day=0.05).usual_bytes == 64 * MIB


def test_counts_are_bounded():
    """A guest that claims a rise of an exbibyte would blow up the agent's memory and the VM's metadata."""
    rises = taught([(0.0, 2**62), (10.0, 2**70), (20.0, MIB)])

    assert len(rises.counts) == MOST_SIZES and sum(rises.counts) < 4


def test_years_do_not_overflow():
    """Weights that double each day would be infinite after three years, and the agent would end."""
    rises = taught([(day * 10 * DAY_S, 64 * MIB) for day in range(200)])

    assert all(math.isfinite(count) and count < 2.0**22 for count in rises.counts)
    assert usual_bytes(rises, 0.05, START_S + 1990 * DAY_S) == 64 * MIB


def test_a_guest_that_was_quiet_for_years_costs_no_interval():
    """One such guest would end the agent: no power of two is that large."""
    late_s = START_S + 4000 * DAY_S
    later = learned(taught([(0.0, 64 * MIB)]), 128 * MIB, late_s, 2.0, INTERVAL_S)

    assert later is not None and later.usual_bytes == 0
    assert usual_bytes(later, 0.05, late_s) == 128 * MIB


@quick
@given(histories, rates, rates, st.floats(0, 30 * DAY_S))
def test_rarer_means_larger_and_never_negative(history, one_rate, other_rate, later_s):
    """`safe` would keep less than `dense`, or a balloon be planned below what the guest uses."""
    rises, now_s = taught(history), START_S + 4 * DAY_S + later_s
    rarely, often = sorted((one_rate, other_rate))

    assert usual_bytes(rises, rarely, now_s) >= usual_bytes(rises, often, now_s) >= 0


@quick
@given(histories, rates, st.floats(0, 8 * DAY_S))
def test_nothing_is_kept_beyond_the_largest_rise(history, rate, later_s):
    """Memory would be kept for rises that nobody has ever seen."""
    rises, now_s = taught(history), START_S + 4 * DAY_S + later_s

    assert usual_bytes(rises, rate, now_s) <= max(size for _, size in history) * 2**0.25


@quick
@given(st.lists(sizes, min_size=1, max_size=20), st.randoms(use_true_random=False), rates)
def test_rises_of_one_moment_count_alike_in_any_order(rises_bytes, dice, rate):
    """Two agents that saw the same would decide differently."""
    shuffled = list(rises_bytes)
    dice.shuffle(shuffled)
    one, other = (taught([(0.0, size) for size in entries]) for entries in (rises_bytes, shuffled))

    assert one.counts == other.counts
    assert usual_bytes(one, rate, START_S + HALF_LIFE_S) == usual_bytes(other, rate, START_S + HALF_LIFE_S)


@quick
@given(histories)
def test_one_more_rise_never_takes_room_away(history):
    """A guest would be punished for asking."""
    now_s = START_S + 4 * DAY_S
    before = taught(history)
    after = learned(before, max(size for _, size in history), now_s, 2.0, INTERVAL_S)

    assert after is not None
    assert usual_bytes(after, 2.0, now_s) >= usual_bytes(before, 2.0, now_s)
