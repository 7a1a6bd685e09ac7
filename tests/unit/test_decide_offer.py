"""The offer, by examples worked by hand, and what every offer must keep."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tests.builders import NOW_S, SETTINGS, guest, host
from tests.strategies import hosts

from vmpack.decide.day_peaks import expected_ratio, noted
from vmpack.decide.host_rises import (
    HALF_LIFE_S,
    MARGIN,
    NEWCOMER_REACTIONS,
    PER_REACTION,
    Change,
    Extent,
    chance_ratio,
    extent,
    learned,
    newcomers,
    usual_bytes,
)
from vmpack.decide.memory import plan
from vmpack.decide.offer import Needs, growth_bytes
from vmpack.model import codec
from vmpack.model.host import Claim, HostSnapshot
from vmpack.model.plan import HostRises, Plan, Remembered, RiseWindow
from vmpack.model.settings import OfferSettings, Settings
from vmpack.units import MIB

DAY_S = 86400.0
REACTION_S = 60.0
RULES = OfferSettings()
SIZE = Extent(1024, 1024)
thorough = hypothesis_settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def known(
    counts: tuple[float, ...] = (),
    windows: float = 1440.0,
    days: float = 1.0,
    together: tuple[float, ...] = (),
) -> HostRises:
    """So many windows were seen, with rises of these sizes; nobody is a newcomer."""
    since_s = NOW_S - days * DAY_S
    return HostRises(counts, together, windows, since_s, NOW_S, NOW_S, REACTION_S, 0, 0, ())


def offered(snapshot: HostSnapshot, rises: HostRises, rules: OfferSettings = RULES) -> Plan:
    """The plan on a host whose VMs have all been seen before."""
    before = plan(snapshot, Remembered(), SETTINGS).remembered
    return plan(
        snapshot, dataclasses.replace(before, rises=rises), dataclasses.replace(SETTINGS, offer=rules)
    )


def test_the_offer_is_what_is_left_beside_need_growth_and_claims() -> None:
    """The cloud would be promised memory that guests are about to need.

    A VM of 256 MiB that uses 60 and 38 of kernel has 16 of fixed headroom: it needs 114. Its extent is its
    nominal; 11 windows of 1440 passed nearly 1/4 of it: at 1 % that is kept, times the margin.
    """
    claim = Claim("bid 7", 50 * MIB, "bid")
    quarter = (0.0,) * 32 + (11.0,)
    found = offered(host(guest(used=60), budget=1000, claims=(claim,)), known(quarter)).offer
    growth = math.ceil(MARGIN * 64 * MIB)

    assert found.growth_reserve_bytes == growth
    assert found.memory_bytes == (1000 - 114 - 50) * MIB - growth and found.lacking_bytes == 0
    assert found.shortage_probability_ratio == pytest.approx(1 / 1440, rel=1e-3)
    assert found.reasons[0].numbers["needed_bytes"] == 114 * MIB


def test_a_vm_that_nobody_knows_counts_with_all_that_it_was_promised() -> None:
    """It came a minute ago and has not begun to work: lent out, its memory would be missing when it does."""
    here, new = guest("here", used=60), guest("new", used=1)
    before = plan(host(here, budget=1000), Remembered(), SETTINGS).remembered
    before = dataclasses.replace(before, rises=known())
    found = plan(host(here, new, budget=1000), before, SETTINGS)
    later_s = NOW_S + NEWCOMER_REACTIONS * REACTION_S
    aged = (guest("here", used=60, now_s=later_s), guest("new", used=1, now_s=later_s))
    after = plan(host(*aged, budget=1000, now_s=later_s), found.remembered, SETTINGS)

    assert found.offer.reasons[0].numbers["newcomers_bytes"] == 256 * MIB
    assert found.offer.memory_bytes < (1000 - 114 - 256) * MIB
    assert after.offer.reasons[0].numbers["newcomers_bytes"] == 0
    assert after.offer.memory_bytes > found.offer.memory_bytes + 100 * MIB


def test_an_agent_that_knows_nothing_offers_what_nobody_was_promised() -> None:
    """Right after its first start, a full host would be filled again on a first impression."""
    first = plan(host(guest(used=10), budget=300), Remembered(), SETTINGS).offer

    assert first.memory_bytes == (300 - 256) * MIB and first.shortage_probability_ratio == 0.0


def test_what_is_kept_for_growth_is_never_more_than_was_promised() -> None:
    """A jumpy host would offer less than the memory that nobody owns."""
    wild = known((0.0,) * 40 + (100.0,))
    found = offered(host(guest(used=60), budget=1000), wild).offer

    assert found.memory_bytes == (1000 - 256) * MIB and found.shortage_probability_ratio == 0.0


def test_a_reserve_that_is_not_there_is_told() -> None:
    """Nobody would know that a VM should leave before the host runs short. 114 + 70 are needed of 150 MiB."""
    quarter = (0.0,) * 32 + (11.0,)
    found = offered(host(guest(used=60), budget=150), known(quarter)).offer

    assert found.memory_bytes == 0
    assert found.lacking_bytes == 114 * MIB + math.ceil(MARGIN * 64 * MIB) - 150 * MIB
    assert found.shortage_probability_ratio is not None and found.shortage_probability_ratio > 0.005


def test_a_young_history_keeps_a_share_of_nominals() -> None:
    """The first quiet hour would be taken for the whole day: of 1000 a tenth, less the part known."""
    needs = Needs(100, 100, 1000, Extent(1000, 1000))

    assert growth_bytes(needs, known(windows=0, days=0), NOW_S, RULES) == 900
    assert growth_bytes(needs, known(windows=1e6, days=0.25), NOW_S, RULES) in (75, 76)
    assert growth_bytes(needs, known(windows=1e6, days=1), NOW_S, RULES) == 2


def test_the_rate_of_a_size_is_taken_at_the_upper_end() -> None:
    """4 windows of 1000 may as well have been 7: at 0.6 % the size counts, at 0.8 % the next."""
    rises = known((50.0, 0.0, 4.0), windows=1000.0)

    assert usual_bytes(rises, SIZE, 0.006) == pytest.approx(MARGIN * 2**0.5)
    assert usual_bytes(rises, SIZE, 0.008) == pytest.approx(MARGIN)
    assert usual_bytes(rises, SIZE, 0.07) == MARGIN


def test_beyond_the_largest_rise_the_tail_is_drawn_on() -> None:
    """At 0.1 % after 250 minutes nothing was seen that often: twice the largest, for a fourth of its rate."""
    rises = known((0.0,) * 8 + (1.0,), windows=250.0)

    assert usual_bytes(rises, SIZE, 0.001) == pytest.approx(MARGIN * 4 * 2)
    assert chance_ratio(rises, SIZE, usual_bytes(rises, SIZE, 0.001)) == pytest.approx(0.001)
    assert usual_bytes(known(windows=0.0), SIZE, 0.01) == math.inf


def test_rises_of_many_grow_with_all_of_them() -> None:
    """Peaks that coincide would catch a host that has more VMs since: 8 of 1024 together are 32 of 4096."""
    alone, together = known((0.0,) * 12 + (9.0,)), known(together=(0.0,) * 12 + (9.0,))
    more = Extent(4096, 2048)

    assert usual_bytes(alone, SIZE, 0.005) == usual_bytes(together, SIZE, 0.005) == pytest.approx(8 * MARGIN)
    assert usual_bytes(alone, more, 0.005) == pytest.approx(16 * MARGIN)
    assert usual_bytes(together, more, 0.005) == pytest.approx(32 * MARGIN)


def watch(changes: list[int], step_s: float = 10.0, share: float = 1.0) -> HostRises:
    """What is learned from these changes of the VMs' use, one a step, to which one VM adds this share."""
    rises = learned(None, Change(0, 0), SIZE, {}, NOW_S, NOW_S, REACTION_S)
    for number, change in enumerate(changes, 1):
        found = Change(change, max(0, int(share * change)))
        rises = learned(rises, found, SIZE, {}, *2 * [NOW_S + number * step_s], REACTION_S)
    return rises


