"""A picture of simulated pins: how even pCPUs got in each scene, and how many masks were changed.

Called by `vmpack simulate vcpu --plot`. Needs matplotlib.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vmpack.publish.atomic import disk_error
from vmpack.replay.vcpu_contest import VcpuRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINEAR_TO = 10
"""Above, the axes are logarithmic."""


def plot_vcpus(path: Path, target_points: float, rows: Sequence[VcpuRow]) -> None:
    """Write the picture. Raises UnavailableError or AccessError for the disk."""
    from matplotlib.figure import Figure

    scenes = list(dict.fromkeys(row["scene"] for row in rows))
    figure = Figure(figsize=(max(8, 3 + 0.35 * len(scenes)), 9), layout="constrained")
    stds, changes = figure.subplots(2, 1, sharex=True)
    best = {row["scene"]: row["optimal_std_points"] for row in rows}
    fewest = {row["scene"]: row["optimum"] for row in rows}
    for axes, least, label in ((stds, best, "best possible"), (changes, fewest, "fewest possible")):
        known = [(place, value) for place, name in enumerate(scenes) if (value := least[name]) is not None]
        places, values = [place for place, _ in known], [value for _, value in known]
        axes.plot(places, values, "k_", markersize=16, label=label)
        axes.set_yscale("symlog", linthresh=LINEAR_TO)
    names = list(dict.fromkeys(row["policy"] for row in rows))
    for place, name in enumerate(names):
        own = [row for row in rows if row["policy"] == name]
        aside = (place + 0.5) / len(names) * 0.6 - 0.3
        _points(stds, name, aside, [row["std_points"] for row in own])
        _points(changes, name, aside, [row["pin_changes"] + row["late_changes"] for row in own])
    stds.axhline(target_points, color="grey", lw=1, ls="--", label="target")
    stds.set(ylabel="standard deviation at the end, points", ylim=(-0.5, None))
    changes.set(ylabel="masks changed, with 10 minutes after", ylim=(-0.5, None))
    changes.set_xticks(range(len(scenes)), scenes, rotation=90)
    stds.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    changes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise disk_error("write", path, error) from error


def _points(axes: Axes, name: str, aside: float, values: Sequence[float]) -> None:
    axes.plot([place + aside for place in range(len(values))], values, "o", markersize=4, label=name)
