"""One frame of the pCPU page of `top`: a bar per pCPU, the vCPUs on it, the last pin changes and why.

Pure; called by top.py for each refresh. Promises: never taller or wider than asked, whatever the number of
pCPUs and vCPUs; what did not fit is counted; without colours the characters alone tell the parts apart.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from vmpack.cli import vcpu_text
from vmpack.cli.safe_text import shown
from vmpack.cli.top_frame import STATE_STYLES, View, fitted
from vmpack.host import vcpu_answers
from vmpack.model.pins import format_cpus
from vmpack.model.vcpu import MaskOwner, Pcpu, VcpuInterval, VcpuStatus, VmVcpus
from vmpack.units import format_seconds

NUMBER_CELLS = 5
PERCENT_CELLS = 6
SPEED_CELLS = 6
NAME_LONGEST = 16
FULLEST = 4.0
"""A bar shows no more than this many times the capacity; the number beside it tells the rest."""
TAIL_SHARE = 3
"""A third of the screen at most is for changes."""

_MARKS: dict[MaskOwner, tuple[str, str]] = {
    "vmpack": ("*", "bold green"),
    "owner": ("=", "magenta"),
    "run_time": ("+", "yellow"),
    "nobody": ("", "default"),
}


@dataclass(frozen=True, slots=True)
class Group:
    """pCPUs that share a node and a cache."""

    heading: str
    pcpus: tuple[Pcpu, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """What rows are made of."""

    loads: dict[int, float]
    """By pCPU."""
    labels: dict[int | None, list[Text]]
    """By pCPU; None: vCPUs on none of them."""
    scale: float
    """What a whole bar stands for."""
    has_speeds: bool


Row = Group | Pcpu | None
"""None: the vCPUs that are on none of the pCPUs."""


def frame(status: VcpuStatus | None, view: View, now_s: float, trouble: str = "") -> Text:
    """The whole screen. `trouble` is why the data could not be refreshed; it is shown with the old data."""
    head = [Text(shown(trouble), "bold red")] if trouble else []
    if status is None:
        return fitted([*head, _keys(view)], view)
    head = [_title(status, now_s), *head]
    if status.last_error:
        head.append(Text(f"the newest turn failed: {shown(status.last_error)}", "bold red"))
    interval = status.interval
    if interval is None:
        return fitted([*head, Text("the vCPUs have not been looked at yet"), _keys(view)], view)
    head += [Text(_sums(status, interval, now_s))]
    head += [
        Text(line, "dim")
        for reason in interval.plan.reasons
        for line in textwrap.wrap(vcpu_text.why_words(reason), max(20, view.columns))
    ]
    page = _page(interval)
    head += [Text(), _heading(page, view)]
    tail = [Text(), *_changes(status, interval, view, max(1, view.rows // TAIL_SHARE))]
    tail += [_legend(view), *([_keys(view)] if view.interactive else [])]
    return fitted([*head, *_visible(interval, page, view, view.rows - len(head) - len(tail)), *tail], view)


def rows_of(interval: VcpuInterval) -> list[Row]:
    """All rows of the page: each group's heading, where there is more than one, and its pCPUs."""
    groups = _groups(interval.snapshot.pcpus)
    rows: list[Row] = []
    for group in groups:
        rows += [group] if len(groups) > 1 else []
        rows += group.pcpus
    usable = {pcpu.number for pcpu in interval.snapshot.pcpus}
    lost = any(_seat(vcpu.cpus, vcpu.seat) not in usable for vm in interval.vms_now() for vcpu in vm.vcpus)
    return [*rows, None] if lost else rows


def _title(status: VcpuStatus, now_s: float) -> Text:
    word = vcpu_text.state(status)
    title = Text.assemble(("vmpack ", "bold"), (word, STATE_STYLES[word]), f"  {status.mode}")
    if status.interval is None:
        return title
    found = vcpu_answers.sums(status.interval)
    uneven = found.target_points is not None and found.std_points > found.target_points
    title.append(f"  {vcpu_text.uneven_words(found)}", style="bold yellow" if uneven else "green")
    age = vcpu_text.age_s(status, now_s)
    assert age is not None
    stale = vcpu_text.is_stale(status, now_s)
    return title.append(f"  {format_seconds(age)} ago", style="bold red" if stale else "dim")


