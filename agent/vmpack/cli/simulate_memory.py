"""`vmpack simulate memory`: how much vmpack would pack, what guests would lack, and how others would do."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmpack.cli.amounts import duration_s, ratio
from vmpack.cli.simulate_parts import (
    add_source,
    count,
    factors,
    progress,
    seed,
    trace_of,
    words,
    write_text,
)
from vmpack.errors import UsageError

if TYPE_CHECKING:
    from vmpack.replay.contest import Contest
    from vmpack.replay.scores import Row
    from vmpack.replay.world import World

DESCRIPTION = """\
What would vmpack save on my hosts, and would a guest ever be short? A trace says how much memory VMs
used. Each draw takes some of its VMs and a day, puts them on one host that is too small for all they were
promised, and lets policies divide its memory; the day before is there to learn from and is not scored."""

EPILOG = """\
examples:
  vmpack simulate memory --generate mixed
  vmpack simulate memory --trace /var/lib/vmpack/history.db --overcommit 1.5,2
  vmpack simulate memory --trace vms.csv.gz --policies vmpack,cloudvamp-fixed,oracle --draws 20
  vmpack simulate memory --trace vms.parquet --policies all --demand-scale 1,2,4 --json rows.json
  vmpack simulate memory --generate peaks --delay 10s --without-statistics 10% --plot peaks.png

traces (.csv, .csv.gz, .parquet with these columns; history.db of the agent as it is):
  vm, slot, mem_prov_mb, mem_used_mb      slots of 5 minutes, amounts in MiB
  time, vm, nominal_bytes, used_bytes     time in Unix seconds
or series of libvirt's Prometheus exporters (.json, .prom, .txt, also .gz), of hosts that do not balloon yet:
  curl -fsS http://PROMETHEUS:9090/api/v1/query_range -o vms.json -d step=60 \\
    -d start=$(date -d '7 days ago' +%s) -d end=$(date +%s) --data-urlencode \\
    'query={__name__=~"libvirt_domain_(memory_stats_(available|usable)|info_maximum_memory)_bytes"}'
  promtool tsdb dump --match='{__name__=~"libvirt_domain_(memory_stats|info)_.*"}' DATA_DIR > vms.prom
  (more than 11000 moments: several answers, one after the other in one file)
policies: vmpack (all its stances; vmpack:STANCE is one), static (no ballooning), cloudvamp-fixed, hyperv,
oracle (knows the future: the unavoidable minimum), and those in tests/benchmarks/rivals where Python finds
the package tests (in a checkout: PYTHONPATH=. vmpack simulate ...).
simulated guests: need is what the trace says and what the kernel keeps for itself; what a balloon takes of it
is shortage. Page cache grows to --cache-share of nominal and goes first, its working set last.

columns: balloon: balloons over nominals, mean of the day; short: need above balloon in GB (10^9 bytes) times
hours, median and worst draw (of those whose need stays under 0.97 of memory less a 5 % reserve; the others
are infeasible); VM-min: minutes in which a VM was short; host over: minutes in which VMs' resident memory
exceeded the host's; ops: orders to balloons; cache loss: missing part of the page cache's working set; cache
speed: of programs that use it, once a minute, where what is missing is read back at 100 MiB/s.