def test_every_rise_is_counted_by_its_highest_point() -> None:
    """A peak of half a minute would be seen as nothing. 100 of 1024: between 2^-3.5 and 2^-3.25, size 27."""
    rises = watch([0] * 12 + [100, 0, -100] + [0] * 20)

    assert len(rises.alone) == 28 and sum(rises.alone[:27]) == 0
    assert rises.seen == pytest.approx(29 * 10 / 20 / PER_REACTION, rel=0.2)
    assert rises.alone[27] == pytest.approx(3 / PER_REACTION, rel=1e-3)


def test_a_slow_climb_counts_with_what_it_gains_in_a_reaction_time() -> None:
    """10 a step are 60 of 1024 in each window: 2^-4.09, counted under 2^-4."""
    rises = watch([10] * 60)

    assert len(rises.alone) == 25 and rises.alone[24] == pytest.approx(rises.seen)


def test_a_rise_of_which_no_vm_makes_half_came_of_many() -> None:
    """Morning, when all log in, would pass for one VM's whim."""
    assert watch([10] * 60, share=0.4).alone == () and len(watch([10] * 60, share=0.4).together) == 25
    assert watch([10] * 60, share=0.6).together == ()


def test_what_happened_while_nobody_looked_is_not_counted() -> None:
    """After a stop of an hour the whole day's rise would be taken for that of a minute."""
    rises = watch([0] * 12)
    rises = learned(rises, Change(900, 900), SIZE, {}, *2 * [NOW_S + 3720], REACTION_S)

    assert rises.alone == () and len(rises.windows) == 1


