"""What, seen between two intervals, cannot wait for the next one."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tests.builders import EAGER, NOW_S, SETTINGS, guest, host
from tests.strategies import hosts

from vmpack.decide import explain
from vmpack.decide.alarm import alarm
from vmpack.decide.memory import plan, remember
from vmpack.model.action import Outcome, SetMemory
from vmpack.model.glance import Glance, GuestGlance
from vmpack.model.interval import Interval
from vmpack.model.plan import Reason, Remembered
from vmpack.units import GIB, MIB

RESERVED = dataclasses.replace(SETTINGS, host=dataclasses.replace(SETTINGS.host, reserve_ratio=0.05))


def rung(balloon: int, usable: int | None) -> str:
    """The rule of the alarm, "" for none, after a turn that packed a guest of 256 MiB to 116."""
    snapshot = host(guest(used=30))
    decided = plan(snapshot, Remembered(), EAGER)
    outcomes = tuple(
        Outcome(action, "done", "", action.to_bytes)
        for action in decided.actions
        if action.kind == "set_memory"
    )
    known = remember(decided, outcomes, NOW_S)
    seen = GuestGlance(balloon * MIB, None if usable is None else usable * MIB)
    glance = Glance(None, {"uuid-g1": seen})
    reason = alarm(Interval(1, snapshot, decided, outcomes), known, glance, EAGER)
    return "" if reason is None else reason.rule


@pytest.mark.parametrize(
    ("balloon", "usable", "rule"),
    [
        (116, 48, ""),
        (116, 41, ""),
        (116, 39, "need_rises_fast"),
        (116, 0, "need_rises_fast"),
        (116, None, ""),
        # libvirt may still show the balloon, and the report, of before the shrink
        (256, 188, ""),
        (130, 48, ""),
    ],
)
def test_a_packed_guest_rings_when_its_free_memory_falls_by_more_than_the_dead_band(balloon, usable, rule):
    """Too deaf and a guest starves between intervals; too keen and the host works for nothing."""
    assert rung(balloon, usable) == rule


@pytest.mark.parametrize(
    ("asked", "now", "rule"),
    [(200, 260, "room_has_come_free"), (200, 299, ""), (200, 300, ""), (None, 260, "")],
)
def test_who_waits_for_memory_gets_it_when_it_comes_free(asked, now, rule):
    """A starving guest would wait for the next interval while its neighbour's memory lies free."""
    giving, waiting = guest("giving", nominal=1024, balloon=400, used=30), guest("waiting", balloon=160)
    snapshot = host(giving, waiting)
    shrink = SetMemory("uuid-giving", "giving", 400 * MIB, 200 * MIB, 1024 * MIB)
    grow = SetMemory("uuid-waiting", "waiting", 160 * MIB, 240 * MIB, 256 * MIB)
    outcomes = (
        Outcome(shrink, "partial", "", 300 * MIB),
        Outcome(grow, "partial", "", 200 * MIB, asked_bytes=None if asked is None else asked * MIB),
    )
    decided = plan(snapshot, Remembered(), SETTINGS)
    glance = Glance(None, {"uuid-giving": GuestGlance(now * MIB, None)})
    reason = alarm(Interval(1, snapshot, decided, outcomes), decided.remembered, glance, SETTINGS)

    assert ("" if reason is None else reason.rule) == rule


@pytest.mark.parametrize(("seen", "rule"), [(160, ""), (163, ""), (200, "balloon_grew_by_itself")])
def test_a_guest_that_takes_memory_back_by_itself_rings(seen, rule):
    """With autodeflate the guest helps itself from the host's reserve: others must pay it back at once."""
    snapshot = host(guest(used=30, balloon=160, autodeflate=True))
    decided = plan(snapshot, Remembered(), SETTINGS)
    glance = Glance(None, {"uuid-g1": GuestGlance(seen * MIB, 90 * MIB)})
    reason = alarm(Interval(1, snapshot, decided, ()), remember(decided, (), NOW_S), glance, SETTINGS)

    assert rule == ("" if reason is None else reason.rule)


def test_the_hosts_own_memory_rings_once_on_its_way_down():
    """The host's own death is the worst outcome; yet a host that stays short must not ring for ever."""
    snapshot = dataclasses.replace(host(), memory_available_bytes=60 * GIB)
    decided = plan(snapshot, Remembered(), RESERVED)

    def ring(available: int) -> Reason | None:
        glance = Glance(available * GIB, {})
        return alarm(Interval(1, snapshot, decided, ()), Remembered(), glance, RESERVED)

    assert ring(59) is None
    assert ring(46) is None
    fallen = ring(44)
    assert fallen is not None and fallen.rule == "host_memory_falls"
    assert "44 GiB" in explain.words(fallen)[0]


@hypothesis_settings(max_examples=100)
@given(hosts(), st.sampled_from([SETTINGS, EAGER]))
def test_what_was_planned_itself_never_rings(snapshot, settings):
    """Every turn would call the next one at once."""
    decided = plan(snapshot, Remembered(), settings)
    outcomes = tuple(
        Outcome(a, "done", "", a.to_bytes if isinstance(a, SetMemory) else None) for a in decided.actions
    )
    known = remember(decided, outcomes, snapshot.time_s)
    sizes = {entry.uuid: entry.balloon_bytes for entry in snapshot.guests}
    sizes |= {a.uuid: a.to_bytes for a in decided.actions if isinstance(a, SetMemory)}

    def seen(entry) -> GuestGlance:
        usable = None
        if entry.stats is not None:
            usable = max(0, entry.stats.usable_bytes + sizes[entry.uuid] - entry.balloon_bytes)
        return GuestGlance(sizes[entry.uuid], usable)

    glance = Glance(None, {entry.uuid: seen(entry) for entry in snapshot.guests})
    assert alarm(Interval(1, snapshot, decided, outcomes), known, glance, settings) is None
