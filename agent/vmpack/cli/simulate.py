"""`vmpack simulate WHAT`: what would happen on hosts like yours, decided by the code that the agent runs."""

from __future__ import annotations

import argparse
from typing import Any

from vmpack.cli import simulate_grant, simulate_memory, simulate_vcpu
from vmpack.errors import UnavailableError

DESCRIPTION = """\
Simulate hosts: a recorded or generated use of memory or CPUs, the decisions that the agent would make, and
what came of them. Nothing on this host is looked at or changed."""

EPILOG = """\
examples:
  vmpack simulate memory --generate mixed
  vmpack simulate memory --trace /var/lib/vmpack/history.db --policies vmpack,oracle --overcommit 1.5,2
  vmpack simulate grant --generate mixed
  vmpack simulate vcpu --scenes published
  vmpack simulate memory --help         traces, policies, what the columns mean

Needs the packages of the extra `replay` (vcpu for pictures only): pip install 'vmpack[replay]'."""

_PARTS = {"memory": simulate_memory, "grant": simulate_grant, "vcpu": simulate_vcpu}
_NEEDED = ("numpy", "pyarrow", "matplotlib")


def add_parser(subparsers: Any) -> None:
    """Add the command and its parts to the tree."""
    parser = subparsers.add_parser(
        "simulate",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parts = parser.add_subparsers(dest="part", title="what can be simulated", metavar="WHAT", required=True)
    for part in _PARTS.values():
        part.add_parser(parts)


def run(args: argparse.Namespace) -> int:
    """Run the part. Raises UnavailableError where a package that simulations need is not installed."""
    try:
        return _PARTS[args.part].run(args)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in _NEEDED:
            raise
        hint = "install vmpack[replay]: pip install 'vmpack[replay]'"
        raise UnavailableError(f"simulations need {error.name.partition('.')[0]}", hint) from error
