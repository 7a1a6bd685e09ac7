"""`vmpack one-hook ACTION before|meanwhile|after VMID`: what OpenNebula's VMM actions call."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from vmpack.cli import agent_access
from vmpack.cli.safe_text import shown

AGENT_TIME_S = 8.0
"""The action waits meanwhile."""

DESCRIPTION = """\
Called by OpenNebula's VMM actions on a node (vmm/vmpack/), right before and right after the stock
one. Not for people: `vmpack hold`, `vmpack balloon` and `vmpack migrate` are.

The action's input comes on stdin. Out comes a line with a warning for the VM's log, which may be empty,
then the answer: before `deploy` the domain's XML to deploy (nothing: as it is), before the others a
word that `after` takes as --token. `migrate` has ".auto-converge" behind that word where the VM does
not say how it converges. `meanwhile` holds the VM for longer and prints nothing."""

EPILOG = """\
examples:
  vmpack one-hook save before 12 </dev/null
  vmpack one-hook save after 12 --code 0 --token WORD </dev/null
  vmpack one-hook deploy before 12 --file /var/lib/one/datastores/0/12/deployment.0 <deployment.0

exit code: 0 whatever was warned of, 2 wrong usage; meanwhile: not 0 when it need not be asked again."""


def add_parser(subparsers: Any) -> None:
    """Add the command to the tree."""
    from vmpack.drivers.hooks import ACTIONS

    parser = subparsers.add_parser(
        "one-hook",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("action", choices=ACTIONS, metavar="ACTION", help=", ".join(ACTIONS))
    parser.add_argument("when", choices=("before", "meanwhile", "after"), help="around the stock action")
    parser.add_argument("vmid", type=int, metavar="VMID", help="the VM's number in OpenNebula")
    parser.add_argument("--file", type=Path, metavar="FILE", help="deploy: the deployment file")
    parser.add_argument(
        "--code", type=int, default=0, metavar="N", help="after: the stock action's exit code"
    )
    parser.add_argument("--token", default="", metavar="WORD", help="after: what was answered before")
    agent_access.add_arguments(parser, whole_host=True, any_libvirt=True)


def run(args: argparse.Namespace) -> int:
    """Do it and print the answer."""
    from vmpack.clock import SystemClock
    from vmpack.drivers.hooks import after, before, meanwhile
    from vmpack.drivers.node import Node
    from vmpack.hypervisor import Hypervisor

    config = agent_access.configuration(args)
    hypervisor = Hypervisor(config.connect_uri)
    node = Node(hypervisor, agent_access.client(args, AGENT_TIME_S), SystemClock())
    if args.when == "meanwhile":
        return 0 if meanwhile(args.vmid, node) else 1
    given = sys.stdin.buffer.read().decode(errors="surrogateescape")
    if args.when == "before":
        answer = before(args.action, args.vmid, given, args.file, node, config)
    else:
        answer = after(args.action, args.vmid, given, args.code == 0, args.token, node)
    sys.stdout.buffer.write(f"{shown(answer.warning)}\n{answer.text}".encode())
    sys.stdout.flush()
    return 0
