"""`vcpu_scheduler INTERVAL`: the vCPU loop alone, with one readable line per change."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from vmpack.cli.loop_program import QUIET_LINE_EVERY, config_changes, configuration, run_program

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

exit codes: 0 stopped, 1 a pin could not be put back or the last look before the end failed, 69 no libvirt,
            75 another one has these vCPUs, 77 no rights, 130 Ctrl-C"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code."""
    return run_program("vcpu_scheduler", DESCRIPTION, EPILOG, _add_arguments, _start, arguments)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
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


def _start(args: argparse.Namespace) -> int:
    from vmpack.host.vcpus import run_vcpu_scheduler

    own = {"vcpu.mode": args.mode, "vcpu.target_points": args.target}
    changes = config_changes(args, "vcpu.interval_s", own)
    return run_vcpu_scheduler(configuration(args, changes), once=args.once, quiet_line_every=QUIET_LINE_EVERY)


if __name__ == "__main__":
    sys.exit(main())
