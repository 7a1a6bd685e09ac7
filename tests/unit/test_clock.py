"""The real clock's waits, and how they end."""

from __future__ import annotations

import signal
import threading

from vmpack.clock import SystemClock


def test_a_stop_ends_this_wait_and_all_later_ones():
    """Ctrl-C would have to wait for the end of the interval, and then for the next."""
    clock = SystemClock()
    threading.Timer(0.01, clock.stop).start()

    assert clock.wait(300.0) is True
    assert clock.wait(300.0) is True


def test_a_stop_from_a_signal_handler_ends_the_wait():
    """SIGTERM arrives in the middle of the main thread's wait: a lock held there would hang the agent."""
    clock = SystemClock()
    before = signal.signal(signal.SIGUSR1, lambda _number, _frame: clock.stop())
    try:
        threading.Timer(
            0.05, lambda: signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)
        ).start()
        assert clock.wait(300.0) is True
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_wait_that_is_over_says_go_on():
    """The loop would end after its first interval; a late one must not wait a negative time."""
    clock = SystemClock()

    assert clock.wait(0.001) is False
    assert clock.wait(-5.0) is False


def test_time_goes_forward():
    """Ages are differences of this clock."""
    clock = SystemClock()

    first = clock.time_s()
    assert clock.wait(0.01) is False
    assert clock.time_s() >= first + 0.01
    assert clock.wall_s() > 1_700_000_000
