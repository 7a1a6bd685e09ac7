"""What the rises of all VMs together teach: which sizes are counted, how often, and what is forgotten."""

from __future__ import annotations

import dataclasses
import math

import pytest
from tests.builders import NOW_S, SETTINGS, guest, host
from tests.rises import DAY_S, REACTION_S, SIZE, known, watch

from vmpack.decide.host_rises import (
    HALF_LIFE_S,
    MARGIN,
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
from vmpack.model.plan import HostRises, Remembered
from vmpack.model.settings import OfferSettings
from vmpack.units import MIB

RULES = OfferSettings()


def test_a_stop_of_a_day_teaches_nothing() -> None:
    """After a day's maintenance the host would lend all its reserve, on half an hour that it has seen."""
    needs = Needs(100, 100, 1000, Extent(1000, 1000))
    seen = watch([0] * 180)
    after = learned(seen, Change(0, 0), SIZE, {}, *2 * [NOW_S + 1800 + DAY_S], REACTION_S)

    assert [growth_bytes(needs, rises, NOW_S, RULES) for rises in (seen, after)] == [98, 98]


def test_an_empty_host_teaches_nothing() -> None:
    """The first VM after a day would count as known for that day."""
    rises = learned(None, Change(0, 0), Extent(0, 0), {}, NOW_S, NOW_S, REACTION_S)
    for number in range(1, 100):
        rises = learned(rises, Change(0, 0), Extent(0, 0), {}, *2 * [NOW_S + 10 * number], REACTION_S)

    assert rises.since_s == rises.last_s


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


def test_only_what_many_do_together_makes_a_peak_of_the_day() -> None:
    """One VM's burst would hold back the whole host's offer for the same hour of the next day."""
    alone, together = (
        watch([0] * 12 + [300] * 2 + [0] * 20),
        watch([0] * 12 + [300] * 2 + [0] * 20, share=0.2),
    )

    assert alone.peaks == () and [peak.today_ratio for peak in together.peaks] == [600 / 1024]


def test_the_extent_lies_between_coincident_and_independent() -> None:
    """Four VMs of 100: 400 together, 200 as independent ones: 282."""
    assert extent([100] * 4) == (400, 282) and extent([100]) == (100, 100) and extent([]) == (0, 0)
