"""Where the programs of the loops log to: a terminal, a pipe, or the service manager's journal.

Called by `vmpack agent` and loop_program.py. Promises that a loop whose output nobody can read any more ends.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Mapping
from typing import TextIO


def log_to(stream: TextIO, level: int) -> None:
    """Log to this stream: with the time for people, with syslog's levels to the service manager's journal.

    A terminal or pipe that is gone ends the program; a journal that is gone does not.
    """
    handler: logging.Handler
    if _is_journal(stream):
        handler = logging.StreamHandler(stream)
        handler.setFormatter(_JournalFormatter())
    else:
        handler = _WatchedStream(stream)
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("vmpack")
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(level)


def _is_journal(stream: TextIO) -> bool:
    """sd_journal(3): JOURNAL_STREAM is inherited, so it counts only where it names this very stream."""
    named = os.environ.get("JOURNAL_STREAM")
    if not named:
        return False
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return named == f"{found.st_dev}:{found.st_ino}"


class _WatchedStream(logging.StreamHandler[TextIO]):
    """Stops the program when nobody can read what it says any more."""

    def handleError(self, record: logging.LogRecord) -> None:
        """See logging.Handler; called where an exception is being handled."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError) or error.errno not in (errno.EPIPE, errno.EIO):
            super().handleError(record)
            return
        from vmpack.host.stop_signals import OUTPUT_GONE

        # What the stream still holds, and all that follows, must not fail again at the end.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.stream.fileno())
        os.close(nowhere)
        os.kill(os.getpid(), OUTPUT_GONE)


class _JournalFormatter(logging.Formatter):
    """Prefixes each line with the level as sd-daemon(3) wants it."""

    _LEVELS: Mapping[int, str] = {logging.DEBUG: "<7>", logging.INFO: "<6>", logging.WARNING: "<4>"}

    def format(self, record: logging.LogRecord) -> str:
        prefix = self._LEVELS.get(record.levelno, "<3>")
        return "\n".join(prefix + line for line in super().format(record).splitlines())
