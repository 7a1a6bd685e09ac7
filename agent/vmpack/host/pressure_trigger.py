"""The kernel's word that this host runs short of memory, heard at once instead of at the next interval.

Used by the agent to wake its loop. The kernel watches the stalls (PSI); a thread here sleeps until it calls.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import threading
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger(__name__)

UNPRIVILEGED_WINDOW_US = 2_000_000
"""Newer kernels let users who are not root watch only windows that are multiples of this."""


class PressureTrigger:
    """Calls `wake` from a thread of its own when tasks on this host waited for memory for too long.

    That is: some task stood still for `stall_us` within `window_us`. At most one call per window. Where the
    kernel has no PSI, or gives no right to it, nothing is ever called, and the log says so once.
    """

    def __init__(
        self,
        wake: Callable[[], None],
        path: Path = Path("/proc/pressure/memory"),
        stall_us: int = 150_000,
        window_us: int = 1_000_000,
    ) -> None:
        self._wake = wake
        self._window_s = window_us / 1e6
        self._stop_read, self._stop_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._thread: threading.Thread | None = None
        try:
            descriptor = _register_as_allowed(path, stall_us, window_us)
        except OSError as error:
            log.info("memory pressure of the host wakes nobody early: %s: %s", path, error.strerror)
            return
        self._thread = threading.Thread(
            target=self._watch, args=(descriptor,), name="memory pressure", daemon=True
        )
        self._thread.start()

    @property
    def is_watching(self) -> bool:
        """False where the kernel will not call, and after `stop`."""
        return self._thread is not None and self._thread.is_alive()

    def stop(self) -> None:
        """End the thread; no call is made once this returns. May be called twice."""
        if self._stop_write < 0:
            return
        os.close(self._stop_write)
        self._stop_write = -1
        if self._thread is not None:
            self._thread.join()
        os.close(self._stop_read)

    def _watch(self, descriptor: int) -> None:
        try:
            pressure, stopping = select.poll(), select.poll()
            pressure.register(descriptor, select.POLLPRI)
            for each in (pressure, stopping):
                each.register(self._stop_read, select.POLLIN)
            while True:
                events = dict(pressure.poll())
                if self._stop_read in events:
                    return
                if events[descriptor] & (select.POLLERR | select.POLLNVAL):
                    log.info("memory pressure of the host wakes nobody early any more: its trigger is gone")
                    return
                self._wake()
                if stopping.poll(self._window_s * 1000):
                    return
        finally:
            os.close(descriptor)


def _register_as_allowed(path: Path, stall_us: int, window_us: int) -> int:
    try:
        return register(path, stall_us, window_us)
    except OSError as error:
        if error.errno != errno.EINVAL or window_us % UNPRIVILEGED_WINDOW_US == 0:
            raise
        return register(path, stall_us, -(-window_us // UNPRIVILEGED_WINDOW_US) * UNPRIVILEGED_WINDOW_US)


def register(path: Path, stall_us: int, window_us: int) -> int:
    """Open a descriptor that shows POLLPRI when some task stalled for that long. Raises OSError."""
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.write(descriptor, f"some {stall_us} {window_us}\0".encode())
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
