"""`vmpack freeze`: stop all changes on this host at once. Needs no living agent, and survives restarts."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from vmpack.cli import agent_access
from vmpack.errors import UnavailableError

DESCRIPTION = """\
Stop all changes on this host: VMs keep the memory they have, the agent goes on watching. It holds
until `vmpack freeze --off`, through restarts of the agent and of the host. Works without an agent:
it then leaves the mark that the next agent obeys."""

EPILOG = """\
examples:
  vmpack freeze          everything stays as it is
  vmpack freeze --off    pack again
  vmpack release --all   give everything back, then freeze

--json: frozen (true or false), agent (true when a running agent confirmed it).

exit code: 0 ok, 77 no permission."""


def add_parser(subparsers: Any) -> None:
    """Add the command to the tree."""
    parser = subparsers.add_parser(
        "freeze", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--off", action="store_true", help="allow changes again")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--state-dir", type=Path, metavar="DIR", help="where to leave the mark without an agent"
    )
    agent_access.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Freeze or thaw. Raises VmpackError when neither the agent nor the state directory can be reached."""
    wanted = not args.off
    try:
        frozen, confirmed = agent_access.client(args).freeze(wanted).frozen, True
    except UnavailableError:
        from vmpack.host.state import State

        State(args.state_dir or agent_access.configuration().state_dir).freeze(wanted)
        frozen, confirmed = wanted, False
    if args.json:
        print(json.dumps({"frozen": frozen, "agent": confirmed}, indent=2))
    else:
        words = (
            "frozen: nothing changes until `vmpack freeze --off`" if frozen else "changes are allowed again"
        )
        print(words if confirmed else f"{words} (no agent answers; the next one to start obeys)")
    return 0
