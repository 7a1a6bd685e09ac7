"""`vmpack simulate vcpu`: how even pCPUs get, with how many pin changes, and how others do."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmpack.cli.amounts import duration_s
from vmpack.cli.simulate_parts import check_can_write, count, progress, seed, words, write_text
from vmpack.errors import UsageError

if TYPE_CHECKING:
    from vmpack.replay.vcpu_contest import VcpuRow

DESCRIPTION = """\
Would vmpack spread my vCPUs evenly over pCPUs, with few pin changes, and then hold still? Small simulated
hosts, on which vCPUs want a known share of a pCPU, under vmpack's own decision and under other rules."""

EPILOG = """\
examples:
  vmpack simulate vcpu
  vmpack simulate vcpu --scenes published --policies all
  vmpack simulate vcpu --scenes random --draws 100 --seed 7 --json rows.json
  vmpack simulate vcpu --scenes noise --hours 8 --plot noise.png

scenes: published (the five CPU cases of Georgia Tech's CS 6210: eight one-vCPU VMs on four pCPUs), random
(--draws hosts with fewer, as many and more vCPUs than pCPUs, VMs of several vCPUs, unequal pCPUs, cores of
two threads, two NUMA nodes, pinned or floating), noise (16 vCPUs on 8 pCPUs that want a tenth more or less in
every interval, for --hours; a VM starts; a VM stops).
policies: vmpack (mode balance), kernel (no pins: runnable vCPUs are counted, not weighed), optimal (knows
what all want), and those in tests/benchmarks/vcpu_rivals where Python finds the package tests (in a checkout:
PYTHONPATH=. vmpack simulate ...): lpt (sort by use, refill from empty), numad-like (VMs to NUMA nodes).

simulated: a pCPU shares its time fairly; who waits neither works nor rests. vCPUs that may run anywhere and
rest now and then find idle pCPUs while there are any. Threads of a core do not slow each other,
moves cost nothing.
the best possible: VMs that are left alone stay; who is moved goes to a node that its VM's memory is bound to,
and to no pCPU of a sibling unless the VM has more vCPUs than pCPUs it may use; a VM that fits into one NUMA
node spreads over no more nodes than before. Others, the kernel too, may do better by not keeping to this.

columns: std: standard deviation of the pCPUs' loads at the end, in points of 1 % of a pCPU; a load is what
vCPUs there want, on average, over the pCPU's capacity; best: the least possible; balanced: intervals from the
beginning, or from the VM that came or went, until std is at most --target or best + 1 and stays so (never:
-); pins: masks changed until then (all of them, but for the last 10 minutes, where never); fewest: masks that
must be changed for std to be at most --target, or best (- where that took too long to find out, where vCPUs
float on a host with idle pCPUs, and where threads share cores: busy ones are moved apart on top of it); late:
masks changed in the 10 minutes after, from the third interval of a load on; wait p99: share of the
time that vCPUs were ready and did not run, 99th percentile over vCPUs and intervals after that; pins/h: masks
changed per hour of the whole scene.

--json FILE: a list of rows {scene, policy, std_points, optimal_std_points, intervals_to_balance, pin_changes,
optimum, late_changes, delay_p99 (0 to 1), pins_per_hour}, null for -; - is standard output, without the
table."""


def add_parser(subparsers: Any) -> None:
    """Add the part to the tree."""
    parser = subparsers.add_parser(
        "vcpu",
        help="policies that pin vCPUs",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--scenes", choices=("published", "random", "noise", "all"), default="all", help="default all")
    add(
        "--policies",
        type=words,
        default=["vmpack", "optimal"],
        metavar="A,B|all",
        help="default vmpack,optimal",
    )
    add("--draws", type=count, default=20, metavar="N", help="random scenes; default 20")
    add("--seed", type=seed, default=1, metavar="N", help="same seed, same scenes; default 1")
    add("--interval", type=duration_s, default=10.0, metavar="TIME", help="between decisions; default 10s")
    add("--target", type=_points, default=5.0, metavar="POINTS", help="standard deviation; default 5")
    add("--hours", type=count, default=1, metavar="N", help="of noise; default 1")
    add("--jobs", type=count, default=os.cpu_count() or 1, metavar="N", help="processes; default all CPUs")
    add("--json", type=Path, metavar="FILE", help="write the rows")
    add("--plot", type=Path, metavar="FILE", help="draw std and changes of all scenes")


def run(args: argparse.Namespace) -> int:
    """Simulate and show. Raises UsageError, UnavailableError, AccessError."""
    from vmpack.replay.vcpu_contest import VcpuContest
    from vmpack.replay.vcpu_policies import named_vcpu_policies
    from vmpack.replay.vcpu_scenes import KINDS, scenes

    if not 1 <= args.interval <= 300:
        raise UsageError("--interval must be from 1s to 300s", "10s is what is usual")
    if args.plot is not None:
        from vmpack.replay.plot import check_kind

        check_kind(args.plot)
    for path in (args.json, args.plot):
        check_can_write(path)
    contest = VcpuContest(args.interval, args.target, named_vcpu_policies(args.policies))
    kinds = KINDS if args.scenes == "all" else (args.scenes,)
    found = scenes(kinds, args.seed, args.draws, round(args.hours * 3600 / args.interval))
    with progress(len(found)) as advance:
        rows = contest.rows(found, args.jobs, advance)
    if args.json != Path("-"):
        _show(rows)
        print(f"{len(found)} scenes; seed {args.seed}; target {args.target:g} points.")
    if args.json is not None:
        write_text(args.json, json.dumps(rows, indent=2) + "\n")
    if args.plot is not None:
        from vmpack.replay.vcpu_plot import plot_vcpus

        plot_vcpus(args.plot, args.target, rows)
    return 0


def _show(rows: Sequence[VcpuRow]) -> None:
    from rich.table import Table

    from vmpack.cli.screen import console

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("scene", "policy"):
        table.add_column(title, no_wrap=True)
    titles = (
        "std\npoints", "best\npoints", "balanced\nintervals", "pins\nmasks", "fewest\nmasks", "late\nmasks",
        "wait p99\nof time", "pins/h\nmasks",
    )  # fmt: skip
    for title in titles:
        table.add_column(title, justify="right")
    scene = ""
    for row in rows:
        table.add_row(
            "" if row["scene"] == scene else row["scene"],
            row["policy"],
            f"{row['std_points']:.1f}",
            "-" if row["optimal_std_points"] is None else f"{row['optimal_std_points']:.1f}",
            _whole(row["intervals_to_balance"]),
            _whole(row["pin_changes"]),
            _whole(row["optimum"]),
            _whole(row["late_changes"]),
            f"{100 * row['delay_p99']:.0f} %",
            f"{row['pins_per_hour']:.1f}",
        )
        scene = row["scene"]
    console().print(table)


def _whole(number: int | None) -> str:
    return "-" if number is None else str(number)


def _points(text: str) -> float:
    try:
        points = float(text)
    except ValueError:
        points = 0.0
    if not 0.1 <= points <= 100:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of points from 0.1 to 100")
    return points
