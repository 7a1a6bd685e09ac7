"""How a command reaches the running agent: the options that say where, and the client.

Called by every command that talks to the agent. Promises: nothing is created on the way, and a named place
is never exchanged for another one.
"""

from __future__ import annotations

import argparse
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from vmpack.errors import AccessError, ConfigError

if TYPE_CHECKING:
    from vmpack.config import Config
    from vmpack.host.client import AgentClient

SOCKET_NAME = "agent.sock"
HOST_RUN_DIR = Path("/run/vmpack")
LAB_ADDRESS = "lab"
PROBE_TIME_S = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which agent: --config, and --run-dir or --socket."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="the agent's own configuration file")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--run-dir", type=Path, metavar="DIR", help="the agent's run directory")
    where.add_argument("--socket", type=Path, metavar="FILE", help="the agent's socket, when it is elsewhere")


def run_dir(args: argparse.Namespace) -> Path:
    """The run directory that the options name, else the configured one, else the default one."""
    if args.socket is not None:
        return Path(args.socket).parent
    return Path(args.run_dir) if args.run_dir is not None else configuration(args).run_dir


def configuration(args: argparse.Namespace) -> Config:
    """The agent's configuration; the defaults where this host's cannot be used (check-config's to tell).

    Raises ConfigError for mistakes in a file that --config names.
    """
    from vmpack.config import load

    if args.config is not None:
        return load([args.config])
    try:
        return load()
    except (AccessError, ConfigError):
        return load(())


def client(args: argparse.Namespace) -> AgentClient:
    """A client for the agent that the options name, else for this user's own, else for the host's.

    Calls raise UnavailableError when none answers, AccessError when it refuses this user.
    """
    from vmpack.host.client import AgentClient

    return AgentClient(_socket(args))


def _socket(args: argparse.Namespace) -> Path:
    if args.socket is not None:
        return Path(args.socket)
    usual = run_dir(args) / SOCKET_NAME
    if args.run_dir is not None or args.config is not None:
        return usual
    refused = []
    for path in dict.fromkeys((usual, HOST_RUN_DIR / SOCKET_NAME)):
        try:
            if _answers(path):
                return path
        except PermissionError:
            refused.append(path)
    return refused[-1] if refused else usual


def _answers(path: Path) -> bool:
    """True when somebody listens there. Raises PermissionError when this user may not know or ask."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(PROBE_TIME_S)
        try:
            probe.connect(str(path))
        except PermissionError:
            raise
        except TimeoutError:
            return True
        except OSError:
            return False
    return True


def connect_uri(given: str | None) -> str | None:
    """The libvirt that --connect names; `lab` is that of the running lab. None stays None (configured)."""
    if given != LAB_ADDRESS:
        return given
    from vmpack.lab.lab import Lab

    return Lab.attach().uri
