"""Want of memory that only the guest's own kernel tells: refaults, allocation stalls, PSI."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from tests.builders import NOW_S, SETTINGS, guest, host, settings

from vmpack.decide import explain
from vmpack.decide.memory import plan, remember
from vmpack.model.action import Outcome, SetMemory
from vmpack.model.guest import GuestSnapshot, KernelCounts
from vmpack.model.plan import Plan, Remembered
from vmpack.model.settings import Settings
from vmpack.units import MIB

NOTHING = Remembered()
DENSE = settings(stance="dense")
STEP_S = 6.0


def caching(step: int, balloon: int = 120, free: int = 4, **counts: int) -> GuestSnapshot:
    """A guest of 256 MiB that uses 30 and keeps page cache in the rest: little is free, much is usable."""
    now_s = NOW_S + STEP_S * step
    made = guest(balloon=balloon, used=30, now_s=now_s)
    assert made.stats is not None
    stats = dataclasses.replace(made.stats, unused_bytes=free * MIB)
    return dataclasses.replace(made, stats=stats, kernel=KernelCounts(now_s, **counts))


def decided(*seen: GuestSnapshot, rules: Settings = SETTINGS, remembered: Remembered = NOTHING) -> Plan:
    """The plan after the last of these, when no balloon moved by our doing."""
    for entry in seen:
        assert entry.kernel is not None
        now_s = entry.kernel.sampled_s
        answer = plan(host(entry, now_s=now_s), remembered, rules)
        remembered = remember(answer, (), now_s)
    return answer


def shown(answer: Plan) -> str:
    """What showed that the guest is pressed; empty when it is not."""
    why = answer.guests[0].reasons[0]
    return why.note if why.rule == "guest_was_pressed" else ""


@pytest.mark.parametrize(
    ("counted", "by"),
    [
        # Six seconds: 300 pages read again, 60 stalls, 10 ms of waiting.
        ({"refaults": 300}, "refaults"),
        ({"refaults": 299}, ""),
        ({"allocation_stalls": 60}, "allocation_stalls"),
        ({"allocation_stalls": 59}, ""),
        ({"stalled_some_us": 10_000}, "stalled"),
        ({"stalled_some_us": 9_999}, ""),
    ],
)
def test_each_count_is_need_from_its_own_bound(counted: dict[str, int], by: str) -> None:
    """A guest that loses the cache it works with neither swaps nor faults: it would be squeezed on and on."""
    before = dict.fromkeys(counted, 1000)
    after = {name: 1000 + count for name, count in counted.items()}

    assert shown(decided(caching(0, **before), caching(1, **after))) == by


def test_a_guest_whose_cache_working_set_is_lost_is_given_room_back() -> None:
    """Its throughput would fall to a quarter while vmpack calls its cache free memory."""
    answer = decided(caching(0, refaults=0), caching(1, refaults=40_000))
    (grow,) = [action for action in answer.actions if isinstance(action, SetMemory)]

    # A quarter more than the 120 MiB it has.
    assert grow.to_bytes == 150 * MIB
    assert "read again from its disk" in explain.words(answer.guests[0].reasons[0])[0]
    known = answer.remembered.guests["uuid-g1"].use
    assert known is not None and known.pressed_floor_bytes == 150 * MIB


def test_what_was_lost_before_the_balloon_grew_is_not_counted_again() -> None:
    """One loss would grow the VM twice, and at every answer that comes late."""
    first = decided(caching(0, refaults=0), caching(1, refaults=40_000))
    (grow,) = [action for action in first.actions if isinstance(action, SetMemory)]
    done = remember(first, [Outcome(grow, "done", "", grow.to_bytes)], NOW_S + STEP_S)

    mixed = decided(caching(2, balloon=150, refaults=60_000), remembered=done)
    known = mixed.remembered.guests["uuid-g1"].use
    assert known is not None and known.pressed_floor_bytes == 150 * MIB

    again = decided(caching(9, balloon=150, refaults=200_000), remembered=remember(mixed, (), NOW_S + 12))
    known = again.remembered.guests["uuid-g1"].use
    assert known is not None and known.pressed_floor_bytes == (150 + 37.5) * MIB


def test_stalls_while_the_balloon_inflates_are_its_own() -> None:
    """The kernel frees cache for the balloon: every shrink would look like need and be taken back."""
    stalls = {"allocation_stalls": 600, "stalled_some_us": 10**6, "stalled_full_us": 10**6}
    none = dict.fromkeys(stalls, 0)

    shrunk = decided(caching(0, balloon=180, **none), caching(1, balloon=150, **stalls))

    assert shown(shrunk) == ""
    assert shown(decided(caching(0, balloon=150, **none), caching(1, balloon=150, **stalls))) != ""


def test_a_part_of_the_guest_at_its_own_limit_is_not_the_guest() -> None:
    """One container that thrashes in its limit would keep the VM from being packed for ever."""
    counts: dict[str, Any] = {"refaults": 10**6, "stalled_some_us": 10**6}

    assert shown(decided(caching(0, refaults=0), caching(1, free=20, **counts))) == ""


def test_a_dense_host_heeds_only_guests_that_stand_still() -> None:
    """Page cache would be kept for guests on a host that was told to give it up."""
    cache = {"refaults": 10**6, "allocation_stalls": 10**6, "stalled_some_us": 10**6}
    before = caching(0, stalled_full_us=0, **dict.fromkeys(cache, 0))

    assert shown(decided(before, caching(1, stalled_full_us=0, **cache), rules=DENSE)) == ""
    assert shown(decided(before, caching(1, stalled_full_us=10_000, **cache), rules=DENSE)) == "stalled"


def test_a_new_boot_a_first_answer_and_silence_tell_nothing() -> None:
    """Counts of another life, or none at all, would move balloons."""
    full = {"refaults": 10**9, "stalled_some_us": 10**9}
    silent = dataclasses.replace(caching(1), kernel=KernelCounts(NOW_S + STEP_S))

    assert shown(decided(caching(0, **full))) == ""
    assert shown(decided(caching(0, **full), caching(1, refaults=5, stalled_some_us=5))) == ""
    assert shown(decided(caching(0, refaults=0), silent)) == ""
    # The same answer, seen again in the next interval.
    old = dataclasses.replace(caching(2), kernel=caching(0, refaults=0).kernel)
    assert shown(decided(caching(0, refaults=0), old)) == ""
