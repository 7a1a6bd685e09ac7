"""The wait between two turns: with glances at the VMs, woken by pressure, nudged by balloons that move.

Used by vmpack.host.loop, which has one. Promises that nobody brings a turn while turns fail, that no glance
ends the wait but by an alarm, and that glances which fail become rare.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

from vmpack.clock import WakingClock
from vmpack.errors import VmpackError

log = logging.getLogger(__name__)

TURNS_APART_S = 0.5
"""However loud the alarm, this much time passes between turns."""
GLANCES_APART_S = 0.25
"""Balloons tell of every step they make."""
ON_TIME_S = 0.001


class Vigil:
    """Waits for one turn after the other.

    `look` glances at the VMs and says why the next turn cannot wait, "" when it can. It may raise anything.
    """

    def __init__(self, clock: WakingClock, look: Callable[[], str]) -> None:
        self._clock = clock
        self._look = look
        self._woken = ""
        self._nudged = False
        self._pause_s = 0.0
        self._no_look_before_s = -math.inf
        self._defects_told: set[type[Exception]] = set()

    def wake(self, why: str) -> None:
        """End the wait early, because of this. May come from any thread."""
        if not self._woken:
            self._woken = why
            self._clock.wake()

    def nudge(self) -> None:
        """Have the next glance come at once. May come from any thread."""
        if not self._nudged:
            self._nudged = True
            self._clock.wake()

    def keep(self, due_s: float, glance_s: float, pause_max_s: float) -> str | None:
        """Wait until the turn is due at `due_s`, or for less. None when asked to stop.

        Returns why the turn comes early, "" when it was due. Glances are `glance_s` apart (0: none), and
        where they fail at most `pause_max_s`.
        """
        now_s = self._clock.time_s()
        soonest_s = min(due_s, now_s + TURNS_APART_S)
        look_s, why = now_s + glance_s, ""
        while True:
            why = why or self._woken
            turn_s = soonest_s if why else due_s
            look_s = self._next_look_s(look_s, now_s) if glance_s and not why else math.inf
            if self._clock.wait(min(turn_s, look_s) - now_s):
                return None
            now_s = self._clock.time_s()
            if now_s >= turn_s - ON_TIME_S:
                self._woken = ""
                return why if now_s < due_s - ON_TIME_S else ""
            if now_s >= look_s - ON_TIME_S:
                why = self._glance(glance_s, pause_max_s)
                now_s = self._clock.time_s()
                look_s = now_s + glance_s

    def sit_out(self, due_s: float) -> bool:
        """Wait until then, whoever wakes or nudges meanwhile. True when asked to stop."""
        while True:
            if self._clock.wait(due_s - self._clock.time_s()):
                return True
            if self._clock.time_s() >= due_s - ON_TIME_S:
                self._woken = ""
                return False

    def _next_look_s(self, look_s: float, now_s: float) -> float:
        soon_s = now_s + GLANCES_APART_S if self._nudged else math.inf
        return max(min(look_s, soon_s), self._no_look_before_s)

    def _glance(self, glance_s: float, pause_max_s: float) -> str:
        self._nudged = False
        try:
            why = self._look()
        except VmpackError as error:
            if not self._pause_s:
                log.info("glances at the VMs fail and become rare: %s", error)
            self._look_later(glance_s, pause_max_s)
            return ""
        except Exception as error:  # a defect in a mere glance must not end what guards the VMs
            if type(error) not in self._defects_told:
                log.exception("a defect in vmpack ended a glance at the VMs; please report it")
            self._defects_told.add(type(error))
            self._look_later(glance_s, pause_max_s)
            return ""
        if self._pause_s:
            log.info("glances at the VMs succeed again")
            self._pause_s = 0.0
        return why

    def _look_later(self, glance_s: float, pause_max_s: float) -> None:
        self._pause_s = min(2 * (self._pause_s or glance_s), pause_max_s)
        self._no_look_before_s = self._clock.time_s() + self._pause_s