def _sums(status: VcpuStatus, interval: VcpuInterval, now_s: float) -> str:
    found, changed = vcpu_answers.sums(interval), vcpu_text.changed_words(vcpu_answers.summary(status, now_s))
    return f"{changed}, {found.pins} held; {vcpu_text.counts(found)}"


def _page(interval: VcpuInterval) -> Page:
    done = vcpu_answers.all_done(interval)
    loads = {one.number: one.after_ratio if done else one.before_ratio for one in interval.plan.pcpus}
    fullest = max(loads.values(), default=0.0)
    return Page(
        loads=loads,
        labels=_labels(interval),
        scale=min(FULLEST, max(1.0, fullest)),
        has_speeds=any(pcpu.capacity_ratio != 1.0 for pcpu in interval.snapshot.pcpus),
    )


def _groups(pcpus: Sequence[Pcpu]) -> list[Group]:
    members: dict[tuple[int, int], list[Pcpu]] = {}
    for pcpu in pcpus:
        members.setdefault((pcpu.node, pcpu.cache), []).append(pcpu)
    nodes = {node for node, _ in members}
    groups = []
    for (node, cache), of_group in members.items():
        names = [f"node {node}"] if len(nodes) > 1 else []
        names += [f"cache {cache}"] if len(members) > len(nodes) else []
        numbers = format_cpus([pcpu.number for pcpu in of_group])
        groups.append(Group(f"{', '.join(names)}: pCPUs {numbers}", tuple(of_group)))
    return groups


def _seat(cpus: Sequence[int], seat: int | None) -> int | None:
    return cpus[0] if len(cpus) == 1 else seat


def _labels(interval: VcpuInterval) -> dict[int | None, list[Text]]:
    """The vCPUs of each pCPU, those that want most first; siblings with one mark together."""
    usable = {pcpu.number for pcpu in interval.snapshot.pcpus}
    demands = {vm.uuid: vm.demand_ratios for vm in interval.plan.vms}
    found: dict[int | None, list[tuple[float, str, Text]]] = {}
    for vm in interval.vms_now():
        ratios = demands.get(vm.uuid, ())
        together: dict[tuple[int | None, MaskOwner], list[int]] = {}
        for index, vcpu in enumerate(vm.vcpus):
            seat = _seat(vcpu.cpus, vcpu.seat)
            together.setdefault((seat if seat in usable else None, vcpu.mask_of), []).append(index)
        for (seat, mask_of), indexes in together.items():
            demand = sum(ratios[index] for index in indexes if index < len(ratios))
            label = _label(vm, [vm.vcpus[index].number for index in indexes], mask_of)
            found.setdefault(seat, []).append((-round(demand, 1), vm.name, label))
    return {
        seat: [label for _, _, label in sorted(entries, key=lambda entry: entry[:2])]
        for seat, entries in found.items()
    }


def _label(vm: VmVcpus, numbers: Sequence[int], mask_of: MaskOwner) -> Text:
    name = shown(vm.name) or "(no name)"
    if len(name) > NAME_LONGEST:
        name = name[: NAME_LONGEST - 2] + ".."
    mark, style = _MARKS[mask_of]
    return Text(f"{name}:{format_cpus(sorted(numbers))}{mark}", style)


def _heading(page: Page, view: View) -> Text:
    speed = f"{'speed':>{SPEED_CELLS}}" if page.has_speeds else ""
    wanted = f"{'load':<{_bar_cells(view)}} {'':>{PERCENT_CELLS}}"
    return Text(f"{'pCPU':>{NUMBER_CELLS}}{speed} {wanted}  vCPUs", "bold")


