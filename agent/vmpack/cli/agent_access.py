"""How a command reaches the running agent: the options that say where, and the client.

Called by every command that talks to the agent. Promises: nothing is created on the way, and a named place
is never exchanged for another one.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from vmpack.errors import AccessError, ConfigError, VmpackError

if TYPE_CHECKING:
    from vmpack.config import Config
    from vmpack.host.client import AgentClient
    from vmpack.lab.state import StateFolder

SOCKET_NAME = "agent.sock"
HOST_RUN_DIR = Path("/run/vmpack")
LAB_ADDRESS = "lab"
PROBE_TIME_S = 5.0

Answer = TypeVar("Answer")


def add_arguments(
    parser: argparse.ArgumentParser, *, whole_host: bool = False, any_libvirt: bool = False
) -> None:
    """Add the options that say which agent: --config, --connect, and --run-dir or --socket.

    A command for the `whole_host` never turns to a lab unasked. With `any_libvirt` the command can work
    without an agent, on the libvirt that --connect names.
    """
    parser.set_defaults(whole_host=whole_host)
    if any_libvirt:
        parser.add_argument(
            "--connect", metavar="URI", help="libvirt, or `lab` for the running lab (default: configured)"
        )
    else:
        parser.add_argument("--connect", choices=[LAB_ADDRESS], help="the agent on the running lab")
    parser.add_argument("--config", type=Path, metavar="FILE", help="the agent's own configuration file")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--run-dir", type=Path, metavar="DIR", help="the agent's run directory")
    where.add_argument("--socket", type=Path, metavar="FILE", help="the agent's socket, when it is elsewhere")


def run_dir(args: argparse.Namespace, config: Config) -> Path:
    """The run directory that the options name, else the configured one."""
    if args.socket is not None:
        return Path(args.socket).parent
    return Path(args.run_dir) if args.run_dir is not None else config.run_dir


def configuration(args: argparse.Namespace) -> Config:
    """The agent's configuration with --connect over it.

    Defaults where this host's cannot be used, which is check-config's to tell. Raises ConfigError for
    mistakes in a file that --config names, UnavailableError when no lab runs that --connect wants.
    """
    from vmpack.config import override

    return override(_loaded(args.config), connect_changes(args.connect))


def _loaded(file: Path | None) -> Config:
    from vmpack.config import load

    if file is not None:
        return load([file])
    try:
        return load()
    except (AccessError, ConfigError):
        return load(())


def client(args: argparse.Namespace, change_time_s: float | None = None) -> AgentClient:
    """A client for the agent that the options name, else for this user's own, else the host's, else a lab's.

    `change_time_s`: how long a change is waited for. Calls raise UnavailableError when none answers,
    AccessError when it refuses this user.
    """
    from vmpack.host.client import CHANGE_TIME_S, AgentClient

    return AgentClient(_socket(args), CHANGE_TIME_S if change_time_s is None else change_time_s)


def if_told(ask: Callable[[], Answer]) -> Answer | None:
    """What the agent's vCPU loop says; None where it has none, or is of a version without."""
    try:
        return ask()
    except VmpackError:
        return None


def _socket(args: argparse.Namespace) -> Path:
    if args.socket is not None:
        return Path(args.socket)
    usual = run_dir(args, configuration(args)) / SOCKET_NAME
    if args.run_dir is not None or args.config is not None or args.connect == LAB_ADDRESS:
        return usual
    refused = []
    for path in dict.fromkeys((usual, HOST_RUN_DIR / SOCKET_NAME)):
        try:
            if _answers(path):
                return path
        except PermissionError:
            refused.append(path)
    if refused:
        return refused[-1]
    hosts_own = HOST_RUN_DIR.is_dir() and not usual.parent.is_dir()  # installed, but not running
    nobody = HOST_RUN_DIR / SOCKET_NAME if hosts_own else usual
    return (None if args.whole_host else _lab_socket()) or nobody


def _lab_socket() -> Path | None:
    """The socket of the agent on the lab `default`, when one answers there; says so on stderr."""
    from vmpack.lab.state import StateFolder, base_folder

    path = lab_directories(StateFolder(base_folder() / "default"))[0] / SOCKET_NAME
    try:
        if base_folder().lstat().st_uid != os.geteuid() or not _answers(path):
            return None
    except OSError:
        return None
    sys.stderr.write("no agent of this host answers; this is the one on the lab (--connect lab)\n")
    return path


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


def connect_changes(given: str | None) -> dict[str, str]:
    """The configuration keys that --connect sets. Raises UnavailableError when there is no lab to connect to.

    `lab` is the running lab: its libvirt, and directories of its own, so that nothing done there (a freeze,
    a hold) is left to an agent of this host. They go away with the lab.
    """
    if given != LAB_ADDRESS:
        return {} if given is None else {"agent.connect_uri": given}
    from vmpack.lab.lab import Lab

    lab = Lab.attach()
    run, state = lab_directories(lab.state)
    return {"agent.connect_uri": lab.uri, "agent.run_dir": str(run), "agent.state_dir": str(state)}


def lab_directories(lab: StateFolder) -> tuple[Path, Path]:
    """Run and state directory of an agent on this lab; short, for a socket's path is 108 bytes at most."""
    return lab.root / "agent" / "run", lab.root / "agent" / "state"
