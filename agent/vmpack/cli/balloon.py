"""`vmpack balloon VM SIZE`: set one VM's memory by hand, inside its limits; with or without an agent."""

from __future__ import annotations

import argparse
import json
from typing import Any

from vmpack.cli import agent_access
from vmpack.cli.action_text import outcome_line
from vmpack.cli.amounts import memory_bytes
from vmpack.errors import AgentBusyError, UnavailableError
from vmpack.model.action import Outcome
from vmpack.model.codec import encode

DESCRIPTION = """\
Set one VM's balloon by hand, and hold the VM so that it stays there. A size below what the VM needs or
beyond what the host can hold is refused, with the numbers. Without an agent it is done directly, by the
same rules: a VM that does not report its use may then need all that it has."""

EPILOG = """\
examples:
  vmpack balloon web-1 768MiB
  vmpack hold web-1 --off          let the agent decide again

--json: action {kind, uuid, name, from_bytes, to_bytes, nominal_bytes}, status (done, partial,
skipped, failed), detail, reached_bytes.

exit code: 0 done, 1 failed, 2 refused, 3 it did not arrive at the size yet, 69 no libvirt, or the agent
may change nothing, 77 no permission."""

_EXIT_CODES = {"done": 0, "partial": 3, "skipped": 1, "failed": 1}


def add_parser(subparsers: Any) -> None:
    """Add the command to the tree."""
    parser = subparsers.add_parser(
        "balloon",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("vm", metavar="VM", help="the VM's name or uuid")
    parser.add_argument("size", type=memory_bytes, metavar="SIZE", help="what it shall have: 768MiB, 2GiB")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    agent_access.add_arguments(parser, any_libvirt=True)


def run(args: argparse.Namespace) -> int:
    """Do it and say what came of it. Raises VmpackError with the numbers when it is refused."""
    outcome = _outcome(args)
    if args.json:
        print(json.dumps(encode(outcome), indent=2))
        return _EXIT_CODES[outcome.status]
    print(f"{outcome_line(outcome)}; held there until `vmpack hold VM --off`")
    return _EXIT_CODES[outcome.status]


def _outcome(args: argparse.Namespace) -> Outcome:
    try:
        return agent_access.client(args).balloon(args.vm, args.size)
    except AgentBusyError:
        raise
    except UnavailableError:
        from vmpack.host.offline import balloon_offline

        return balloon_offline(agent_access.configuration(args), args.vm, args.size)
