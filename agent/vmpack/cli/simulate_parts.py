"""What the parts of `vmpack simulate` share: where a trace comes from, options, progress, writing rows."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vmpack.errors import UsageError
from vmpack.publish.atomic import disk_error

if TYPE_CHECKING:
    from vmpack.replay.trace import Trace


def add_source(parser: argparse.ArgumentParser) -> None:
    """Add --trace and --generate, one of which is needed."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--trace", type=Path, metavar="FILE", help="recorded use of memory")
    source.add_argument(
        "--generate", metavar="KIND", help="a made-up one: diurnal, bursts, leaks, batch, peaks, mixed"
    )


def trace_of(args: argparse.Namespace, made_vms: int) -> Trace:
    """The trace that is asked for, a generated one with `made_vms` VMs.

    Raises UsageError, BadDataError, UnavailableError.
    """
    from vmpack.replay.trace import DAY_S

    if args.generate is not None:
        from vmpack.replay.workload import SLOT_S, generate

        _limit(
            args.days * DAY_S // SLOT_S,
            made_vms,
            "give smaller --vms (drawn from several times as many) or --days",
        )
        _limit_draw(args, args.vms)
        return generate(args.generate, made_vms, args.days, args.seed)
    from vmpack.replay.trace_file import read_trace

    trace = read_trace(args.trace)
    _limit_draw(args, min(args.vms, len(trace.names)))
    return trace


def _limit_draw(args: argparse.Namespace, vms: int) -> None:
    from vmpack.replay.draw import SCORED_S, WARM_UP_S

    _limit(round((WARM_UP_S + SCORED_S) / args.step), vms, "give smaller --vms, or a longer --step")


def _limit(moments: int, vms: int, hint: str) -> None:
    """Raises UsageError before more is simulated than fits into a common machine."""
    from vmpack.replay.trace import MOST_CELLS

    if moments * vms > MOST_CELLS:
        raise UsageError(f"{vms} VMs at {moments} moments are more than can be simulated", hint)


@contextmanager
def progress(total: int) -> Iterator[Callable[[], None]]:
    """A bar on standard error, where that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("simulating"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # Drawn by hand: a thread of its own would be in the way of the processes that are started meanwhile.
    with Progress(*columns, console=Console(stderr=True), transient=True, auto_refresh=False) as bar:
        task = bar.add_task("", total=total)
        bar.refresh()

        def advance() -> None:
            bar.advance(task)
            bar.refresh()

        yield advance


def check_can_write(path: Path | None) -> None:
    """Tell what would be lost after hours. Raises AccessError or UnavailableError."""
    if path is None or path == Path("-"):
        return
    try:
        path.parent.stat()
        code = errno.EISDIR if path.is_dir() else 0
        if not code and not os.access(path if path.exists() else path.parent, os.W_OK):
            code = errno.EACCES
    except OSError as error:
        raise disk_error("write", path, error) from error
    if code:
        raise disk_error("write", path, OSError(code, os.strerror(code)))


def write_text(path: Path, text: str) -> None:
    """To the file, or standard output for -. Raises AccessError or UnavailableError."""
    if path == Path("-"):
        sys.stdout.write(text)
        return
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise disk_error("write", path, error) from error


def words(text: str) -> list[str]:
    """Names with commas between."""
    found = [word.strip() for word in text.split(",") if word.strip()]
    if not found:
        raise argparse.ArgumentTypeError("names are wanted, with commas between")
    return found


def factors(text: str) -> list[float]:
    """Numbers with commas between."""
    try:
        numbers = [float(word) for word in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or not all(0.01 <= number <= 100 for number in numbers):
        raise argparse.ArgumentTypeError(f"{text!r}: numbers from 0.01 to 100 with commas between, as 2,2.5")
    return numbers


def count(text: str) -> int:
    """A whole number from 1."""
    if not text.isdecimal() or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def seed(text: str) -> int:
    """A whole number from 0."""
    if not text.isdecimal() or len(text) > 18:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0")
    return int(text)
