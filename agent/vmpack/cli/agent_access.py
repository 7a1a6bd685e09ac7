"""How a command reaches the running agent: the two options that say where, and the client.

Called by every command that talks to the agent. Promises: nothing is opened before the first call.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from vmpack.errors import ConfigError

if TYPE_CHECKING:
    from vmpack.config import Config
    from vmpack.host.client import AgentClient

SOCKET_NAME = "agent.sock"
LAB_ADDRESS = "lab"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --run-dir and --socket, of which one at most may be given."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--run-dir", type=Path, metavar="DIR", help="the agent's run directory")
    where.add_argument("--socket", type=Path, metavar="FILE", help="the agent's socket, when it is elsewhere")


def run_dir(args: argparse.Namespace) -> Path:
    """The run directory that the options name, else the configured one, else the default one."""
    if args.socket is not None:
        return Path(args.socket).parent
    return Path(args.run_dir) if args.run_dir is not None else configuration().run_dir


def configuration() -> Config:
    """The host's configuration; the defaults when it has mistakes, which are check-config's to tell."""
    from vmpack.config import load

    try:
        return load()
    except ConfigError:
        return load(())


def client(args: argparse.Namespace) -> AgentClient:
    """A client for the agent that the options name. Calls raise UnavailableError when none answers."""
    from vmpack.host.client import AgentClient

    return AgentClient(args.socket if args.socket is not None else run_dir(args) / SOCKET_NAME)


def connect_uri(given: str | None) -> str | None:
    """The libvirt that --connect names; `lab` is that of the running lab. None stays None (configured)."""
    if given != LAB_ADDRESS:
        return given
    from vmpack.lab.lab import Lab

    return Lab.attach().uri
