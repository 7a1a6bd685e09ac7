"""Time, as the loop, the source and the executor are given it; none of them reads a clock itself.

`SystemClock` is the real one. Simulations and tests bring their own with the same methods.
"""

from __future__ import annotations

import queue
import time
from typing import Protocol


class Clock(Protocol):
    """What is asked of a clock."""

    def time_s(self) -> float:
        """Monotonic seconds: the clock that intervals and ages are measured with."""
        ...

    def wall_s(self) -> float:
        """Unix time in seconds; may be stepped."""
        ...

    def wait(self, seconds: float) -> bool:
        """Wait so long, or until woken or asked to stop. True when asked to stop."""
        ...


class WakingClock(Clock, Protocol):
    """A clock whose wait others can cut short."""

    def wake(self) -> None:
        """End the running wait, or else the next one. May come from any thread."""
        ...


class SystemClock:
    """The machine's own clocks. `stop()` may come from any thread or signal handler and ends every wait."""

    def __init__(self) -> None:
        # Event.set() may deadlock in a signal handler that interrupts a wait; SimpleQueue.put() may not.
        self._calls: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def time_s(self) -> float:
        """See Clock."""
        return time.monotonic()

    def wall_s(self) -> float:
        """See Clock."""
        return time.time()

    def wait(self, seconds: float) -> bool:
        """See Clock."""
        try:
            stop = self._calls.get(timeout=max(0.0, seconds))
        except queue.Empty:
            return False
        if stop:
            self._calls.put(True)
        return stop

    def wake(self) -> None:
        """See WakingClock."""
        self._calls.put(False)

    def stop(self) -> None:
        """End the running wait and all later ones at once."""
        self._calls.put(True)
