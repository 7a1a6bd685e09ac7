"""What `vmpack agent`, `memory_coordinator` and `vcpu_scheduler` share: options, and a program around a loop.

Called by these three. Promises: the same option means the same to all of them.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmpack.cli import agent_access
from vmpack.cli.log_stream import log_to
from vmpack.cli.main import guarded
from vmpack.errors import UsageError
from vmpack.units import parse_seconds

if TYPE_CHECKING:
    from vmpack.config import Config

QUIET_LINE_EVERY = 12


def run_program(
    name: str,
    description: str,
    epilog: str,
    add_own_arguments: Callable[[argparse.ArgumentParser], None],
    start: Callable[[argparse.Namespace], int],
    arguments: Sequence[str] | None,
) -> int:
    """Read `NAME INTERVAL ...`, log to standard output, and `start`; the exit code."""
    parser = argparse.ArgumentParser(
        prog=name,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("interval", metavar="INTERVAL", help="seconds between looks at the host")
    parser.add_argument("-v", "--verbose", action="store_true", help="one line per look too")
    add_arguments(parser)
    add_own_arguments(parser)
    args = parser.parse_args(arguments)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    log_to(sys.stdout, logging.DEBUG if args.verbose else logging.INFO)
    return guarded(lambda: start(args), name)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --connect, --observe and --config."""
    parser.add_argument("--connect", metavar="URI", help="libvirt's address, or `lab` for the running lab")
    parser.add_argument("--observe", action="store_true", help="change nothing, say what would be done")
    parser.add_argument("--config", type=Path, metavar="FILE", help="read this file, not the default ones")


def config_changes(args: argparse.Namespace, interval_key: str, own: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration keys that the options set: the shared ones, and over them `own`; None sets nothing.

    `args.interval` sets `interval_key`. Raises UsageError for an interval that is no time, UnavailableError
    when there is no lab to connect to.
    """
    try:
        interval_s = None if args.interval is None else parse_seconds(args.interval)
    except ValueError as error:
        raise UsageError(f"the interval {error}") from error
    named = {interval_key: interval_s, "agent.observe_only": True if args.observe else None, **own}
    set_keys = {name: value for name, value in named.items() if value is not None}
    return agent_access.connect_changes(args.connect) | set_keys


def configuration(args: argparse.Namespace, changes: Mapping[str, Any]) -> Config:
    """The configuration files with these changes over them. Raises what vmpack.config does."""
    from vmpack import config

    return config.override(config.load([args.config] if args.config else None), changes)
