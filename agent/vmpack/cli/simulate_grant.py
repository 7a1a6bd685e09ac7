"""`vmpack simulate grant`: how much a host can offer new VMs, and how often that is too much."""

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
    check_can_write,
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
    from vmpack.replay.grant_contest import GrantContest

DESCRIPTION = """\
How many more VMs could my hosts take, and can the offer be trusted? Each draw fills a host with VMs of the
trace, by what they were promised. A day is there to learn from; on the next, the trace's other VMs come one
by one, and stay where what they were promised fits into what the host offers. Where it gets too tight, VMs
that came leave again, one reaction time after that was seen."""

EPILOG = """\
examples:
  vmpack simulate grant --generate mixed
  vmpack simulate grant --trace /var/lib/vmpack/history.db --bounds 1%
  vmpack simulate grant --trace vms.csv.gz --policies all --demand-scale 1,2,4 --draws 8 --json rows.json

policies: vmpack (once for each of --bounds: offer.bound_ratio), fixed:O (CloudVAMP's rule: the share O of
what is not used, 0.6, 0.8 or 1), oracle (knows what will be needed within the reaction time, and no further;
greedy, so that others may come to more VM-hours: it is no bound from above), and those in
tests/benchmarks/grant_rivals where Python finds the package tests (in a checkout: PYTHONPATH=. vmpack ...).
Only vmpack and oracle send VMs away before the host is full; the others have no rule for that, and theirs
leave once it is.
--sweep adds rivals with other settings, and compares vmpack with each at an equal shortage.
Balloons are taken as ideal: short is what VMs need in all beyond the host's memory less its reserve (5 %).
Traces are those of vmpack simulate memory; after the trace's last VM the first comes again, with another day.

columns, per host and day: VM-hours and GB-hours (10^9 bytes of nominal) of VMs that came: VM-hours favour who
offers little at a time, for small VMs are all that fit; short: GB-hours; moves: VMs that had to leave;
chance: of the moments at which something was offered, the share at which, had all of it been taken, need
within the reaction time would have passed what was left (- where nothing ever was offered); at most: its
upper 95 % limit (bootstrap over draws, and over hours within a draw).

--json FILE: a list of rows {policy, demand_scale, bound, draws, vm_hours_extra, gb_hours_extra, short_gbh,
migrations, observed_shortage_probability, observed_upper_95}, the last two null where nothing was offered;
for vmpack also {over_oracle, best_rival, over_best_rival}: VM-hours over others'; - is standard output,
without the table."""


def add_parser(subparsers: Any) -> None:
    """Add the part to the tree."""
    parser = subparsers.add_parser(
        "grant",
        help="what hosts can offer new VMs",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_source(parser)
    add = parser.add_argument
    add(
        "--policies",
        type=words,
        default=["vmpack", "oracle"],
        metavar="A,B|all",
        help="default vmpack,oracle",
    )
    add("--bounds", type=_bounds, default=[0.05, 0.01, 0.001], metavar="X,Y", help="default 5%%,1%%,0.1%%")
    add("--sweep", action="store_true", help="rivals with other settings too")
    add("--demand-scale", type=factors, default=[1.0], metavar="X,Y", help="use, times this; default 1")
    add("--vms", type=count, default=24, metavar="N", help="VMs that fill the host; default 24")
    add("--every", type=duration_s, default=300.0, metavar="TIME", help="a VM would come; default 5m")
    add("--reaction", type=duration_s, default=60.0, metavar="TIME", help="until a VM has left; default 60s")
    add("--draws", type=count, default=8, metavar="N", help="default 8")
    add("--days", type=count, default=8, metavar="N", help="days to generate; default 8")
    add("--seed", type=seed, default=1, metavar="N", help="same seed, same draws; default 1")
    add("--step", type=duration_s, default=10.0, metavar="TIME", help="between decisions; default 10s")
    add("--jobs", type=count, default=os.cpu_count() or 1, metavar="N", help="processes; default all CPUs")
    add("--json", type=Path, metavar="FILE", help="write the rows")


def run(args: argparse.Namespace) -> int:
    """Simulate and show. Raises UsageError, BadDataError, UnavailableError."""
    from vmpack.replay.grant_contest import GrantContest
    from vmpack.replay.grant_policies import named_grants
    from vmpack.replay.trace import DAY_S
    from vmpack.replay.world import World

    if not 1 <= args.step <= 300 or DAY_S % args.step:
        raise UsageError("--step must divide a day and be from 1s to 300s", "10s is what is usual")
    if not args.step <= args.reaction <= 3600:
        raise UsageError(
            "--reaction must be from one step to an hour", "about what a migration takes, as 60s"
        )
    if not args.step <= args.every <= DAY_S:
        raise UsageError("--every must be from one step to a day", "5m is the default")
    check_can_write(args.json)
    policies = named_grants(args.policies, args.bounds, args.sweep)
    contest = GrantContest(
        trace_of(args, 10 * args.vms),
        World(step_s=args.step),
        args.vms,
        args.seed,
        args.every,
        args.reaction,
        policies,
    )
    with progress(len(policies) * len(args.demand_scale) * args.draws) as advance:
        rows = contest.rows(args.demand_scale, args.draws, args.jobs, advance)
    if args.json != Path("-"):
        _show(contest, rows)
    if args.json is not None:
        write_text(args.json, json.dumps(rows, indent=2) + "\n")
    return 0


def _show(contest: GrantContest, rows: Sequence[dict[str, Any]]) -> None:
    from rich.table import Table

    from vmpack.cli.screen import console

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("policy", no_wrap=True)
    titles = (
        "demand", "VM-hours\n/day", "GB-hours\n/day", "short\nGB.h/day", "moves\n/day", "chance", "at most",
        "over\noracle", "over best rival\nat equal short",
    )  # fmt: skip
    for title in titles:
        table.add_column(title, justify="right")
    for row in rows:
        table.add_row(
            _name(row),
            f"x{row['demand_scale']:g}",
            f"{row['vm_hours_extra']:.0f}",
            f"{row['gb_hours_extra']:.0f}",
            f"{row['short_gbh']:.3f}",
            f"{row['migrations']:.1f}",
            _percent(row["observed_shortage_probability"]),
            _percent(row["observed_upper_95"]),
            _times(row.get("over_oracle")),
            f"{_times(row.get('over_best_rival'))} {row.get('best_rival') or ''}".strip(),
        )
    console().print(table)
    trace, vms = contest.trace, min(contest.vms, len(contest.trace.names))
    print(f"{vms} VMs on a host, of {len(trace.names)} over {trace.days} days; seed {contest.seed}.")


def _name(row: dict[str, Any]) -> str:
    return str(row["policy"]) if row["bound"] is None else f"vmpack, bound {100 * row['bound']:g} %"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.3f} %"


def _times(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}x"


def _bounds(text: str) -> list[float]:
    bounds = [ratio(word) for word in text.split(",")]
    if not all(0.0001 <= bound <= 0.5 for bound in bounds):
        raise argparse.ArgumentTypeError(f"{text!r}: chances from 0.01% to 50% with commas between, as 5%,1%")
    return bounds
