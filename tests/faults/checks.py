"""What must hold whatever struck an agent: each check yields the promises that were broken."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

from vmpack.cli.main import main
from vmpack.errors import BadDataError
from vmpack.host.state import RememberedFile
from vmpack.model.codec import loads
from vmpack.publish.journal import JournalLine
from vmpack.replay.segments import Damage, read_segments
from vmpack.units import MIB

SETTLED_INTERVALS = 3
"""From the strike on, what was disturbed must be right again after so many."""
DRIFT_BYTES = 8 * MIB
"""How far the QEMUs' own use moves while a test runs: the budget moves with it."""

_PROBE_FILE = re.compile(r"# vmpack \d+ \d+ (?P<length>\d+)\n(?P<body>.*)\n", re.DOTALL)


def files_that_readers_trust(folder: Path) -> Iterator[str]:
    """Probe texts and what is remembered are whole or not there; the journal loses at most its last line."""
    for path in sorted((folder / "run" / "probe").glob("[!.]*")):
        text = path.read_text()
        whole = _PROBE_FILE.fullmatch(text)
        if whole is None or len(whole["body"]) != int(whole["length"]):
            yield f"{path.name} is half written: {text!r}"
    for path in (folder / "state").glob("remembered.json"):
        try:
            loads(RememberedFile, path.read_bytes())
        except BadDataError as error:
            yield f"remembered.json is broken: {error}"
    if list((folder / "state" / "journal").glob("*.jsonl.gz")):
        for record in read_segments(folder / "state" / "journal"):
            if isinstance(record, Damage) and not record.cut_off:
                yield f"the journal is damaged: {record}"


def leftovers(folder: Path, textfile_dir: Path | None = None) -> Iterator[str]:
    """After a stop there are no temporary files, no socket, no probe texts of an agent that is gone."""
    for name in ("run", "state", "textfile"):
        for path in sorted((folder / name).rglob("*")):
            if path.is_file() and path.name.startswith("."):
                yield f"a temporary file was left: {path.relative_to(folder)}"
    for path in (folder / "run").rglob("*"):
        if not path.is_dir() and not path.name.startswith("."):
            yield f"the stopped agent left {path.relative_to(folder)}"


def replayed(folder: Path) -> Iterator[str]:
    """`vmpack replay` comes to the same decisions on what was recorded through the fault."""
    out = StringIO()
    with redirect_stdout(out), redirect_stderr(out):
        code = main(["replay", str(folder / "state" / "journal")])
    if code != 0:
        yield f"vmpack replay ended with {code}: {out.getvalue()}"


def intervals(folder: Path) -> list[JournalLine]:
    """All that is in the journal, oldest first."""
    records = read_segments(folder / "state" / "journal")
    return [record for record in records if isinstance(record, JournalLine)]


def needs_served(lines: list[JournalLine]) -> Iterator[str]:
    """No guest stays below its floor, or below its use plus headroom, for longer than two intervals."""
    below: dict[str, int] = {}
    for line in lines:
        sizes = {guest.uuid: guest.balloon_bytes for guest in line.snapshot.guests}
        for plan in line.plan.guests:
            short = sizes[plan.uuid] < max(plan.floor_bytes, plan.minimum_bytes)
            below[plan.name] = below.get(plan.name, 0) + 1 if short else 0
            if below[plan.name] > SETTLED_INTERVALS:
                yield f"{plan.name} was short {below[plan.name]} times in a row, up to interval {line.number}"


def room_kept(lines: list[JournalLine]) -> Iterator[str]:
    """Once things have settled the host is within its budget."""
    for line in lines[-2:]:
        if line.plan.room_bytes < -DRIFT_BYTES:
            yield f"room in interval {line.number}: {line.plan.room_bytes / MIB:.1f} MiB"


def budget_bytes(lines: list[JournalLine]) -> int:
    """The largest budget that any interval saw."""
    return max(line.plan.budget.budget_bytes for line in lines)
