"""A guest that swapped or faulted hard: how much it gets for that, for how long, and when it is forgotten."""

from __future__ import annotations

import dataclasses

import pytest
from tests.builders import EAGER, NOW_S, guest, settings

from vmpack.decide.demand import demand
from vmpack.decide.learn import PRESSED_FLOOR_S, PRESSES_FORGOTTEN_S, learn
from vmpack.decide.sizes import size_table
from vmpack.decide.stance import stance
from vmpack.model.guest import GuestSnapshot
from vmpack.model.host import HostSnapshot
from vmpack.model.plan import LearnedUse, RememberedGuest
from vmpack.units import MIB

HALF_HOUR_S = 1800.0
FAULTS_PER_S = 200


class Course:
    """One guest over time: each step brings a report, with hard faults or without."""

    def __init__(self, nominal: int = 1024, balloon: int = 400, rules=EAGER.memory) -> None:
        self.rules = rules
        self.limits = size_table(rules)[nominal * MIB]
        self.now_s = NOW_S
        self.faults = 0
        self.unused = 10
        self.known: RememberedGuest | None = None
        self.seen = guest(nominal=nominal, balloon=balloon, used=200)
        self.calm()

    def calm(self, later_s: float = 5.0, balloon: int | None = None) -> LearnedUse:
        return self._step(later_s, balloon, 0)

    def press(self, later_s: float = 5.0, balloon: int | None = None) -> LearnedUse:
        return self._step(later_s, balloon, int(FAULTS_PER_S * later_s))

    def wanted(self) -> tuple[int, int]:
        """Ready and wanted, in MiB."""
        assert self.known is not None
        snapshot = HostSnapshot(self.now_s, self.now_s, 2**40, 2**40, guests=(self.seen,))
        need = demand(self.seen, self.known, snapshot, self.limits, self.rules, stance(self.rules))
        return need.ready_bytes // MIB, need.wanted_bytes // MIB

    def _step(self, later_s: float, balloon: int | None, faults: int) -> LearnedUse:
        self.now_s += later_s
        self.faults += faults
        self.seen = self._report(self.seen.balloon_bytes // MIB if balloon is None else balloon)
        self.known = learn(self.seen, self.known, self.now_s, self.limits, self.rules)
        assert self.known.use is not None
        return self.known.use

    def _report(self, balloon: int) -> GuestSnapshot:
        nominal = self.seen.nominal_bytes // MIB
        entry = guest(nominal=nominal, balloon=balloon, used=200, age_s=0.0, now_s=self.now_s)
        assert entry.stats is not None
        stats = dataclasses.replace(entry.stats, major_faults=self.faults, unused_bytes=self.unused * MIB)
        return dataclasses.replace(entry, stats=stats)


def test_a_pressed_guest_wants_a_quarter_more_for_half_an_hour():
    """Page cache that is in use counts as free: it would be taken again as soon as the faults end."""
    course = Course(balloon=400)
    use = course.press()

    assert use.pressed_floor_bytes == 500 * MIB
    assert use.pressed_floor_until_s == course.now_s + HALF_HOUR_S
    assert use.presses == 1
    course.calm(60.0, balloon=500)
    assert course.wanted() == (500, 500)
    course.calm(HALF_HOUR_S)
    assert course.wanted()[1] < 400


def test_each_time_it_is_kept_twice_as_long():
    """A guest whose cache is its work would be squeezed and pressed again every half hour."""
    course = Course()
    kept_s = []
    for _ in range(8):
        use = course.press()
        assert use.pressed_floor_until_s is not None
        kept_s.append(use.pressed_floor_until_s - course.now_s)
        course.calm(kept_s[-1] + 1.0)

    assert kept_s[:4] == [1800.0, 3600.0, 7200.0, 14400.0]
    assert kept_s[-1] == PRESSES_FORGOTTEN_S


def test_pressed_again_meanwhile_it_gets_more_but_counts_once():
    """One bad minute would be taken for a day of them."""
    course = Course(balloon=400)
    first = course.press()
    second = course.press(balloon=500)

    assert (first.presses, second.presses) == (1, 1)
    assert second.pressed_floor_bytes == 625 * MIB
    assert second.pressed_floor_until_s == course.now_s + PRESSED_FLOOR_S
    assert course.press(balloon=480).pressed_floor_bytes == 625 * MIB


def test_each_step_is_given_time_to_help():
    """A program that starts, or the way back from swap, would take the VM to its nominal within a minute."""
    course = Course(balloon=400, rules=settings(calm_s=30.0).memory)
    course.press()
    for _ in range(5):
        assert course.press(balloon=500).pressed_floor_bytes == 500 * MIB
    assert course.press(balloon=500).pressed_floor_bytes == 625 * MIB


def test_with_memory_left_unused_faults_are_not_for_want_of_it():
    """Whoever reads its programs from the disk for the first time would be given ever more."""
    course = Course(balloon=400)
    course.unused = 150

    assert course.press().pressed_floor_bytes == 0


def test_a_later_press_is_measured_anew():
    """A floor of another day, when the guest did other things, would be kept for ever."""
    course = Course(balloon=800)
    assert course.press().pressed_floor_bytes == 1000 * MIB
    course.calm(HALF_HOUR_S + 1, balloon=300)
    use = course.press()

    assert use.pressed_floor_bytes == 375 * MIB and use.presses == 2


def test_a_quiet_day_forgets_it():
    """A guest would pay for one bad night for the rest of its life."""
    course = Course()
    course.press()
    course.calm(HALF_HOUR_S + 1)
    use = course.calm(PRESSES_FORGOTTEN_S)

    assert (use.pressed_floor_bytes, use.pressed_floor_until_s, use.presses) == (0, None, 0)
    assert course.press().presses == 1


def test_a_guest_that_has_its_nominal_is_not_pressed_by_us():
    """A VM that is too small for its work would never be packed again, though packing did it no harm."""
    course = Course(nominal=400, balloon=400)
    use = course.press()

    assert (use.pressed_floor_bytes, use.pressed_floor_until_s, use.presses) == (0, None, 0)


def test_a_floor_is_never_above_nominal():
    """The budget would be planned for memory that the VM may not have."""
    course = Course(nominal=420, balloon=400)
    course.press()

    assert course.wanted() == (420, 420)


@pytest.mark.parametrize(("name", "floor"), [("safe", 500 * MIB), ("balanced", 500 * MIB), ("dense", 0)])
def test_dense_packing_takes_page_cache(name, floor):
    """`dense` would keep every cache that is ever read, and pack no more than `balanced`."""
    course = Course(balloon=400, rules=settings(stance=name).memory)

    assert course.press().pressed_floor_bytes == floor


def test_faults_below_the_mark_are_no_press():
    """Every program that starts faults a little: no VM could be packed."""
    course = Course()
    course.faults += 49 * 5
    assert course.calm().presses == 0
    course.faults += 50 * 5
    assert course.calm().presses == 1
