"""The offer, by examples worked by hand, and what every offer must keep."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tests.builders import NOW_S, SETTINGS, guest, host, unreadable
from tests.rises import DAY_S, REACTION_S, known, watch
from tests.strategies import hosts

from vmpack.decide.day_peaks import expected_ratio, noted
from vmpack.decide.host_rises import MARGIN, NEWCOMER_REACTIONS, Extent
from vmpack.decide.memory import plan
from vmpack.decide.offer import Needs, growth_bytes
from vmpack.model import codec
from vmpack.model.guest import GuestPolicy
from vmpack.model.host import Claim, HostSnapshot
from vmpack.model.plan import HostRises, Plan, Remembered, RiseWindow
from vmpack.model.settings import OfferSettings, Settings
from vmpack.units import MIB

RULES = OfferSettings()
thorough = hypothesis_settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])


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


@pytest.mark.parametrize(
    "state",
    [
        {"job": "migration in"},
        {"state": "paused"},
        {"policy": GuestPolicy(hold_until_s=2e9)},
        {"policy": GuestPolicy(action_until_s=NOW_S + 1_700_000_060.0)},
    ],
    ids=["arriving", "paused", "held", "action"],
)
def test_a_newcomer_counts_whole_whatever_it_is_doing(state: dict[str, Any]) -> None:
    """What a VM that is just migrating in was promised would be offered away before it runs."""
    here, new = guest("here", used=60), guest("new", balloon=64, used=1)
    before = plan(host(here, budget=1000), Remembered(), SETTINGS).remembered
    before = dataclasses.replace(before, rises=known())
    running = plan(host(here, new, budget=1000), before, SETTINGS).offer
    busy = plan(host(here, dataclasses.replace(new, **state), budget=1000), before, SETTINGS)

    assert [entry.verdict for entry in busy.guests] == ["hold", "excluded"]
    assert busy.offer.reasons[0].numbers["newcomers_bytes"] == 256 * MIB
    assert busy.offer.memory_bytes == running.memory_bytes


def test_a_known_vm_keeps_its_reserve_while_it_may_not_be_moved() -> None:
    """A VM that is paused for a moment would find its room lent when it goes on. It holds 128."""
    quarter = known((0.0,) * 32 + (11.0,))
    found = offered(host(guest(balloon=128, used=60, state="paused"), budget=1000), quarter).offer

    assert found.growth_reserve_bytes == math.ceil(MARGIN * 64 * MIB)
    assert found.memory_bytes == (1000 - 128) * MIB - found.growth_reserve_bytes


@pytest.mark.parametrize(("until_s", "needed"), [(NOW_S + 600, 200), (NOW_S - 1, 114)])
def test_what_a_pressed_guest_takes_at_once_is_not_offered(until_s: float, needed: int) -> None:
    """It would grow to 200 in the next turn, into what was just promised; once the floor ends, it is free."""
    small = host(guest(balloon=128, used=60), budget=1000)
    before = plan(small, Remembered(), SETTINGS).remembered
    entry = before.guests["uuid-g1"]
    assert entry.use is not None
    use = entry.use._replace(pressed_floor_bytes=200 * MIB, pressed_floor_until_s=until_s, presses=1)
    pressed = dataclasses.replace(before, guests={"uuid-g1": entry._replace(use=use)}, rises=known())
    found = plan(small, pressed, SETTINGS).offer

    assert found.reasons[0].numbers["needed_bytes"] == needed * MIB
    assert found.memory_bytes == (1000 - needed) * MIB - found.growth_reserve_bytes


def test_a_vm_that_told_nothing_may_take_all_that_it_was_promised() -> None:
    """A hung QEMU that comes back would find its memory lent. Of 256 it held 128; another was never seen."""
    small = guest("hung", balloon=128, used=60)
    before = plan(host(small, budget=1000), Remembered(), SETTINGS).remembered
    hung = (unreadable("hung", 128), unreadable("never seen", 100))
    full = host(budget=1000).pretended_bytes
    found = plan(host(pretended_bytes=full, unreadable=hung), before, SETTINGS)

    assert found.offer.memory_bytes == found.budget.budget_bytes - (256 + 100) * MIB


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
    assert expected_ratio(came, at(2, 9.2)) == pytest.approx(0.05)
    assert expected_ratio(noted(came, 0.3, at(2, 9.2)), at(2, 9.2)) == 0
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

    assert found.growth_reserve_bytes == 64 * MIB


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
