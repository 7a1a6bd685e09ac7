"""`vmpack agent`: the service that packs this host, in the foreground."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from vmpack.cli import agent_access
from vmpack.units import parse_seconds

if TYPE_CHECKING:
    from vmpack.config import Config

DESCRIPTION = """\
Keep this host: look at it every few seconds, borrow the memory that its VMs do not use, give it back
the moment they need it, and answer `vmpack status`, `top`, `explain` and the rest on a local socket.
Runs in the foreground; stopping it (Ctrl-C, SIGTERM, the end of its terminal or of the pipe that it
logs to) gives all memory back. SIGHUP reads the configuration again; a bad one is refused and the old
one stays."""

EPILOG = """\
examples:
  vmpack agent --observe            change nothing, say what would be done; a safe first day
  vmpack agent                      with /etc/vmpack/vmpack.toml (an ordinary user: ~/.config/vmpack)
  vmpack agent --connect lab        on the guests of `vmpack lab up`, with directories of the lab
  vmpack agent --once --observe -v  one look, then end

exit codes: 0 stopped, 69 no libvirt, 75 another agent has this libvirt, 77 no rights,
            78 configuration has mistakes, 130 Ctrl-C"""


def add_parser(subparsers: Any) -> None:
    """Add the command to the tree."""
    parser = subparsers.add_parser(
        "agent", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--interval", metavar="S", help="seconds between looks, as 5 or 500ms")
    add_arguments(parser)
    parser.add_argument("--once", action="store_true", help="one interval, then stop as always")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that `vmpack agent` and `memory_coordinator` share."""
    parser.add_argument("--connect", metavar="URI", help="libvirt's address, or `lab` for the running lab")
    parser.add_argument("--observe", action="store_true", help="change nothing")
    parser.add_argument("--config", type=Path, metavar="FILE", help="read this file, not the default ones")
    parser.add_argument("--run-dir", type=Path, metavar="DIR", help="where the socket and probe texts go")
    parser.add_argument("--state-dir", type=Path, metavar="DIR", help="where journal, history and state go")


def run(args: argparse.Namespace) -> int:
    """Run until stopped. Raises VmpackError when the agent cannot start."""
    log_to(sys.stderr, logging.DEBUG if args.verbose else logging.INFO)
    return start(args, args.interval, once=args.once)


def start(
    args: argparse.Namespace,
    interval: str | None,
    *,
    once: bool = False,
    quiet_line_every: int | None = None,
    reloads: bool = True,
    pins_vcpus: bool = True,
) -> int:
    """Run the agent with these options over the configuration files; `reloads` at SIGHUP, else it stops."""
    from vmpack.errors import UsageError
    from vmpack.host.agent import run_agent

    try:
        interval_s = parse_seconds(interval) if interval is not None else None
    except ValueError as error:
        raise UsageError(f"the interval {error}") from error
    changes: dict[str, Any] = {
        "memory.interval_s": interval_s,
        "vcpu.mode": None if pins_vcpus else "off",
        "agent.observe_only": True if args.observe else None,
        "agent.run_dir": _absolute(args.run_dir),
        "agent.state_dir": _absolute(args.state_dir),
    }
    of_connect = agent_access.connect_changes(args.connect)
    changes = of_connect | {name: value for name, value in changes.items() if value is not None}

    def load() -> Config:
        return _configuration(args.config, changes)

    again = load if reloads else None
    return run_agent(load(), again, once=once, quiet_line_every=quiet_line_every)


def log_to(stream: TextIO, level: int) -> None:
    """Log to this stream: with the time for people, with syslog's levels to the service manager's journal.

    A terminal or pipe that is gone ends the agent; a journal that is gone does not.
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
    """Stops the agent when nobody can read what it says any more."""

    def handleError(self, record: logging.LogRecord) -> None:
        """See logging.Handler; called where an exception is being handled."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError) or error.errno not in (errno.EPIPE, errno.EIO):
            super().handleError(record)
            return
        from vmpack.host.agent import OUTPUT_GONE

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


def _configuration(file: Path | None, changes: Mapping[str, Any]) -> Config:
    from vmpack import config

    return config.override(config.load([file] if file else None), changes)


def _absolute(path: Path | None) -> str | None:
    return os.path.abspath(path) if path else None
