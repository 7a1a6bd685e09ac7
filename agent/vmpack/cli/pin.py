"""`vmpack pin VM VCPU CPUS`: let one vCPU of a running VM run on some of the host's CPUs alone."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from vmpack.cli import agent_access
from vmpack.cli.safe_text import shown

_PART = re.compile(r"([0-9]{1,4})(?:-([0-9]{1,4}))?", re.ASCII)

DESCRIPTION = """\
Let one vCPU of a running VM run on these CPUs of the host alone, until the VM ends or moves. Its
lasting definition is not changed. A VM that OpenNebula placed on CPUs of its own is refused.

With one CPU for every vCPU a VM has dedicated CPUs, and its memory is then left alone."""

EPILOG = """\
examples:
  vmpack pin web-1 0 2           vCPU 0 on CPU 2 alone
  vmpack pin web-1 1 0-3,6       vCPU 1 on five CPUs
  vmpack pin web-1 1 all         on all again
  vmpack pin web-1 0 2 --dry-run would it go? changes nothing

--json: vm, vcpu, cpus, done.

exit code: 0 done (or would be), 1 failed, 2 no such VM, vCPU or CPU, 69 no libvirt here, 77 no permission."""


def add_parser(subparsers: Any) -> None:
    """Add the command to the tree."""
    parser = subparsers.add_parser(
        "pin", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("vm", metavar="VM", help="the VM's name or uuid")
    parser.add_argument("vcpu", metavar="VCPU", type=int, help="its number in the VM, from 0")
    parser.add_argument("cpus", metavar="CPUS", type=cpu_list, help="the host's CPUs: 0-3,6, or all")
    parser.add_argument("--dry-run", action="store_true", help="only look whether it would go")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--connect", metavar="URI", help="the libvirt it runs on (default: configured)")
    parser.add_argument("--config", type=Path, metavar="FILE", help="the agent's own configuration file")


def run(args: argparse.Namespace) -> int:
    """Pin it. Raises UsageError for a VM, vCPU or CPU that there is not, or one that must not be pinned."""
    from vmpack.act.pinning import pin_vcpu
    from vmpack.clouds.opennebula_placement import refuse_placed
    from vmpack.hypervisor import Hypervisor

    hypervisor = Hypervisor(agent_access.configuration(args).connect_uri)
    try:
        name = pin_vcpu(hypervisor, args.vm, args.vcpu, args.cpus, refuse_placed, dry_run=args.dry_run)
    finally:
        hypervisor.close()
    if args.json:
        record = {"vm": name, "vcpu": args.vcpu, "cpus": args.cpus, "done": not args.dry_run}
        print(json.dumps(record, indent=2))
        return 0
    where = f"CPU {', '.join(str(cpu) for cpu in args.cpus)}" if args.cpus else "all CPUs"
    would = "would run" if args.dry_run else "runs"
    print(f"vCPU {args.vcpu} of {shown(name)} {would} on {where}")
    return 0


def cpu_list(text: str) -> tuple[int, ...]:
    """Read "0-2,5" as CPUs; "all" as none named."""
    if text == "all":
        return ()
    cpus: set[int] = set()
    for part in text.split(","):
        match = _PART.fullmatch(part)
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a list of CPUs; write for example 0-3,6, or all"
            )
        cpus.update(range(int(match[1]), int(match[2] or match[1]) + 1))
    return tuple(sorted(cpus))