def test_another_reaction_time_begins_anew() -> None:
    """Rises within a minute say nothing of those within ten."""
    assert learned(watch([10] * 30), Change(0, 0), SIZE, {}, *2 * [NOW_S + 310], 600.0).seen == 0


def test_old_windows_fade() -> None:
    """A host that became calm would keep its reserve for ever."""
    rises = watch([10] * 60)
    later = rises._replace(last_s=rises.last_s + HALF_LIFE_S, seen=rises.seen + 2 * 1440)
    forgotten = rises._replace(last_s=rises.last_s + 10 * HALF_LIFE_S, seen=rises.seen + 1024 * 1440)

    assert chance_ratio(rises, SIZE, 45) == 1.0
    assert chance_ratio(later, SIZE, 45) == pytest.approx(0.0044, rel=0.05)
    assert chance_ratio(forgotten, SIZE, 45) < 0.001


def test_newcomers_are_those_never_seen_and_stay_so_for_a_while() -> None:
    """After a restart every VM would be new, and nothing be offered for ten minutes."""
    rises = dataclasses_replace(known(), newcomers={"b": NOW_S - 500, "c": NOW_S - 600})

    assert newcomers(rises, {"a", "b", "c"}, {"a", "b", "c", "d"}, NOW_S, REACTION_S) == {
        "b": NOW_S - 500,
        "d": NOW_S,
    }
    assert newcomers(None, {"a"}, {"a"}, NOW_S, REACTION_S) == {"a": NOW_S}
    assert newcomers(known(), {"a"}, {"a"}, NOW_S, REACTION_S) == {}


def dataclasses_replace(rises: HostRises, **values: object) -> HostRises:
    return rises._replace(**values)  # type: ignore[arg-type]


def test_a_vm_that_leaves_is_no_fall_and_one_that_comes_no_rise() -> None:
    """After a VM left, the next one's start would look like a rise that the reserve must hold."""
    a, b = guest("a", used=60), guest("b", used=60)
    first = plan(host(a, b, budget=1000), Remembered(), SETTINGS).remembered
    first = dataclasses.replace(first, rises=known())

    def level(*guests: object) -> int:
        rises = plan(host(*guests, budget=1000, now_s=NOW_S + 5), first, SETTINGS).remembered.rises
        assert rises is not None
        return rises.level_bytes

    a, b = (guest(name, used=60, now_s=NOW_S + 5) for name in "ab")
    assert level(a) == level(a, b) == level(a, b, guest("c", used=90, now_s=NOW_S + 5)) == 0
    assert level(guest("a", used=70, now_s=NOW_S + 5), b) == 10 * MIB


def at(day: int, hour: float) -> float:
    """Unix time."""
    return day * DAY_S + hour * 3600


def test_a_peak_of_yesterday_is_waited_for_until_it_came() -> None:
    """Every morning at nine the host would be short, of what was lent at night. 1/4 at 9:05, today 9:10."""
    peaks = noted((), 0.25, at(1, 9.08))
    assert [expected_ratio(peaks, at(2, hour)) for hour in (8.7, 8.8, 9.2, 9.4, 9.6)] == [
        0,
        0.25,
        0.25,
        0.25,
        0,
    ]
    assert expected_ratio(peaks, at(1, 9.2)) == 0
    came = noted(peaks, 0.2, at(2, 9.17))
    assert expected_ratio(came, at(2, 9.2)) == 0
    assert expected_ratio(came, at(3, 8.8)) == 0.2


def test_a_peak_that_no_longer_comes_is_forgotten() -> None:
    """Of a fair that is over, room would be kept for years. Half a day later each; small ones are none."""
    peaks = noted((), 0.25, at(1, 9.08))
    assert [expected_ratio(peaks, at(day, 9)) for day in (2, 3, 4)] == [0.25, 0.125, 0.0625]
    assert noted((), 0.01, at(1, 9)) == ()
    assert [peak.slot for peak in noted(peaks, 0.25, at(9, 20))] == [80]
    assert noted(peaks, 0.1, at(1, 9.1)) is peaks


