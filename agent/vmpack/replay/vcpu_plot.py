"""A picture of simulated pins: one scene over time, and the changes of masks in all scenes.

Called by `vmpack simulate vcpu --plot`. Needs matplotlib.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from vmpack.publish.atomic import disk_error
from vmpack.replay.vcpu_contest import VcpuCourse, VcpuRow


def plot_vcpus(
    path: Path, scene: str, interval_s: float, courses: Mapping[str, VcpuCourse], rows: Sequence[VcpuRow]
) -> None:
    """Write the picture. Raises UnavailableError or AccessError for the disk."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 9), layout="constrained")
    over_time, of_all = figure.subplots(2, 1)
    for name, course in courses.items():
        minutes = [look * interval_s / 60 for look in range(len(course.std_points))]
        over_time.step(minutes, course.std_points, where="post", label=name, lw=1.5)
    over_time.set(title=scene, xlabel="minutes", ylabel="standard deviation of load, points")
    over_time.set_ylim(bottom=0)
    over_time.legend(loc="upper right")
    scenes = list(dict.fromkeys(row["scene"] for row in rows))
    for name in courses:
        changes = [
            row["pin_changes"] + row["late_changes"]
            for scene_name in scenes
            for row in rows
            if (row["scene"], row["policy"]) == (scene_name, name)
        ]
        of_all.plot(range(len(scenes)), changes, "o:", label=name)
    fewest = {row["scene"]: row["optimum"] for row in rows}
    known = [(place, fewest[name]) for place, name in enumerate(scenes) if fewest[name] is not None]
    of_all.plot(*zip(*known, strict=True), "k_", markersize=12, label="fewest possible")
    of_all.set_xticks(range(len(scenes)), scenes, rotation=90)
    of_all.set_yscale("symlog", linthresh=10)
    of_all.set(ylabel="masks changed, and in the 10 minutes after", ylim=(-0.5, None))
    of_all.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise disk_error("write", path, error) from error