def _bar_cells(view: View) -> int:
    return max(4, min(40, view.columns // 4))


def _visible(interval: VcpuInterval, page: Page, view: View, room: int) -> list[Text]:
    rows = rows_of(interval)
    if not rows:
        return [Text("no pCPU that VMs may use", "dim")]
    if len(rows) <= max(1, room):
        return [_row(row, page, view) for row in rows]
    room = max(1, room - 1)
    first = min(max(0, view.first_row), len(rows) - room)
    more = f"{len(rows) - first - room} more rows" + (f", {first} above" if first else "")
    return [*(_row(row, page, view) for row in rows[first : first + room]), Text(more, "dim")]


def _row(row: Row, page: Page, view: View) -> Text:
    if isinstance(row, Group):
        capacity = sum(pcpu.capacity_ratio for pcpu in row.pcpus)
        load = sum(page.loads.get(pcpu.number, 0.0) * pcpu.capacity_ratio for pcpu in row.pcpus)
        return Text(f"{row.heading}, {100 * load / capacity:.0f} % on average", "bold blue")
    if row is None:
        return _with_labels(Text(f"{'-':>{NUMBER_CELLS}} elsewhere"), page.labels.get(None, []), view)
    load = page.loads.get(row.number, 0.0)
    line = Text(f"{row.number:>{NUMBER_CELLS}}")
    line.append(f"{row.capacity_ratio:>{SPEED_CELLS}.2f}" if page.has_speeds else "")
    line.append(" ").append_text(_bar(load, page.scale, _bar_cells(view), view.ascii_only))
    line.append(f" {100 * load:>{PERCENT_CELLS - 2}.0f} %", "bold red" if load > 1.005 else "default")
    return _with_labels(line, page.labels.get(row.number, []), view)


def _bar(load: float, scale: float, width: int, ascii_only: bool) -> Text:
    """`width` cells: what runs, what must wait because it is beyond the capacity, what is free."""
    full, wait, free = ("#", "!", ".") if ascii_only else ("█", "▒", "·")
    capacity = max(1, round(width / scale))
    runs = min(capacity, round(min(load, 1.0) * capacity)) or int(load > 0.005)
    waits = min(width - capacity, max(round((load - 1.0) * width / scale), 0))
    bar = Text(full * runs, "green").append(free * (capacity - runs), "bright_black")
    bar.append(wait * waits, "bold red")
    return bar.append(" " * (width - len(bar)))


def _with_labels(line: Text, labels: Sequence[Text], view: View) -> Text:
    """As many labels as have room, then how many more there are."""
    line.append("  " if labels else "")
    room = view.columns - line.cell_len
    for index, label in enumerate(labels):
        more = f"+{len(labels) - index}"
        is_last = index == len(labels) - 1
        if label.cell_len + (0 if is_last else 1 + len(more)) > room:
            return line.append(more, "dim")
        line.append_text(label).append("" if is_last else " ")
        room -= label.cell_len + 1
    return line


def _changes(status: VcpuStatus, interval: VcpuInterval, view: View, limit: int) -> list[Text]:
    """The newest changes that fit, each with its reason below; whole ones, oldest first."""
    clock = vcpu_text.clock_text(interval.snapshot.wall_s)
    told = [(vcpu_text.clock_text(one.wall_s), vcpu_text.change_line(one), one.why) for one in status.changed]
    told += [(clock, line, why) for line, why in vcpu_text.planned_changes(interval)]
    if not told:
        return [Text("no pin changed yet", "dim")]
    indent = " " * (len(clock) + 1)
    lines: list[Text] = []
    for at, line, reason in reversed(told):
        why = textwrap.wrap(
            vcpu_text.why_words(reason),
            max(20, view.columns),
            initial_indent=indent,
            subsequent_indent=indent,
        )
        entry = [Text(f"{at} {line}"), *(Text(part, "dim") for part in why)]
        if len(entry) > limit - len(lines):
            return lines or entry[:limit]
        lines = entry + lines
    return lines


def _legend(view: View) -> Text:
    bar = (("#", "wanted"), ("!", "waits"), (".", "free"))
    if not view.ascii_only:
        bar = (("█", "wanted"), ("▒", "waits"), ("·", "free"))
    marks = (("VM:vCPU", "floats"), ("*", "by vmpack"), ("=", "by owner"), ("+", "run time"))
    return Text("  ".join(f"{sign} {word}" for sign, word in (*bar, *marks)), "dim")


def _keys(view: View) -> Text:
    return Text("c memory, q quits, arrows scroll" if view.interactive else "", "dim")
