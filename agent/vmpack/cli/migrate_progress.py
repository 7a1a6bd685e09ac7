"""How a migration goes, on a terminal as one line that moves, elsewhere as a line now and then."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from vmpack.cli.safe_text import shown
from vmpack.model.migration import Migrate, MigrationProgress
from vmpack.units import format_bytes, format_ratio, format_seconds

PLAIN_EVERY_S = 5.0


class View(Protocol):
    """Where progress is shown."""

    def show(self, progress: MigrationProgress) -> None:
        """Show it; never raises, for the migration must not be left alone."""
        ...


@contextmanager
def progress_view(action: Migrate) -> Iterator[View]:
    """The view that fits standard output."""
    if not sys.stdout.isatty():
        yield PlainView(action.name)
        return
    from rich.live import Live

    from vmpack.cli.screen import console

    with Live(console=console(), auto_refresh=False, transient=True) as live:
        yield _LiveView(action.name, live)


def progress_line(name: str, progress: MigrationProgress) -> str:
    """How far it is, in one line."""
    moved_ratio = 1 - progress.remaining_bytes / progress.total_bytes if progress.total_bytes else 0.0
    parts = [
        f"{shown(name)}: {format_ratio(moved_ratio)}",
        f"{format_bytes(progress.remaining_bytes)} of {format_bytes(progress.total_bytes)} left",
        f"pass {progress.iteration}",
        f"{format_bytes(progress.moved_bytes)} sent",
    ]
    if progress.dirty_bytes_per_s:
        parts.append(f"guest changes {format_bytes(progress.dirty_bytes_per_s)}/s")
    if progress.throttle_ratio:
        parts.append(f"held up {format_ratio(progress.throttle_ratio)} of its time")
    parts.append(format_seconds(progress.elapsed_s))
    return ", ".join(parts)


class PlainView:
    """Lines for a log or a pipe."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._next_s = 0.0

    def show(self, progress: MigrationProgress) -> None:
        """See View."""
        if progress.elapsed_s < self._next_s:
            return
        self._next_s = progress.elapsed_s + PLAIN_EVERY_S
        # A reader who went away is told of at the end.
        with suppress(BrokenPipeError):
            print(progress_line(self._name, progress), flush=True)


class _LiveView:
    def __init__(self, name: str, live: object) -> None:
        self._name = name
        self._live = live

    def show(self, progress: MigrationProgress) -> None:
        from rich.text import Text

        with suppress(OSError):  # the terminal may be gone
            self._live.update(  # type: ignore[attr-defined]
                Text(progress_line(self._name, progress), no_wrap=True, overflow="ellipsis"), refresh=True
            )
