"""One scene as data, and its way from the first step to the verdict."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.scenes.checks import Promises
from tests.scenes.stage import GUEST_BYTES, Stage
from tests.scenes.steps import Step
from vmpack.lab.lab import Lab, LabGuest

BRISK = "interval_s = 1\ncalm_s = 2\n"
HURRIED = "interval_s = 1\ncalm_s = 1\nshrink_step_ratio = 0.3\n"


@dataclass(frozen=True, slots=True)
class Scene:
    """A host, and what happens on it once it has settled. Guests are named by letters."""

    room_bytes: int
    """What the host has for balloons, beside its reserve and the QEMUs' own memory."""
    steps: tuple[Step, ...]
    idle: str = ""
    """Guests that ask for nothing all the time: they keep floor and headroom."""
    alike: str = ""
    """Guests that do the same all the time: they get the same."""
    pace: str = BRISK
    """Lines of the configuration's [memory]."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a scene ended."""

    balloons: dict[str, int]
    """In bytes, in the last interval."""
    table: str


def play(scene: Scene, folder: Path, lab: Lab, guests: Sequence[LabGuest]) -> Ended:
    """Play it, check every interval and every guest. Fails with all that was broken and the whole table."""
    with Stage(folder, lab, guests, scene.room_bytes, scene.pace) as stage:
        kills = stage.oom_kills()
        stage.settle()
        since_s = time.monotonic()
        for step in scene.steps:
            stage.mark(repr(step))
            step.play(stage)
        stage.mark("end")
        broken = [
            f"{count - kills.get(name, 0)} processes of {name} were killed"
            for name, count in stage.oom_kills().items()
            if count > kills.get(name, 0)
        ]
        broken += _broken(scene, stage, since_s)
        print(stage.table(), stage.agent.log, sep="\n")
        assert not broken, "\n".join(broken)
        assert "Traceback" not in stage.agent.log, stage.agent.log
        last = stage.journal()[-1].snapshot.guests
        return Ended({guest.name: guest.balloon_bytes for guest in last}, stage.table())


def _broken(scene: Scene, stage: Stage, since_s: float) -> list[str]:
    lines = stage.journal(since_s)
    samples = [sample for sample in stage.sampler.samples if sample.time_s >= since_s]
    promises = Promises(stage.settings(), GUEST_BYTES, stage.crashed)
    return [
        *promises.broken(lines, samples),
        *promises.without_headroom(lines, scene.idle),
        *promises.apart(lines, scene.alike),
    ]
