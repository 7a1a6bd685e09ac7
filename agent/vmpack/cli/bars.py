"""Bars and tables of one interval, for every screen that shows them: `status`, `top` and the demo.

Pure: an Interval in, rich renderables out; the caller owns the console. Promises: a bar is exactly as wide
as asked; what is not nothing has at least one cell where there is room; names are made safe and never
read as markup; without colours the characters alone tell the parts apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from vmpack.cli.safe_text import shown
from vmpack.model.guest import GuestSnapshot
from vmpack.model.interval import Interval
from vmpack.model.plan import GuestPlan
from vmpack.units import format_bytes

WIDE_COLUMNS = 110
"""From here on a table has room for long names."""

NAME_CELLS = 14


@dataclass(frozen=True, slots=True)
class Part:
    """One stretch of a bar."""

    label: str
    amount_bytes: int
    glyph: str
    ascii_glyph: str
    style: str


_VERDICTS = {
    "grow": ("▲ grow", "+ grow", "bold yellow"),
    "shrink": ("▼ shrink", "- shrink", "cyan"),
    "hold": ("· hold", ". hold", "dim"),
    "excluded": ("x alone", "x alone", "dim"),
}


def host_parts(interval: Interval) -> tuple[Part, ...]:
    """Where the host's memory goes, in the order of the bar; parts of nothing are left out."""
    budget = interval.plan.budget
    balloons = sum(guest.balloon_bytes for guest in interval.snapshot.guests)
    parts = (
        Part("host", budget.host_own_bytes, "█", "H", "blue"),
        Part("QEMU", budget.overhead_bytes, "▓", "O", "magenta"),
        Part("VMs", min(balloons, max(0, budget.budget_bytes)), "█", "#", "green"),
        Part("over budget", max(0, balloons - max(0, budget.budget_bytes)), "█", "!", "bold red"),
        Part("free", max(0, budget.budget_bytes - balloons), "░", ".", "bright_black"),
        Part("reserve", budget.reserve_bytes, "▒", "R", "yellow"),
    )
    return tuple(part for part in parts if part.amount_bytes > 0)


def host_bar(interval: Interval, width: int, *, ascii_only: bool = False) -> Text:
    """The host's memory in `width` cells: host, QEMU's overhead, VMs, free within the budget, reserve."""
    return _bar(host_parts(interval), width, ascii_only)


def host_legend(interval: Interval, *, ascii_only: bool = False) -> Text:
    """What the parts of the host's bar are, with amounts."""
    legend = Text()
    for part in host_parts(interval):
        legend.append(part.ascii_glyph if ascii_only else part.glyph, style=part.style)
        legend.append(f" {part.label} {format_bytes(part.amount_bytes)} ")
    legend.rstrip()
    return legend