def test_peaks_around_midnight_belong_together() -> None:
    """Backups that begin at midnight would surprise the host whenever they are a minute early."""
    peaks = noted((), 0.25, at(2, 0.1))
    assert expected_ratio(peaks, at(2, 23.9)) == 0.25


def test_room_is_kept_for_a_peak_that_is_due() -> None:
    """At five to nine memory would be lent that was short at nine yesterday: a quarter of 256 MiB."""
    now_s = host().wall_s
    rises = known(windows=1e6)._replace(peaks=noted((), 0.25, now_s - DAY_S + 300))
    found = offered(host(guest(used=60), budget=1000), rises).offer

    assert found.growth_reserve_bytes == math.ceil(MARGIN * 64 * MIB)


def test_only_what_many_do_together_makes_a_peak_of_the_day() -> None:
    """One VM's burst would hold back the whole host's offer for the same hour of the next day."""
    alone, together = (
        watch([0] * 12 + [300] * 2 + [0] * 20),
        watch([0] * 12 + [300] * 2 + [0] * 20, share=0.3),
    )

    assert alone.peaks == () and [peak.today_ratio for peak in together.peaks] == [600 / 1024]


def test_the_extent_lies_between_coincident_and_independent() -> None:
    """Four VMs of 100: 400 together, 200 as independent ones: 282."""
    assert extent([100] * 4) == (400, 282) and extent([100]) == (100, 100) and extent([]) == (0, 0)


histories = st.builds(
    lambda counts, together, windows, days: known(
        tuple(counts), max(windows, sum(counts) + sum(together)), days, tuple(together)
    ),
    st.lists(st.floats(0, 50), max_size=40),
    st.lists(st.floats(0, 50), max_size=40),
    st.floats(0, 5000),
    st.floats(0, 3),
)


@thorough
@given(hosts(), histories, st.integers(0, 300))
def test_an_offer_is_never_above_budget_less_need_and_claims(snapshot, rises, claimed_mib) -> None:
    """Promised twice, the memory would be there once."""
    claim = Claim("bid", claimed_mib * MIB, "bid")
    found = offered(dataclasses.replace(snapshot, claims=(claim,)), rises)
    need = sum(entry.minimum_bytes for entry in found.guests if entry.verdict != "excluded")
    kept = sum(
        size.balloon_bytes
        for size, entry in zip(sorted(snapshot.guests, key=lambda g: g.uuid), found.guests, strict=True)
        if entry.verdict == "excluded"
    )
    assert found.offer.memory_bytes <= max(0, found.budget.budget_bytes - need - kept - claimed_mib * MIB)
    assert found.offer.memory_bytes == 0 or found.offer.lacking_bytes == 0


@thorough
@given(hosts(), histories, st.floats(0.0001, 0.5), st.floats(1, 100))
def test_a_larger_bound_never_offers_less(snapshot, rises, bound, times) -> None:
    """An administrator who takes more risk would get less for it."""
    careful, bold = (
        offered(snapshot, rises, OfferSettings(bound_ratio=ratio)).offer.memory_bytes
        for ratio in (bound, min(0.5, bound * times))
    )
    assert bold >= careful


@thorough
@given(histories, st.integers(60, 200), st.integers(0, 100))
def test_more_use_never_offers_more(rises, used, more) -> None:
    """A guest that fills up would make room for others."""
    less, full = (offered(host(guest(used=use), budget=1000), rises).offer for use in (used, used + more))

    assert full.memory_bytes <= less.memory_bytes


@thorough
@given(hosts(), histories)
def test_the_same_host_gets_the_same_offer_and_is_remembered(snapshot, rises) -> None:
    """A replay would show another decision than the host made."""
    one, two = (offered(snapshot, rises) for _ in range(2))

    assert one.offer == two.offer
    assert codec.loads(Remembered, codec.dumps(one.remembered)) == one.remembered


def test_what_an_older_vmpack_wrote_is_read() -> None:
    """An update would forget everything, or not start."""
    text = codec.dumps(Remembered()).replace(',"rises":null', "")
    assert "rises" not in text and codec.loads(Remembered, text).rises is None
    assert codec.loads(Settings, codec.dumps(Settings()).replace('"bound_ratio":0.01,', "")) == Settings()
    assert isinstance(watch([1]).windows[0], RiseWindow)
