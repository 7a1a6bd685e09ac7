"""`vcpu_scheduler INTERVAL`: the vCPU loop alone, with one readable line per change."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vmpack.cli import agent_access
from vmpack.cli.agent import log_to
from vmpack.cli.main import guarded

PROGRAM = "vcpu_scheduler"
QUIET_LINE_EVERY = 12

DESCRIPTION = """\
Every INTERVAL seconds, look how loaded the pCPUs of this host are, and where that is uneven change as
few pins as possible until it is even. One line per change with its reason, and one now and then when all
is quiet. What a vCPU wants counts, not what it gets: one that has to wait wants more. Ctrl-C, or the end of
its terminal or pipe, puts every pin back as it was and ends.

Never touched: VMs whose definition or cloud pins them, dedicated and real-time CPUs, VMs with a running
job, held VMs. Pins that somebody set on a running VM (virsh vcpupin) are taken as where it stands now, may
be changed, and are put back at the end. vCPUs that float are left to the kernel while they need not wait."""

EPILOG = """\
examples:
  vcpu_scheduler 12                          the system's libvirt, every 12 s
  vcpu_scheduler 12 --observe                change nothing, say what would be done
  vcpu_scheduler 2 --connect lab             the guests of `vmpack lab up`
  vcpu_scheduler 10 --target 10 --mode group whole VMs on one cache or NUMA node, less even

exit codes: 0 stopped, 1 a pin could not be put back, 69 no libvirt, 75 another one has these vCPUs,
            77 no rights, 130 Ctrl-C"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("interval", metavar="INTERVAL", help="seconds between looks at the host")
    parser.add_argument("--connect", metavar="URI", help="libvirt's address, or `lab` for the running lab")
    parser.add_argument("--observe", action="store_true", help="change nothing, say what would be changed")
    parser.add_argument(
        "--target",
        type=float,
        metavar="POINTS",
        help="standard deviation of the pCPUs' loads that is even enough (default: 5, hundredths of a pCPU)",
    )
    parser.add_argument(
        "--mode",
        choices=("balance", "group"),
        default="balance",
        help="single vCPUs on single pCPUs (default), or whole VMs on one cache or NUMA node",
    )
    parser.add_argument("--once", action="store_true", help="two looks, one decision, then end as always")
    parser.add_argument("--config", type=Path, metavar="FILE", help="read this file, not the default ones")
    parser.add_argument("-v", "--verbose", action="store_true", help="one line per look too")
    args = parser.parse_args(arguments)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    log_to(sys.stdout, logging.DEBUG if args.verbose else logging.INFO)
    return guarded(lambda: _start(args), PROGRAM)


def _start(args: argparse.Namespace) -> int:
    from vmpack import config
    from vmpack.errors import UsageError
    from vmpack.host.vcpus import run_vcpu_scheduler
    from vmpack.units import parse_seconds

    try:
        interval_s = parse_seconds(args.interval)
    except ValueError as error:
        raise UsageError(f"the interval {error}") from error
    changes: dict[str, Any] = {
        "vcpu.interval_s": interval_s,
        "vcpu.mode": args.mode,
        "vcpu.target_points": args.target,
        "agent.observe_only": True if args.observe else None,
    }
    changes = agent_access.connect_changes(args.connect) | changes
    loaded = config.override(config.load([args.config] if args.config else None), changes)
    return run_vcpu_scheduler(loaded, once=args.once, quiet_line_every=QUIET_LINE_EVERY)


if __name__ == "__main__":
    sys.exit(main())
