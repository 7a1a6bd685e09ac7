"""How the demo shows itself: live bars on a terminal, plain lines when piped."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from vmpack.cli import bars
from vmpack.cli.action_text import outcome_line
from vmpack.cli.screen import PIPED_COLUMNS, ascii_only
from vmpack.model.action import SetMemory
from vmpack.model.interval import Interval
from vmpack.units import format_bytes

MOVES_SHOWN = 6
NAME_CELLS = 10


class View:
    """Context manager: tells steps and shows intervals on `stream`."""

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(
            file=stream,
            width=None if stream.isatty() else PIPED_COLUMNS,
            markup=False,
            highlight=False,
            emoji=False,
        )
        self._live = (
            Live(console=self._console, auto_refresh=False, transient=True) if stream.isatty() else None
        )
        self._moves: list[str] = []
        self._began_s = time.monotonic()

    def __enter__(self) -> View:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def tell(self, line: str) -> None:
        """A step of the story, at once."""
        self._console.print(Text(line, style="" if line.startswith(" ") else "bold"), soft_wrap=True)

    def show(self, interval: Interval) -> None:
        """One interval: bars on a terminal; else a line, and a line a move."""
        moves = [
            outcome_line(outcome) for outcome in interval.outcomes if isinstance(outcome.action, SetMemory)
        ]
        if self._live is None:
            held = sum(guest.balloon_bytes for guest in interval.snapshot.guests)
            budget = format_bytes(interval.plan.budget.budget_bytes)
            packed = format_bytes(interval.plan.offer.packed_bytes)
            passed_s = time.monotonic() - self._began_s
            self._console.print(
                f"    {passed_s:5.1f} s  VMs hold {format_bytes(held)} of {budget}, packed {packed}",
                soft_wrap=True,
            )
            for move in moves:
                self._console.print(f"             {move}", soft_wrap=True)
            return
        self._moves = [*self._moves, *moves][-MOVES_SHOWN:]
        self._live.update(self._frame(interval), refresh=True)

    def _frame(self, interval: Interval) -> Group:
        plain, width = ascii_only(self._console), self._console.width
        plans = bars.plans_by_uuid(interval)
        bar_cells = max(10, width - NAME_CELLS - 24)
        rows = [bars.host_bar(interval, width, ascii_only=plain)]
        rows += [bars.host_legend(interval, ascii_only=plain), Text()]
        for guest in bars.by_name(interval):
            row = Text(f"{guest.name:<{NAME_CELLS}}", no_wrap=True)
            row.append_text(bars.guest_bar(guest, plans.get(guest.uuid), bar_cells, ascii_only=plain))
            row.append(f" {format_bytes(guest.balloon_bytes):>8} ")
            rows.append(row.append_text(bars.verdict(plans.get(guest.uuid), ascii_only=plain)))
        rows += [
            bars.guest_legend(ascii_only=plain),
            Text(),
            *(Text(move, style="dim") for move in self._moves),
        ]
        return Group(*rows)


def stream_beside(json_path: str | None) -> TextIO:
    """Where the story goes: standard error when the JSON takes standard output."""
    return sys.stderr if json_path in ("-", "/dev/stdout", "/dev/fd/1") else sys.stdout
