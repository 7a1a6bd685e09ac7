"""The wait between two turns: when it ends, when it looks, and calls that come at a bad moment."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable

import pytest
from tests.builders import NOW_S
from tests.host_doubles import JumpingClock

from vmpack.clock import SystemClock
from vmpack.errors import GuestBusyError
from vmpack.host.vigil import GLANCES_APART_S, Vigil

DUE_S = 5.0
GLANCE_S = 1.0
LONGEST_S = 300.0


class Watch:
    """A vigil over a clock that jumps, and what its glances saw; times count from the start."""

    def __init__(self, stop_at_s: float = math.inf) -> None:
        self.clock = JumpingClock(NOW_S + stop_at_s)
        self.vigil = Vigil(self.clock, self._look)
        self.looks: list[float] = []
        self.sees: Callable[[float], str] = lambda _time_s: ""
        """What a glance at this time says, or raises."""

    @property
    def now_s(self) -> float:
        """The time since the start."""
        return self.clock.now_s - NOW_S

    def at(self, time_s: float, call: Callable[[], None]) -> None:
        """Have this called while the vigil waits."""
        self.clock.at(NOW_S + time_s, call)

    def keep(self, due_s: float = DUE_S, glance_s: float = GLANCE_S) -> str | None:
        """See Vigil."""
        return self.vigil.keep(NOW_S + due_s, glance_s, DUE_S)

    def _look(self) -> str:
        self.looks.append(self.now_s)
        return self.sees(self.now_s)


def busy(_time_s: float) -> str:
    """A glance at VMs of which one hangs."""
    raise GuestBusyError("no answer")


def defective(_time_s: float) -> str:
    """A glance with a defect."""
    raise KeyError("a defect")


def test_a_quiet_wait_ends_when_the_turn_is_due():
    """Too early a turn disturbs the guests, too late a one starves them; glances come in between."""
    watch = Watch()

    assert watch.keep() == ""
    assert watch.now_s == DUE_S and watch.looks == [1, 2, 3, 4]


def test_without_glances_nobody_looks():
    """`memory.glance_s = 0` switches glances off: also those that a moving balloon would bring."""
    watch = Watch()
    watch.at(1.0, watch.vigil.nudge)

    assert watch.keep(glance_s=0.0) == ""
    assert watch.now_s == DUE_S and watch.looks == []


@pytest.mark.parametrize("due_s", [DUE_S, -1.0])
def test_a_stop_ends_the_wait(due_s):
    """Ctrl-C must be heard, also where each turn takes longer than its interval and none is waited for."""
    watch = Watch(stop_at_s=min(due_s, 0.5))

    assert watch.keep(due_s) is None
    assert watch.vigil.sit_out(NOW_S + due_s) is True


def test_an_alarm_ends_the_wait_with_its_words():
    """A guest that runs out of memory cannot wait for the interval."""
    watch = Watch()
    watch.sees = lambda time_s: "web1 starves" if time_s >= 2 else ""

    assert watch.keep() == "web1 starves"
    assert watch.now_s == 2 and watch.looks == [1, 2]


@pytest.mark.parametrize(("woken_s", "ends_s"), [(2.2, 2.2), (0.1, 0.5)])
@pytest.mark.parametrize("glance_s", [0.0, GLANCE_S])
def test_a_wake_ends_the_wait_but_turns_stay_apart(woken_s, ends_s, glance_s):
    """Pressure is answered at once; yet turn upon turn would itself be a load on a host in need."""
    watch = Watch()
    watch.at(woken_s, lambda: watch.vigil.wake("pressure"))

    assert watch.keep(glance_s=glance_s) == "pressure"
    assert watch.now_s == pytest.approx(ends_s)


@pytest.mark.parametrize("glance_s", [0.0, GLANCE_S])
def test_a_wake_during_a_turn_is_not_lost(glance_s):
    """A turn waits on the same clock for balloons: it takes the call that ends a wait, not its reason."""
    watch = Watch()
    watch.vigil.wake("pressure")
    watch.clock.wait(0.0)

    assert watch.keep(glance_s=glance_s) == "pressure"
    assert watch.now_s == 0.5


def test_a_wake_counts_once():
    """One call of the kernel would bring early turns for ever."""
    watch = Watch()
    watch.at(2.0, lambda: watch.vigil.wake("pressure"))

    assert [watch.keep(), watch.keep(), watch.keep(2 * DUE_S)] == ["pressure", "", ""]
    assert watch.now_s == 2 * DUE_S


def test_a_wake_that_comes_when_the_turn_is_due_anyway_makes_no_early_turn():
    """The log would blame pressure for a turn that came on time, and another would follow at once."""
    watch = Watch()
    watch.at(DUE_S, lambda: watch.vigil.wake("pressure"))

    assert [watch.keep(), watch.keep(2 * DUE_S)] == ["", ""]
    assert watch.now_s == 2 * DUE_S


def test_a_call_that_nobody_waits_for_any_more_ends_nothing():
    """What is left of an old call must bring neither a turn nor a glance."""
    watch = Watch()
    for _ in range(5):
        watch.clock.wake()

    assert watch.keep() == ""
    assert watch.now_s == DUE_S and watch.looks == [1, 2, 3, 4]


def test_a_nudge_brings_a_glance_at_once():
    """A guest that takes memory back by itself moves its balloon: a second later it may be too late."""
    watch = Watch()
    watch.at(1.5, watch.vigil.nudge)
    watch.sees = lambda time_s: "it grows" if time_s > 1 else ""

    assert watch.keep() == "it grows"
    assert watch.looks == [1, 1.5 + GLANCES_APART_S]


@pytest.mark.parametrize("is_taken", [False, True])
def test_a_nudge_during_a_turn_brings_one_glance(is_taken):
    """The balloon moved after the turn had looked at it."""
    watch = Watch()
    watch.vigil.nudge()
    if is_taken:
        watch.clock.wait(0.0)

    assert watch.keep() == ""
    assert watch.looks == [0.25, 1.25, 2.25, 3.25, 4.25]


def test_a_storm_of_nudges_is_no_storm_of_glances():
    """Every step of every balloon is told: libvirt would be asked as often."""
    watch = Watch()
    for hundredths in range(500):
        watch.at(hundredths / 100, watch.vigil.nudge)

    assert watch.keep() == ""
    assert 10 <= len(watch.looks) <= DUE_S / GLANCES_APART_S
    assert watch.clock.woken <= len(watch.looks) + 1


def test_a_back_off_is_sat_out_whoever_calls():
    """Pressure lasts while libvirt is dead; each try would make both worse."""
    watch = Watch()
    for second in range(1, 30):
        watch.at(second, lambda: watch.vigil.wake("pressure"))
        watch.at(second, watch.vigil.nudge)

    assert watch.vigil.sit_out(NOW_S + 30) is False
    assert watch.now_s == 30 and watch.looks == [] and len(watch.clock.waits) <= 3
    assert watch.keep(35.0) == ""
    assert watch.now_s == 35


def test_glances_that_fail_become_rare_and_are_told_once(caplog):
    """Each that gets no answer holds a thread and costs the connection, for as long as one VM hangs."""
    watch = Watch()
    watch.sees = lambda time_s: busy(time_s) if time_s < 20 else ""
    watch.at(4.0, watch.vigil.nudge)

    with caplog.at_level(logging.INFO):
        ends = [watch.keep(due_s) for due_s in (5.0, 10.0, 15.0, 20.0, 25.0)]

    assert ends == [""] * 5
    assert watch.looks == [1, 3, 7, 12, 17, 22, 23, 24]
    assert caplog.messages == [
        "glances at the VMs fail and become rare: no answer",
        "glances at the VMs succeed again",
    ]


def test_rare_glances_begin_anew_with_the_next_trouble(caplog):
    """Who reads the log must learn of the second trouble too."""
    watch = Watch()
    watch.sees = lambda time_s: busy(time_s) if time_s in (1, 5) else ""

    with caplog.at_level(logging.INFO):
        watch.keep(10.0)

    assert watch.looks == [1, 3, 4, 5, 7, 8, 9]
    assert [message.split()[4] for message in caplog.messages] == ["fail", "succeed"] * 2


def test_a_glance_never_comes_more_often_because_it_fails():
    """With glances further apart than turns, a failing one must not be tried sooner than one that works."""
    watch = Watch()
    watch.sees = busy
    watch.vigil.nudge()

    assert watch.keep(50.0, glance_s=20.0) == ""
    assert watch.looks == [0.25, 20.25, 40.25]


def test_a_defect_in_a_glance_is_told_once_and_the_turn_comes(caplog):
    """It would end the agent and orphan the VMs; its traceback each second would fill the disk."""
    watch = Watch()
    watch.sees = lambda time_s: defective(time_s) if time_s % 10 else ""

    with caplog.at_level(logging.INFO):
        ends = [watch.keep(float(due_s)) for due_s in range(5, 65, 5)]

    assert ends == [""] * 12 and watch.now_s == 60
    traced = [record for record in caplog.records if record.exc_info]
    assert len(traced) == 1 and "please report it" in traced[0].message


def test_a_wake_from_another_thread_ends_a_real_wait():
    """The kernel's call comes in a thread of its own, before or in the middle of the wait."""
    clock = SystemClock()
    vigil = Vigil(clock, lambda: "")
    threading.Timer(0.01, vigil.wake, ("pressure",)).start()

    assert vigil.keep(clock.time_s() + LONGEST_S, 0.0, DUE_S) == "pressure"


def test_a_stop_is_heard_behind_many_calls():
    """Where turns take longer than their interval, calls must not queue up before Ctrl-C."""
    clock = SystemClock()
    vigil = Vigil(clock, lambda: "")
    for _ in range(50):
        vigil.wake("pressure")
        vigil.nudge()
        assert vigil.keep(clock.time_s() - 1.0, GLANCE_S, DUE_S) == ""
    clock.stop()

    heard = [vigil.keep(clock.time_s() - 1.0, GLANCE_S, DUE_S) for _ in range(3)]
    assert None in heard