def guest_bar(guest: GuestSnapshot, plan: GuestPlan | None, width: int, *, ascii_only: bool = False) -> Text:
    """One VM's nominal memory in `width` cells: used, the balloon's rest, packed; a mark at the target."""
    balloon = max(0, min(guest.balloon_bytes, guest.nominal_bytes))
    used = plan.used_bytes if plan is not None else None
    shown_used = max(0, min(used, balloon)) if used is not None else 0
    bar = _bar(
        (
            Part("used", shown_used, "█", "#", "green"),
            Part("given", balloon - shown_used, "▒", "=", "cyan" if used is not None else "bright_black"),
            Part("packed", max(0, guest.nominal_bytes - balloon), "·", ".", "bright_black"),
        ),
        width,
        ascii_only,
    )
    if plan is None or plan.verdict not in ("grow", "shrink") or guest.nominal_bytes <= 0 or width < 1:
        return bar
    cell = min(width - 1, max(0, plan.target_bytes * width // guest.nominal_bytes))
    mark = Text("|" if ascii_only else "│", style="bold yellow")
    return bar[:cell] + mark + bar[cell + 1 :]


def guest_legend(*, ascii_only: bool = False) -> Text:
    """What the parts of a VM's bar are."""
    legend = Text(style="dim")
    for glyph, ascii_glyph, label in (
        ("█", "#", "used"), ("▒", "=", "given, not used"), ("·", ".", "packed"), ("│", "|", "target"),
    ):  # fmt: skip
        legend.append(f"{ascii_glyph if ascii_only else glyph} {label}  ")
    legend.rstrip()
    return legend


def verdict(plan: GuestPlan | None, *, ascii_only: bool = False) -> Text:
    """What was decided for a VM: a sign and a word."""
    if plan is None:
        return Text("? no plan", style="red")
    sign, ascii_sign, style = _VERDICTS[plan.verdict]
    return Text(ascii_sign if ascii_only else sign, style=style)


def short_reason(plan: GuestPlan | None) -> str:
    """The deciding reason in a word or three, safe to print; `explain` has the sentence and the numbers."""
    if plan is None or not plan.reasons:
        return ""
    reason = plan.reasons[-1]
    return shown(reason.note if plan.verdict == "excluded" and reason.note else reason.rule).replace("_", " ")


def plans_by_uuid(interval: Interval) -> dict[str, GuestPlan]:
    """The plan of each VM."""
    return {plan.uuid: plan for plan in interval.plan.guests}


def by_name(interval: Interval) -> list[GuestSnapshot]:
    """The VMs in the order in which screens show them."""
    return sorted(interval.snapshot.guests, key=lambda guest: (guest.name, guest.uuid))


def table(
    interval: Interval, *, columns: int = WIDE_COLUMNS, limit: int | None = None, ascii_only: bool = False
) -> Table:
    """One row a VM, in the order of their names; `limit` rows and then how many more there are.

    Below WIDE_COLUMNS columns long names are cut, so that the numbers always have their room.
    """
    grid = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold", expand=False)
    wide = columns >= WIDE_COLUMNS
    grid.add_column("VM", no_wrap=True, max_width=None if wide else NAME_CELLS, overflow="ellipsis")
    for heading in ("nominal", "balloon", "used", "target", "packed"):
        grid.add_column(heading, no_wrap=True, justify="right", min_width=8)
    grid.add_column("verdict", no_wrap=True, min_width=8)
    grid.add_column("why", no_wrap=True, overflow="ellipsis")
    plans = plans_by_uuid(interval)
    guests = by_name(interval)
    for guest in guests[:limit]:
        grid.add_row(*_row(guest, plans.get(guest.uuid), ascii_only))
    if limit is not None and len(guests) > limit:
        grid.add_row(Text(f"{len(guests) - limit} more", style="dim"))
    return grid


def _row(guest: GuestSnapshot, plan: GuestPlan | None, ascii_only: bool) -> list[Text]:
    used = plan.used_bytes if plan is not None else None
    name = Text(shown(guest.name) or "(no name)")
    if guest.state != "running":
        name.append(f" ({guest.state})", style="dim")
    return [
        name,
        Text(format_bytes(guest.nominal_bytes)),
        Text(format_bytes(guest.balloon_bytes)),
        Text("unknown" if used is None else format_bytes(used)),
        Text("-" if plan is None or plan.verdict == "excluded" else format_bytes(plan.target_bytes)),
        Text(format_bytes(max(0, guest.nominal_bytes - guest.balloon_bytes))),
        verdict(plan, ascii_only=ascii_only),
        Text(short_reason(plan)),
    ]


def _bar(parts: Sequence[Part], width: int, ascii_only: bool) -> Text:
    bar = Text(no_wrap=True)
    for part, cells in zip(parts, _cells([part.amount_bytes for part in parts], width), strict=True):
        bar.append((part.ascii_glyph if ascii_only else part.glyph) * cells, style=part.style)
    bar.append(" " * (width - len(bar)))
    return bar


def _cells(amounts: Sequence[int], width: int) -> list[int]:
    """Share `width` cells in proportion, largest remainders first; every amount above 0 has one at least."""
    total = sum(amounts)
    if total <= 0 or width <= 0:
        return [0] * len(amounts)
    exact = [amount * width / total for amount in amounts]
    cells = [max(int(share), 1 if amount > 0 else 0) for share, amount in zip(exact, amounts, strict=True)]
    while sum(cells) != width:
        step = 1 if sum(cells) < width else -1
        gaps = [(share - cell) * step for share, cell in zip(exact, cells, strict=True)]
        present = [index for index, cell in enumerate(cells) if cell > 0]
        candidates = [index for index in present if step > 0 or cells[index] > 1] or present
        cells[max(candidates, key=lambda index: gaps[index])] += step
    return cells
