"""The signals that stop a program around a loop, heard by one thread, and the exit code that they make.

Used by the agent and by `vcpu_scheduler`. Promises that the first one asks for a stop, that a second one from
a person or the service manager ends the program at once, and that no other thread is interrupted by any.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Collection
from types import TracebackType

log = logging.getLogger(__name__)

EXIT_INTERRUPTED = 130
OUTPUT_GONE = signal.SIGPIPE
"""Sent by the program to itself when nobody can read its log any more."""


class StopSignals:
    """SIGTERM, SIGINT, SIGHUP and OUTPUT_GONE; a context manager, entered before any thread starts."""

    def __init__(self, stay_ignored: Collection[signal.Signals]) -> None:
        """`stay_ignored`: not heard where whoever started the program ignores them, as nohup does."""
        ignored = {number for number in stay_ignored if signal.getsignal(number) is signal.SIG_IGN}
        self._heard = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, OUTPUT_GONE} - ignored
        self._stopped_by: signal.Signals | None = None
        self._mask_before: Collection[int] = ()

    def __enter__(self) -> StopSignals:
        self._mask_before = signal.pthread_sigmask(signal.SIG_BLOCK, self._heard)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask_before)

    def wait(self, wait_s: float) -> bool:
        """Wait for one before `watch`; False when none came in time. SIGHUP is left for later."""
        found = signal.sigtimedwait(self._heard - {signal.SIGHUP}, wait_s)
        if found is not None:
            self._stopped_by = signal.Signals(found.si_signo)
        return found is not None

    def watch(
        self, stop: Callable[[], None], left_behind: str, reload: Callable[[], None] | None = None
    ) -> None:
        """Hear them from now on, in a thread: the first one calls `stop`, SIGHUP calls `reload` where given.

        `left_behind` is said where a second one leaves no time to clean up.
        """
        words = (stop, left_behind, reload)
        threading.Thread(target=self._watch, args=words, name="signals", daemon=True).start()

    def exit_code(self, well: bool) -> int:
        """Of the program at its end; `well`: it did all that it should."""
        if self._stopped_by is signal.SIGINT:
            return EXIT_INTERRUPTED
        return 0 if well else 1

    def _watch(self, stop: Callable[[], None], left_behind: str, reload: Callable[[], None] | None) -> None:
        while True:
            number = signal.Signals(signal.sigwait(self._heard))
            if number is signal.SIGHUP and reload is not None:
                reload()
            elif self._stopped_by is None:
                self._stopped_by = number
                stop()
            elif number in (signal.SIGTERM, signal.SIGINT):
                log.warning("stopped at once: %s until `vmpack release --all`", left_behind)
                os._exit(128 + number)
