"""`vmpack replay JOURNAL`: decide again what was recorded, and say whether it comes out the same."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from vmpack import __version__
from vmpack.cli.safe_text import shown
from vmpack.errors import BadDataError, UsageError
from vmpack.model import codec
from vmpack.publish.journal import JournalLine, VcpuLine
from vmpack.replay.replayer import ReplayReport, replay
from vmpack.replay.segments import Record, read_segments
from vmpack.units import format_bytes

_DESCRIPTION = """\
Run a recorded journal through the decisions again. Each interval's snapshot, settings and remembered
state give a plan; it must be, byte for byte, the one that was recorded.

JOURNAL is the journal directory in the agent's state directory, or one segment of it.

examples:
  vmpack replay /var/lib/vmpack/journal
  vmpack replay /var/lib/vmpack/journal/00000007.jsonl.gz --show 120
  vmpack replay journal/ --json | jq .first_difference

exit codes: 0 all identical, 1 something differs (or there is nothing to replay), 3 identical, but a part of
the journal is damaged and was left out. A last line that a crash cut off is only mentioned.

Turns of the vCPU loop in which something was planned are counted, and shown behind the interval that they
followed; they are not decided again.

--json prints one object: identical, segments, intervals, actions, vcpu_turns, pin_changes, different,
first_difference (null, or number, place, recorded, replayed), damages, versions, version (of this vmpack),
shown (the intervals asked for with --show and the turns of the vCPU loop behind them, as they stand in the
journal).
"""
_DIFFERENT = 1
_WARNED = 3


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "replay",
        help="run a recorded journal through the decisions again",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("journal", type=Path, metavar="JOURNAL", help="the journal directory, or one segment")
    parser.add_argument(
        "--show", type=int, metavar="N", help="show interval N: what was seen and decided, and why"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Replay and report; 0 identical, 1 different, 3 identical but damaged."""
    from vmpack.decide.memory import plan

    if not os.path.exists(args.journal):
        hint = "the agent keeps it in STATE_DIR/journal, for root /var/lib/vmpack/journal"
        raise UsageError(f"there is no journal {args.journal}", hint)
    chosen: list[JournalLine | VcpuLine] = []
    report = replay(_picking(read_segments(args.journal), args.show, chosen), plan)
    if args.show is not None and not chosen:
        raise UsageError(
            f"there is no interval {args.show} in {args.journal}", "see without --show how many there are"
        )
    if args.json:
        print(json.dumps(_as_json(report, chosen), indent=2))
    else:
        for line in chosen:
            _show(line) if isinstance(line, JournalLine) else _show_vcpus(line)
        _tell(report)
    if report.intervals == 0:
        raise BadDataError(
            f"no interval in {args.journal} could be replayed", "let the agent run for an interval"
        )
    if not report.identical:
        return _DIFFERENT
    return _WARNED if any(not damage.cut_off for damage in report.damages) else 0


def _picking(
    records: Iterable[Record], number: int | None, chosen: list[JournalLine | VcpuLine]
) -> Iterator[Record]:
    is_chosen = False
    for record in records:
        if isinstance(record, JournalLine):
            is_chosen = record.number == number
        if is_chosen and isinstance(record, JournalLine | VcpuLine):
            chosen.append(record)
        yield record


def _as_json(report: ReplayReport, chosen: list[JournalLine | VcpuLine]) -> dict[str, Any]:
    first = report.first_difference
    return {
        "identical": report.identical,
        "segments": report.segments,
        "intervals": report.intervals,
        "actions": report.actions,
        "vcpu_turns": report.vcpu_turns,
        "pin_changes": report.pin_changes,
        "different": report.different,
        "first_difference": first and dataclasses.asdict(first),
        "damages": [str(damage) for damage in report.damages],
        "versions": report.versions,
        "version": __version__,
        "shown": [codec.encode(line) for line in chosen],
    }


def _tell(report: ReplayReport) -> None:
    for damage in report.damages:
        print(f"warning: {shown(str(damage))}", file=sys.stderr)
    foreign = ", ".join(shown(version) for version in report.versions if version != __version__)
    if foreign:
        print(f"The journal was written by vmpack {foreign}; this is {__version__}.")
    segments = "1 segment" if report.segments == 1 else f"{report.segments} segments"
    print(f"Replayed {report.intervals} intervals with {report.actions} actions, from {segments}.")
    if report.vcpu_turns:
        print(
            f"Among them: {report.vcpu_turns} turns of the vCPU loop with {report.pin_changes} pin changes."
        )
    if report.identical:
        if report.intervals:
            print("Identical: every plan is byte for byte the recorded one.")
    else:
        print(f"DIFFERENT in {report.different} of them. The first: {shown(str(report.first_difference))}")


def _show(line: JournalLine) -> None:
    from vmpack.decide.explain import words

    plan = line.plan
    budget, packed, offered = (
        format_bytes(amount_bytes)
        for amount_bytes in (plan.budget.budget_bytes, plan.offer.packed_bytes, plan.offer.memory_bytes)
    )
    print(f"interval {line.number}: budget {budget}, packed {packed}, offered {offered}")
    balloons = {guest.uuid: format_bytes(guest.balloon_bytes) for guest in line.snapshot.guests}
    for guest in plan.guests:
        sizes = f"balloon {balloons.get(guest.uuid, 'not read')}, target {format_bytes(guest.target_bytes)}"
        print(f"  {shown(guest.name)}: {guest.verdict}, {sizes}")
        for reason in guest.reasons:
            print(f"    {shown(reason.rule)}: {shown(words(reason)[0])}")
    for outcome in line.outcomes:
        detail = f" ({shown(outcome.detail)})" if outcome.detail else ""
        print(f"  {shown(outcome.action.name)}: {outcome.action.kind} {outcome.status}{detail}")


def _show_vcpus(line: VcpuLine) -> None:
    from vmpack.cli.vcpu_text import turn_lines
    from vmpack.host.vcpu_loop import summary_line
    from vmpack.model.vcpu import VcpuInterval

    turn = VcpuInterval(line.number, line.snapshot, line.plan, line.outcomes)
    print(f"turn {line.number} of the vCPU loop: {summary_line(turn)}")
    for text in turn_lines(turn):
        print(f"  {text}")
