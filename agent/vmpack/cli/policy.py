"""`vmpack policy VM`: one VM's own floor, shares and headroom; kept in the VM's own libvirt metadata."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from typing import Any

from vmpack.cli import agent_access
from vmpack.cli.amounts import memory_bytes, ratio
from vmpack.cli.policy_text import policy_words
from vmpack.cli.safe_text import shown
from vmpack.model.codec import encode
from vmpack.model.guest import GuestPolicy
from vmpack.model.policy_namespace import OWNER_FIELDS

DESCRIPTION = """\
Show or set what holds for one VM instead of the host's settings. Without options it shows. What is
not named stays as it is. The policy is kept with the VM itself and follows it when it migrates."""

EPILOG = """\
examples:
  vmpack policy db-1                               show
  vmpack policy db-1 --floor 2GiB                  never below 2 GiB
  vmpack policy db-1 --shares 2000 --headroom 0.3  matters twice as much, 30% of its use kept above use
  vmpack policy db-1 --opt-out                     give back what it lent and leave it alone from now on
  vmpack policy db-1 --reset                       the host's settings hold again
  vmpack policy db-1 --reset --shares 500          the same, but for these shares

--json: uuid, name, policy {floor_bytes, shares, headroom_ratio, headroom_min_bytes, opt_out,
hold_until_s, nominal_bytes, of_owner [field]}; null means the host's setting.

exit code: 0 ok, 2 no such VM or a value out of range, 69 no agent answers, 77 no permission."""


def add_parser(subparsers: Any) -> None:
    """Add the command to the tree."""
    parser = subparsers.add_parser(
        "policy", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("vm", metavar="VM", help="the VM's name or uuid")
    parser.add_argument(
        "--floor", type=memory_bytes, metavar="SIZE", help="never balloon it below this: 100MiB"
    )
    parser.add_argument(
        "--shares", type=int, metavar="N", help="weight under scarcity, 1..100000; 1000 is usual"
    )
    parser.add_argument("--headroom", type=ratio, metavar="RATIO", help="room kept above use: 0.3 or 30%%")
    parser.add_argument(
        "--headroom-min", type=memory_bytes, metavar="SIZE", help="that room is at least this: 64MiB"
    )
    parser.add_argument(
        "--nominal",
        type=memory_bytes,
        metavar="SIZE",
        help="what its owner pays for, where it was built with more; the cloud's to say (vms --sync)",
    )
    taking_part = parser.add_mutually_exclusive_group()
    taking_part.add_argument("--opt-out", action="store_true", help="leave this VM alone")
    taking_part.add_argument("--opt-in", action="store_true", help="let it take part again")
    forgetting = parser.add_mutually_exclusive_group()
    forgetting.add_argument(
        "--reset", action="store_true", help="forget what is not named in this call, but for its nominal"
    )
    forgetting.add_argument(
        "--of-owner",
        action="store_true",
        help="this is all that its owner asks of the cloud (vms --sync): what is set by hand stays",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    agent_access.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Show or set. Raises UnavailableError without an agent, AccessError without the rights."""
    wanted = changes(args)
    client = agent_access.client(args)
    if args.of_owner:
        wanted = _owners_changes(client.explain(args.vm).guest.policy, wanted)
    if wanted or args.of_owner:
        kept = client.set_policy(args.vm, wanted)
        uuid, name, policy = kept.uuid, kept.name, kept.policy
    else:
        guest = client.explain(args.vm).guest
        uuid, name, policy = guest.uuid, guest.name, guest.policy
    if args.json:
        print(json.dumps({"uuid": uuid, "name": name, "policy": encode(policy)}, indent=2))
    else:
        own = policy_words(policy, time.time())
        print(f"{shown(name)}: {own or 'nothing of its own, the settings of the host hold'}")
    return 0


def _owners_changes(present: GuestPolicy, wanted: Mapping[str, Any]) -> dict[str, Any]:
    from vmpack.decide.owners import with_wishes

    asked = with_wishes(present, wanted)
    nominal = {name: value for name, value in wanted.items() if name not in OWNER_FIELDS}
    return (
        {name: getattr(asked, name) for name in OWNER_FIELDS} | {"of_owner": list(asked.of_owner)} | nominal
    )


def changes(args: argparse.Namespace) -> dict[str, Any]:
    """The fields of GuestPolicy that the options name."""
    given = {
        "floor_bytes": args.floor,
        "shares": args.shares,
        "headroom_ratio": args.headroom,
        "headroom_min_bytes": args.headroom_min,
    }
    named = {field: value for field, value in given.items() if value is not None}
    if args.nominal is not None:
        named["nominal_bytes"] = args.nominal
    if args.opt_out or args.opt_in:
        named["opt_out"] = args.opt_out
    plain = GuestPolicy()
    forgotten = {field: getattr(plain, field) for field in (*given, "opt_out")} if args.reset else {}
    return forgotten | named
