"""`vmpack agent`: the service that packs this host, in the foreground."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

from vmpack.cli.log_stream import log_to
from vmpack.cli.loop_program import add_arguments, config_changes, configuration

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
    add_directories(parser)
    parser.add_argument("--once", action="store_true", help="one interval, then stop as always")


def add_directories(parser: argparse.ArgumentParser) -> None:
    """The options that `memory_coordinator` has too, beside those of every loop."""
    parser.add_argument("--run-dir", type=Path, metavar="DIR", help="where the socket and probe texts go")
    parser.add_argument("--state-dir", type=Path, metavar="DIR", help="where journal, history and state go")


def run(args: argparse.Namespace) -> int:
    """Run until stopped. Raises VmpackError when the agent cannot start."""
    log_to(sys.stderr, logging.DEBUG if args.verbose else logging.INFO)
    return start(args, once=args.once)


def start(
    args: argparse.Namespace,
    *,
    once: bool = False,
    quiet_line_every: int | None = None,
    reloads: bool = True,
    pins_vcpus: bool = True,
) -> int:
    """Run the agent with these options over the configuration files; `reloads` at SIGHUP, else it stops."""
    from vmpack.host.agent import run_agent

    own = {
        "vcpu.mode": None if pins_vcpus else "off",
        "agent.run_dir": _absolute(args.run_dir),
        "agent.state_dir": _absolute(args.state_dir),
    }
    load = partial(configuration, args, config_changes(args, "memory.interval_s", own))
    return run_agent(load(), load if reloads else None, once=once, quiet_line_every=quiet_line_every)


def _absolute(path: Path | None) -> str | None:
    return os.path.abspath(path) if path else None
