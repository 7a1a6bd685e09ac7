"""`vmpack hold VM`: leave one VM's memory as it is, for a while or until told otherwise."""

from __future__ import annotations

import argparse
import json
from typing import Any

from vmpack.cli import agent_access
from vmpack.cli.amounts import duration_s
from vmpack.cli.policy_text import until_words
from vmpack.cli.safe_text import shown
from vmpack.model.codec import encode

DESCRIPTION = """\
Leave one VM alone: its memory stays as it is now, whatever it needs or does not need, until the
time is over. `vmpack release VM` first gives it back what it lent, and then holds it."""

EPILOG = """\
examples:
  vmpack hold db-1 --for 10min     before a delicate job
  vmpack hold db-1                 until it is ended
  vmpack hold db-1 --off           end it

--json: uuid, name, policy {floor_bytes, shares, headroom_ratio, headroom_min_bytes, opt_out,
hold_until_s, nominal_bytes}.

exit code: 0 ok, 2 no such VM, 69 no agent answers, 77 no permission."""


def add_parser(subparsers: Any) -> None:
    """Add the command to the tree."""
    parser = subparsers.add_parser(
        "hold", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("vm", metavar="VM", help="the VM's name or uuid")
    when = parser.add_mutually_exclusive_group()
    when.add_argument("--for", dest="for_s", type=duration_s, metavar="TIME", help="how long: 10min, 2h")
    when.add_argument("--off", action="store_true", help="end the hold")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    agent_access.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Begin or end the hold. Raises UnavailableError without an agent, AccessError without the rights."""
    client = agent_access.client(args)
    held = client.hold(args.vm, 0.0 if args.off else args.for_s)
    if args.json:
        print(json.dumps(encode(held), indent=2))
    elif args.off:
        print(f"{shown(held.name)} is no longer held; the next interval may change its memory")
    else:
        until = held.policy.hold_until_s
        print(f"{shown(held.name)} is left alone{'' if until is None else ' ' + until_words(until)}")
    return 0
