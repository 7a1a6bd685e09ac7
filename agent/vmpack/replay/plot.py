"""A picture of a simulation: one draw over time, and shortage against balloon for all rows.

Called by `vmpack simulate memory --plot`. Needs matplotlib.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vmpack.errors import UsageError
from vmpack.publish.atomic import disk_error
from vmpack.replay.scores import Row
from vmpack.replay.simulation import Course, for_vms_bytes
from vmpack.units import GIB

SMALLEST_GBH = 1e-3
"""The logarithmic axis begins here; less is drawn here."""


def plot(path: Path, title: str, course: Course, rows: Sequence[Row]) -> None:
    """Write the picture; the kind is told by the name's end.

    Raises UsageError for a kind that matplotlib does not write, UnavailableError or AccessError for the disk.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 9), layout="constrained")
    FigureCanvasAgg(figure)
    if path.suffix[1:].lower() not in figure.canvas.get_supported_filetypes():
        raise UsageError(f"no picture of the kind {path.suffix!r} can be made", "try .png, .svg or .pdf")
    over_time, against = figure.subplots(2, 1)
    hours = np.arange(len(course.need_bytes)) * course.step_s / 3600
    over_time.plot(hours, course.need_bytes.sum(axis=1) / GIB, label="need", color="tab:red", lw=1)
    over_time.plot(hours, course.balloon_bytes.sum(axis=1) / GIB, label="balloons", color="tab:blue", lw=1)
    budget = for_vms_bytes(course.capacity_bytes) / GIB
    over_time.axhline(budget, label="for VMs: memory less reserve", color="black", lw=1, ls="--")
    over_time.axvline(hours[-1] / 2, color="grey", lw=1, ls=":", label="scored from here on")
    over_time.set(title=title, xlabel="hours", ylabel="GiB, all VMs", ylim=(0, 1.3 * budget))
    over_time.legend(loc="upper right", ncols=2)
    for row in rows:
        short = max(row["short_gbh_median"], SMALLEST_GBH)
        name = " ".join(filter(None, (row["policy"], row["stance"])))
        label = f"{name} {row['overcommit']:g}x, demand x{row['demand_scale']:g}"
        against.plot(row["balloon_ratio_median"], short, "o")
        against.annotate(label, (row["balloon_ratio_median"], short), xytext=(6, 3), fontsize=8,
                         textcoords="offset points")  # fmt: skip
    against.set(xlabel="balloons over nominals (median)", ylabel="shortage, GB x hours a day (median)")
    against.set_yscale("log")
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise disk_error("write", path, error) from error
