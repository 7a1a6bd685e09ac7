"""`vmpack top`: the host and its VMs, live on a terminal, as plain lines in a pipe."""

from __future__ import annotations

import argparse
import os
import select
import signal
import sys
import termios
import time
import tty
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from vmpack.cli import agent_access
from vmpack.cli.moves import move_lines
from vmpack.cli.status import host_line, state
from vmpack.errors import UnavailableError, UsageError
from vmpack.model.interval import AgentStatus
from vmpack.units import parse_seconds

if TYPE_CHECKING:
    from rich.console import Console

    from vmpack.cli.top_frame import TimedMove
    from vmpack.host.client import AgentClient

SHORTEST_S = 0.2
REMEMBERED_MOVES = 200
UNLIMITED_ROWS = 1_000_000
END_OF_INPUT = "\x04"

DESCRIPTION = """\
Watch this host: where its memory goes, a bar for every VM (used, given, packed), and the last
moves with their reasons. Asks the running agent; changes nothing."""

EPILOG = """\
examples:
  vmpack top                  live; q or Ctrl-C ends it, arrows and page keys scroll
  vmpack top --once           one screen, then the prompt again
  vmpack top --plain          a line an interval and a line a move, good for logs (also when piped)"""


def add_parser(subparsers: Any) -> None:
    """Add the command to the tree."""
    parser = subparsers.add_parser(
        "top", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--interval", default="1s", metavar="S", help="time between refreshes (default: 1s)")
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
    watch = Watch(agent_access.client(args))
    watch.refresh()
    screen = console()
    if args.once:
        _once(screen, watch)
    elif args.plain or not sys.stdout.isatty():
        _plain(watch, interval_s)
    else:
        _live(screen, watch, interval_s)
    return 0


class Watch:
    """The newest status, the moves seen so far, and why the last refresh failed."""

    def __init__(self, client: AgentClient) -> None:
        self._client = client
        self.status: AgentStatus | None = None
        self.moves: deque[TimedMove] = deque(maxlen=REMEMBERED_MOVES)
        self.new_moves: list[TimedMove] = []
        """Those of the last refresh alone."""
        self.trouble = ""

    def refresh(self) -> bool:
        """Ask the agent; True when there is a new interval. Raises UnavailableError the first time only."""
        from vmpack.cli.top_frame import TimedMove

        self.new_moves = []
        before = self.status
        try:
            self.status = self._client.status()
        except UnavailableError as error:
            if before is None:
                raise
            self.trouble = f"{error.message}; what is shown is old"
            return False
        self.trouble = ""
        newest = self.status.interval
        if newest is None or (before is not None and before.interval == newest):
            return False
        clock = time.strftime("%H:%M:%S", time.localtime(newest.snapshot.wall_s))
        self.new_moves = [TimedMove(clock, line) for line in move_lines(newest)]
        self.moves.extend(self.new_moves)
        return True


def _once(screen: Console, watch: Watch) -> None:
    from vmpack.cli.bars import WIDE_COLUMNS
    from vmpack.cli.screen import ascii_only
    from vmpack.cli.top_frame import View, frame

    assert watch.status is not None
    columns = min(screen.width, WIDE_COLUMNS)
    view = View(columns, rows=UNLIMITED_ROWS, ascii_only=ascii_only(screen), interactive=False)
    screen.print(frame(watch.status, watch.moves, view, time.time()))


def _plain(watch: Watch, interval_s: float) -> None:
    fresh, told = True, ""
    while True:
        if watch.trouble != told:
            told = watch.trouble
            print(told or "the agent answers again", flush=True)
        if fresh:
            for line in plain_lines(watch):
                print(line, flush=True)
        time.sleep(interval_s)
        fresh = watch.refresh()


def plain_lines(watch: Watch) -> list[str]:
    """The newest interval as lines: the host, then each move."""
    status = watch.status
    if status is None or status.interval is None:
        return ["no interval has gone through yet"]
    clock = time.strftime("%H:%M:%S", time.localtime(status.interval.snapshot.wall_s))
    host = (
        f"{clock} {state(status)}: {len(status.interval.snapshot.guests)} VMs, {host_line(status.interval)}"
    )
    return [host, *(f"{timed.clock} {timed.move}" for timed in watch.new_moves)]


def _live(screen: Console, watch: Watch, interval_s: float) -> None:
    from rich.live import Live

    from vmpack.cli.screen import ascii_only
    from vmpack.cli.top_frame import View, frame

    first, plain = 0, ascii_only(screen)
    drawing = Live(console=screen, screen=True, auto_refresh=False)
    with _terminated_cleanly(), _keys() as keyboard, drawing as live:
        due_s = time.monotonic() + interval_s
        while True:
            assert watch.status is not None
            interval = watch.status.interval
            last = max(0, len(interval.snapshot.guests) - 1) if interval else 0
            first = min(max(0, first), last)
            view = View(screen.width, screen.height, first, plain)
            live.update(frame(watch.status, watch.moves, view, time.time(), watch.trouble), refresh=True)
            key = _key(keyboard, due_s - time.monotonic())
            if key in ("q", "Q", END_OF_INPUT):
                return
            first += _SCROLL.get(key, 0) if key not in _PAGES else _PAGES[key] * max(1, screen.height // 2)
            if time.monotonic() >= due_s:
                watch.refresh()
                due_s = time.monotonic() + interval_s


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