--json FILE: a list of rows {policy, stance, overcommit, demand_scale, draws, infeasible_draws,
balloon_ratio_median, short_gbh_median, short_gbh_worst (null without a feasible draw), short_vm_min_median,
host_over_min_worst, ops_per_vm_h_median, cache_loss_ratio, cache_throughput_ratio}; - is standard output,
without the table."""


def add_parser(subparsers: Any) -> None:
    """Add the part to the tree."""
    parser = subparsers.add_parser(
        "memory",
        help="ballooning policies on a trace",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_source(parser)
    add = parser.add_argument
    add("--policies", type=words, default=["vmpack"], metavar="A,B|all", help="default vmpack")
    add("--overcommit", type=factors, default=[2.0], metavar="X,Y", help="nominals over memory; default 2")
    add("--demand-scale", type=factors, default=[1.0], metavar="X,Y", help="use, times this; default 1")
    add("--vms", type=count, default=24, metavar="N", help="VMs on the host; default 24")
    add("--draws", type=count, default=8, metavar="N", help="default 8; medians want 20")
    add("--days", type=count, default=8, metavar="N", help="days to generate; default 8")
    add("--seed", type=seed, default=1, metavar="N", help="same seed, same draws; default 1")
    add("--step", type=duration_s, default=10.0, metavar="TIME", help="between decisions; default 10s")
    add("--ramp", type=duration_s, default=60.0, metavar="TIME", help="a change takes so long; default 60s")
    add("--delay", type=duration_s, default=0.0, metavar="TIME", help="age of guests' reports; default 0s")
    add("--report-period", type=duration_s, default=1.0, metavar="TIME", help="between reports; default 1s")
    add("--without-statistics", type=ratio, default=0.0, metavar="RATIO", help="VMs that never report")
    add("--cache-share", type=ratio, default=0.3, metavar="RATIO", help="page cache of nominal; default 30%%")
    add("--hot-share", type=ratio, default=0.1, metavar="RATIO", help="of it working set; default 10%%")
    add("--jobs", type=count, default=os.cpu_count() or 1, metavar="N", help="processes; default all CPUs")
    add("--json", type=Path, metavar="FILE", help="write the rows")
    add("--plot", type=Path, metavar="FILE", help="draw the first policy's first draw, and all rows")


def run(args: argparse.Namespace) -> int:
    """Simulate and show. Raises UsageError, BadDataError, UnavailableError."""
    from vmpack.replay.contest import Contest, Match, matches
    from vmpack.replay.policies import named
    from vmpack.replay.scores import rows

    if args.plot is not None:
        from vmpack.replay.plot import check_kind, plot

        check_kind(args.plot)
    world = _world(args)
    names = list(named(args.policies))
    contest = Contest(trace_of(args, 4 * args.vms), world, args.vms, args.seed)
    wanted = matches(names, args.overcommit, args.demand_scale, args.draws)
    with progress(len(wanted)) as advance:
        result = rows(contest.play_all(wanted, args.jobs, advance))
    if args.json is not None:
        write_text(args.json, json.dumps(result, indent=2) + "\n")
    if args.json != Path("-"):
        _show(contest, result)
    if args.plot is not None:
        shown: Match = wanted[0]
        title = f"{shown.policy}, {shown.overcommit:g}x overcommitted, demand x{shown.demand_scale:g}, draw 0"
        plot(args.plot, title, contest.play(shown)[1], result)
    return 0


def _world(args: argparse.Namespace) -> World:
    from vmpack.replay.trace import DAY_S
    from vmpack.replay.world import World

    for option in ("without_statistics", "cache_share", "hot_share"):
        if not 0 <= getattr(args, option) <= 1:
            raise UsageError(f"--{option.replace('_', '-')} is a share", "write for example 0.1 or 10%")
    if not 1 <= args.step <= 300 or DAY_S % args.step:
        raise UsageError("--step must divide a day and be from 1s to 300s", "10s is what is usual")
    return World(
        step_s=args.step,
        ramp_s=args.ramp,
        cache_ratio=args.cache_share,
        hot_ratio=args.hot_share,
        report_period_s=args.report_period,
        delay_s=args.delay,
        silent_ratio=args.without_statistics,
    )


def _show(contest: Contest, result: Sequence[Row]) -> None:
    from rich.table import Table

    from vmpack.cli.screen import console

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("policy", no_wrap=True)
    titles = (
        "over-\ncommit", "demand", "balloon", "short\nGB.h/day", "worst\nGB.h/day", "short\nVM-min/day",
        "host over\nmin/day", "ops\n/VM.h", "cache\nloss", "cache\nspeed", "infeasible\ndraws",
    )  # fmt: skip
    for title in titles:
        table.add_column(title, justify="right")
    for row in result:
        worst = row["short_gbh_worst"]
        table.add_row(
            " ".join(filter(None, (row["policy"], row["stance"]))),
            f"{row['overcommit']:g}x",
            f"x{row['demand_scale']:g}",
            f"{100 * row['balloon_ratio_median']:.1f} %",
            f"{row['short_gbh_median']:.3f}",
            "-" if worst is None else f"{worst:.3f}",
            f"{row['short_vm_min_median']:.1f}",
            f"{row['host_over_min_worst']:.1f}",
            f"{row['ops_per_vm_h_median']:.1f}",
            f"{100 * row['cache_loss_ratio']:.1f} %",
            f"{100 * row['cache_throughput_ratio']:.1f} %",
            f"{row['infeasible_draws']} of {row['draws']}",
        )
    console().print(table)
    trace, vms = contest.trace, min(contest.vms, len(contest.trace.names))
    left = f", {trace.left_out} more left out for their gaps" if trace.left_out else ""
    print(f"{vms} VMs a draw, of {len(trace.names)} over {trace.days} days{left}; seed {contest.seed}.")
