"""One frame of `top`: a status and the last moves, cut to the terminal's size.

Pure; called by top.py for each refresh. Promises: never taller or wider than asked, whatever the number of
VMs; what did not fit is counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from vmpack.cli import bars
from vmpack.cli.moves import MoveLine
from vmpack.cli.safe_text import shown
from vmpack.cli.status import age_s, host_line, host_warnings, is_stale, state
from vmpack.model.guest import GuestSnapshot
from vmpack.model.interval import AgentStatus, Interval
from vmpack.model.plan import GuestPlan
from vmpack.units import format_bytes, format_seconds

AMOUNT_CELLS = 8
MOVES_SHARE = 4
"""A quarter of the screen at most is for moves."""

STATE_STYLES = {"active": "green", "observe": "cyan", "frozen": "bold yellow"}


@dataclass(frozen=True, slots=True)
class TimedMove:
    """One action and the wall-clock time (as text) of its interval."""

    clock: str
    move: MoveLine


@dataclass(frozen=True, slots=True)
class View:
    """The terminal, and where the reader has scrolled to."""

    columns: int
    rows: int
    first_row: int = 0
    """Of VMs, or of pCPUs."""
    ascii_only: bool = False
    interactive: bool = True
    """False leaves the keys out."""


def frame(
    status: AgentStatus, moves: Sequence[TimedMove], view: View, now_s: float, trouble: str = ""
) -> Text:
    """The whole screen. `trouble` is why the data could not be refreshed; it is shown with the old data."""
    head = [_title(status, now_s), *([Text(shown(trouble), "bold red")] if trouble else [])]
    if status.last_error:
        head.append(Text(f"the newest interval failed: {shown(status.last_error)}", "bold red"))
    interval = status.interval
    if interval is None:
        return fitted([*head, Text("no interval has gone through yet")], view)
    head += [
        bars.host_bar(interval, view.columns, ascii_only=view.ascii_only),
        bars.host_legend(interval, ascii_only=view.ascii_only),
        Text(host_line(interval)),
        *(Text(warning, "bold yellow") for warning in host_warnings(interval)),
        Text(),
    ]
    tail = [Text(), *_move_rows(moves, max(1, view.rows // MOVES_SHARE)), _keys(view)]
    guests = _guest_rows(interval, view, max(1, view.rows - len(head) - len(tail) - 1))
    return fitted([*head, _heading(view), *guests, *tail], view)


def _title(status: AgentStatus, now_s: float) -> Text:
    word = state(status)
    title = Text.assemble(("vmpack ", "bold"), (word, STATE_STYLES[word]), f"  {shown(status.uri)}")
    age = age_s(status, now_s)
    if age is not None:
        title.append(f"  {format_seconds(age)} ago", style="bold red" if is_stale(status, now_s) else "dim")
    return title


def _heading(view: View) -> Text:
    names = ("used", "balloon", "nominal")
    amounts = "".join(f" {name:>{AMOUNT_CELLS}}" for name in names)
    return Text(f"{'VM':<{bars.NAME_CELLS}} {'':<{_bar_cells(view)}}{amounts} verdict", "bold")


def _bar_cells(view: View) -> int:
    return max(4, view.columns - bars.NAME_CELLS - 1 - 3 * (AMOUNT_CELLS + 1) - 9)


def _guest_rows(interval: Interval, view: View, rows: int) -> list[Text]:
    plans, guests = bars.plans_by_uuid(interval), bars.by_name(interval)
    if not guests:
        return [Text("no VM runs on this host", "dim")]
    if len(guests) <= rows:
        return [_guest_row(guest, plans.get(guest.uuid), view) for guest in guests]
    room = max(1, rows - 1)
    first = min(max(0, view.first_row), len(guests) - room)
    chosen = [_guest_row(guest, plans.get(guest.uuid), view) for guest in guests[first : first + room]]
    more = f"{len(guests) - first - room} more" + (f", {first} above" if first else "")
    return [*chosen, Text(more, "dim")]


def _guest_row(guest: GuestSnapshot, plan: GuestPlan | None, view: View) -> Text:
    name = Text(shown(guest.name) or "(no name)")
    name.truncate(bars.NAME_CELLS, overflow="ellipsis", pad=True)
    used = plan.used_bytes if plan is not None else None
    amounts = ["?" if used is None else format_bytes(used)]
    amounts += [format_bytes(guest.balloon_bytes), format_bytes(guest.nominal_bytes)]
    row = Text.assemble(name, " ", bars.guest_bar(guest, plan, _bar_cells(view), ascii_only=view.ascii_only))
    row.append("".join(f" {amount:>{AMOUNT_CELLS}}" for amount in amounts))
    return row.append(" ").append_text(bars.verdict(plan, ascii_only=view.ascii_only))


def _move_rows(moves: Sequence[TimedMove], limit: int) -> list[Text]:
    if not moves:
        return [Text("nothing moved yet", "dim")]
    return [Text(f"{timed.clock} {timed.move}") for timed in list(moves)[-limit:]]


def _keys(view: View) -> Text:
    legend = bars.guest_legend(ascii_only=view.ascii_only)
    return legend.append("  c pCPUs, q quits, arrows scroll", style="dim") if view.interactive else legend


def fitted(lines: Sequence[Text], view: View) -> Text:
    """The lines as one text, cut to the terminal's size."""
    for line in lines:
        line.truncate(view.columns, overflow="crop" if view.ascii_only else "ellipsis")
    return Text("\n", no_wrap=True).join(lines[: view.rows])
