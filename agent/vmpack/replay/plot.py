"""A picture of a simulation: one draw over time, and shortage against balloon for all rows.

Called by `vmpack simulate memory --plot`. Needs matplotlib.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vmpack.errors import UsageError
from vmpack.publish.atomic import disk_error
from vmpack.replay.scores import Row
from vmpack.replay.simulation import Course, for_vms_bytes
from vmpack.units import GIB

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SMALLEST_GBH = 1e-3
"""The logarithmic axis begins here; less is drawn here."""


def check_kind(path: Path) -> None:
    """Raises UsageError for a kind of picture, told by the name's end, that matplotlib does not write."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    if path.suffix[1:].lower() not in FigureCanvasAgg.get_supported_filetypes():
        raise UsageError(f"no picture of the kind {path.suffix!r} can be made", "try .png, .svg or .pdf")


def plot(path: Path, title: str, course: Course, rows: Sequence[Row]) -> None:
    """Write the picture. Raises UnavailableError or AccessError for the disk."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 9), layout="constrained")
    over_time, against = figure.subplots(2, 1)
    hours = np.arange(len(course.need_bytes)) * course.step_s / 3600
    over_time.plot(hours, course.need_bytes.sum(axis=1) / GIB, label="need", color="tab:red", lw=1)
    over_time.plot(hours, course.balloon_bytes.sum(axis=1) / GIB, label="balloons", color="tab:blue", lw=1)
    budget = for_vms_bytes(course.capacity_bytes) / GIB
    over_time.axhline(budget, label="for VMs: memory less reserve", color="black", lw=1, ls="--")
    over_time.axvline(hours[-1] / 2, color="grey", lw=1, ls=":", label="scored from here on")
    over_time.set(title=title, xlabel="hours", ylabel="GiB, all VMs", ylim=(0, 1.3 * budget))
    over_time.legend(loc="upper right", ncols=2)
    _draw_against(against, rows)
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise disk_error("write", path, error) from error


def _draw_against(axes: Axes, rows: Sequence[Row]) -> None:
    """One line per policy and stance, one point per overcommitment and demand."""
    lines: dict[str, list[Row]] = {}
    for row in rows:
        lines.setdefault(" ".join(filter(None, (row["policy"], row["stance"]))), []).append(row)
    for name, points in lines.items():
        across = [row["balloon_ratio_median"] for row in points]
        up = [max(row["short_gbh_median"], SMALLEST_GBH) for row in points]
        axes.plot(across, up, "o:", label=name)
        if len(rows) > len(lines):
            for x, y, row in zip(across, up, points, strict=True):
                label = f"{row['overcommit']:g}x, x{row['demand_scale']:g}"
                axes.annotate(label, (x, y), xytext=(5, 3), fontsize=7, textcoords="offset points")
    axes.set(xlabel="balloons over nominals (median)", ylabel="shortage, GB x hours a day (median)")
    axes.set_yscale("log")
    highest = max((row["short_gbh_median"] for row in rows), default=0.0)
    axes.set_ylim(SMALLEST_GBH / 1.5, 2 * max(highest, 10 * SMALLEST_GBH))
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
