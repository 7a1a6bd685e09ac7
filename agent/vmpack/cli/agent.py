"""`vmpack agent`: the service that packs this host, in the foreground."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from vmpack.units import parse_seconds

if TYPE_CHECKING:
    from vmpack.config import Config

LAB_ADDRESS = "lab"

DESCRIPTION = """\
Keep this host: look at it every few seconds, borrow the memory that its VMs do not use, give it back
the moment they need it, and answer `vmpack status`, `top`, `explain` and the rest on a local socket.
Runs in the foreground; stopping it (Ctrl-C, SIGTERM) gives all memory back. SIGHUP reads the
configuration again; a bad one is refused and the old one stays."""

EPILOG = """\
examples:
  vmpack agent --observe            change nothing, say what would be done; a safe first day
  vmpack agent                      with /etc/vmpack/vmpack.toml (an ordinary user: ~/.config/vmpack)
  vmpack agent --connect lab        on the guests of `vmpack lab up`
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
    return start(args, args.interval, once=args.once, quiet_line_every=None)


def start(
    args: argparse.Namespace, interval: str | None, *, once: bool, quiet_line_every: int | None
) -> int:
    """Run the agent with these options over the configuration files."""
    from vmpack.errors import UsageError
    from vmpack.host.agent import run_agent

    try:
        interval_s = parse_seconds(interval) if interval is not None else None
    except ValueError as error:
        raise UsageError(f"the interval {error}") from error
    changes = {
        "memory.interval_s": interval_s,
        "agent.connect_uri": _address(args.connect),
        "agent.observe_only": True if args.observe else None,
        "agent.run_dir": _absolute(args.run_dir),
        "agent.state_dir": _absolute(args.state_dir),
    }

    def load() -> Config:
        return _configuration(args.config, changes)

    return run_agent(load(), load, once=once, quiet_line_every=quiet_line_every)


def log_to(stream: TextIO, level: int) -> None:
    """Log to this stream: with the time for people, with syslog's levels under the service manager."""
    under_systemd = "JOURNAL_STREAM" in os.environ
    handler = logging.StreamHandler(stream)
    plain = logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S")
    handler.setFormatter(_JournalFormatter() if under_systemd else plain)
    logger = logging.getLogger("vmpack")
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(level)


class _JournalFormatter(logging.Formatter):
    """Prefixes each line with the level as sd-daemon(3) wants it."""

    _LEVELS: Mapping[int, str] = {logging.DEBUG: "<7>", logging.INFO: "<6>", logging.WARNING: "<4>"}

    def format(self, record: logging.LogRecord) -> str:
        prefix = self._LEVELS.get(record.levelno, "<3>")
        return "\n".join(prefix + line for line in super().format(record).splitlines())


def _configuration(file: Path | None, changes: Mapping[str, Any]) -> Config:
    from vmpack import config

    return config.override(config.load([file] if file else None), changes)


def _address(given: str | None) -> str | None:
    if given != LAB_ADDRESS:
        return given
    from vmpack.lab.lab import Lab

    return Lab.attach().uri


def _absolute(path: Path | None) -> str | None:
    return os.path.abspath(path) if path else None
