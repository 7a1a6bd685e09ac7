"""VMs that tell nothing, or no longer: what they get."""

from __future__ import annotations

import dataclasses

from tests.builders import EAGER, NOW_S, guest, host
from tests.plans import after, rules, targets

from vmpack.decide.memory import plan, remember
from vmpack.model.plan import Remembered


def silent_after(seconds, rules_=EAGER):
    snapshot = host(guest(used=30))
    decided = plan(snapshot, Remembered(), rules_)
    later, remembered = after(snapshot, decided)
    heard = later.guests[0]
    for late in range(5, int(seconds) + 5, 5):
        later = dataclasses.replace(later, time_s=NOW_S + late, wall_s=later.wall_s + 5, guests=(heard,))
        decided = plan(later, remembered, rules_)
        remembered = remember(decided, (), later.time_s)
    return decided


def test_a_guest_that_falls_silent_while_shrunk_gets_its_last_safe_size():
    """The guest that is squeezed hardest is the one that cannot report."""
    decided = silent_after(15)

    assert rules(decided, "g1") == ["silent_gets_safe_size"]
    assert targets(decided) == {"g1": 256}


def test_a_guest_that_stays_silent_gets_its_nominal():
    """A hung guest would be kept small for ever."""
    assert rules(silent_after(60), "g1") == ["silent_gets_nominal"]


def test_a_guest_that_never_reported_keeps_what_it_has():
    """A guest without a balloon driver would be asked again and again."""
    decided = plan(host(guest(stats=None)), Remembered(), EAGER)

    assert targets(decided) == {}
    assert rules(decided, "g1")[0] == "no_statistics"
