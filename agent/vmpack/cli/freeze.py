"""`vmpack freeze`: stop all changes on this host at once. Needs no living agent, and survives restarts."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from vmpack.cli import agent_access
from vmpack.errors import UnavailableError

DESCRIPTION = """\
Stop all changes on this host: VMs keep the memory they have, the agent goes on watching. It holds
until `vmpack freeze --off`, through restarts of the agent and of the host. Works without an agent:
it then leaves the mark that the next agent of the same state directory obeys, and says so."""

EPILOG = """\
examples:
  vmpack freeze          everything stays as it is
  vmpack freeze --off    pack again
  vmpack release --all   give everything back, then freeze

--json: frozen (true or false), agent (true when a running agent confirmed it), state_dir (where the
mark was left or removed without an agent, else null).

exit code: 0 ok, 3 no running agent confirmed it, 77 no permission."""

EXIT_UNCONFIRMED = 3


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
    agent_access.add_arguments(parser, whole_host=True)


def run(args: argparse.Namespace) -> int:
    """Freeze or thaw; 3 when that is only a mark for the next agent, or there was no mark to remove.

    Raises AccessError when the agent refuses, VmpackError when the state directory cannot be written.
    """
    wanted = not args.off
    try:
        frozen = agent_access.client(args).freeze(wanted).frozen
    except UnavailableError as error:
        # Also when an agent is there and does not answer: it looks for the mark before it changes anything.
        return _mark(args, wanted, error)
    if args.json:
        _print_record(frozen, None)
    else:
        print(
            "frozen: nothing changes until `vmpack freeze --off`" if frozen else "changes are allowed again"
        )
    return 0


def _mark(args: argparse.Namespace, wanted: bool, why: UnavailableError) -> int:
    """Leave or remove the mark that the next agent obeys, and say that nobody confirmed it."""
    from vmpack.host.state import State
    from vmpack.publish.atomic import disk_error

    directory = Path(os.path.abspath(args.state_dir or agent_access.configuration(args).state_dir))
    state = State(directory)
    try:
        there_before = state.frozen()
    except OSError as error:
        raise disk_error("look into", directory, error) from error
    state.freeze(wanted)
    if args.json:
        _print_record(wanted, directory)
    else:
        print(
            "\n".join(
                (*_words(directory, wanted, there_before), f"no running agent confirmed it: {why.message}")
            )
        )
    return 0 if there_before and not wanted else EXIT_UNCONFIRMED


def _words(directory: Path, wanted: bool, there_before: bool) -> tuple[str, ...]:
    if wanted:
        return (
            f"marked as frozen: {directory}; the next agent with this state directory obeys",
            "an agent that runs elsewhere is NOT frozen: name its --config, --run-dir or --socket",
        )
    if there_before:
        return (f"no longer marked as frozen: {directory}",)
    return (f"was not marked as frozen: {directory}",)


def _print_record(frozen: bool, marked: Path | None) -> None:
    where = None if marked is None else str(marked)
    print(json.dumps({"frozen": frozen, "agent": marked is None, "state_dir": where}, indent=2))
