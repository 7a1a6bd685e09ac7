"""`vmpack top`: the host's memory or its pCPUs, live on a terminal, as plain lines in a pipe."""

from __future__ import annotations

import argparse
import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from vmpack.cli import agent_access
from vmpack.cli.watch import CpuWatch, MemoryWatch, Watch
from vmpack.errors import UsageError, VmpackError
from vmpack.units import parse_seconds

if TYPE_CHECKING:
    from rich.console import Console

SHORTEST_S = 0.2
UNLIMITED_ROWS = 1_000_000
END_OF_INPUT = "\x04"

DESCRIPTION = """\
Watch this host: where its memory goes, a bar for every VM (used, given, packed), and the last
moves with their reasons. A second page has the pCPUs: how loaded each is, the vCPUs on it and
whose pins they have. Asks the running agent; changes nothing."""

EPILOG = """\
examples:
  vmpack top                  live; q or Ctrl-C ends it, arrows and page keys scroll, c goes to the pCPUs
  vmpack top --cpus           begins there; also with --once and --plain
  vmpack top --once           one screen, then the prompt again
  vmpack top --plain          a line an interval and a line a move, good for logs (also when piped)"""


def add_parser(subparsers: Any) -> None:
    """Add the command to the tree."""
    parser = subparsers.add_parser(
        "top", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--interval", default="1s", metavar="S", help="time between refreshes (default: 1s)")
    parser.add_argument("--cpus", action="store_true", help="show the pCPUs and the vCPUs on them")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--once", action="store_true", help="print one screen and end")
    form.add_argument("--plain", action="store_true", help="print lines instead of drawing")
    agent_access.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Show until the reader quits. Raises UnavailableError when no agent answers the first time."""
    from vmpack.cli.screen import console

    try:
        interval_s = parse_seconds(args.interval)
    except ValueError as error:
        raise UsageError(f"--interval: {error}") from error
    if interval_s < SHORTEST_S:
        raise UsageError(f"--interval: {args.interval} is too short", f"use {SHORTEST_S} s or more")
    client = agent_access.client(args)
    memory, cpus = MemoryWatch(client), CpuWatch(client)
    watch, other = (cpus, memory) if args.cpus else (memory, cpus)
    watch.refresh()
    screen = console()
    if args.once:
        _once(screen, watch)
    elif args.plain or not sys.stdout.isatty():
        _plain(watch, interval_s)
    else:
        _live(screen, watch, other, interval_s)
    return 0


def _once(screen: Console, watch: Watch[Any]) -> None:
    from vmpack.cli.bars import WIDE_COLUMNS
    from vmpack.cli.screen import ascii_only
    from vmpack.cli.top_frame import View

    columns = min(screen.width, WIDE_COLUMNS)
    view = View(columns, rows=UNLIMITED_ROWS, ascii_only=ascii_only(screen), interactive=False)
    screen.print(watch.frame(view, time.time()))


def _plain(watch: Watch[Any], interval_s: float) -> None:
    fresh, told = True, ""
    while True:
        if watch.trouble != told:
            told = watch.trouble
            print(told or "the agent answers again", flush=True)
        if fresh:
            for line in watch.lines():
                print(line, flush=True)
        time.sleep(interval_s)
        fresh = watch.refresh()


def _live(screen: Console, watch: Watch[Any], other: Watch[Any], interval_s: float) -> None:
    from rich.live import Live

    from vmpack.cli.screen import ascii_only
    from vmpack.cli.top_frame import View

    first, plain = 0, ascii_only(screen)
    drawing = Live(console=screen, screen=True, auto_refresh=False)
    with _terminated_cleanly(), _keys() as keyboard, drawing as live:
        due_s = time.monotonic() + interval_s
        while True:
            first = min(max(0, first), max(0, watch.rows - 1))
            view = View(screen.width, screen.height, first, plain)
            live.update(watch.frame(view, time.time()), refresh=True)
            key = _key(keyboard, due_s - time.monotonic())
            if key in ("q", "Q", END_OF_INPUT):
                return
            first += _SCROLL.get(key, 0) if key not in _PAGES else _PAGES[key] * max(1, screen.height // 2)
            if key in ("c", "C", "\t"):
                watch, other, first = other, watch, 0
            elif time.monotonic() < due_s:
                continue
            _refresh(watch)
            due_s = time.monotonic() + interval_s


def _refresh(watch: Watch[Any]) -> None:
    """A page that never had an answer says why; the other one can still be turned to."""
    try:
        watch.refresh()
    except VmpackError as error:
        watch.trouble = error.message


_SCROLL = {"\x1b[A": -1, "k": -1, "\x1b[B": 1, "j": 1, "\x1b[H": -(10**6), "\x1b[F": 10**6}
_PAGES = {"\x1b[5~": -1, "\x1b[6~": 1, " ": 1}


@contextmanager
def _keys() -> Iterator[int | None]:
    """The keyboard without echo and without waiting for Enter, put back afterwards; None without one."""
    if not sys.stdin.isatty():
        yield None
        return
    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    tty.setcbreak(keyboard)
    try:
        yield keyboard
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)


def _key(keyboard: int | None, wait_s: float) -> str:
    """The next key press (an escape sequence is one), or nothing when none came in time."""
    if keyboard is None:
        time.sleep(max(0.0, wait_s))
        return ""
    ready, _, _ = select.select([keyboard], [], [], max(0.0, wait_s))
    return (os.read(keyboard, 16).decode(errors="replace") or END_OF_INPUT) if ready else ""


@contextmanager
def _terminated_cleanly() -> Iterator[None]:
    """SIGTERM leaves through the context managers, so that the terminal is as it was."""

    def leave(_number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
