"""The real agent on real guests, struck at each call that it makes in an interval full of events.

The points are recorded first, then struck one after the other; what went wrong is told with the point's name.
VMPACK_FAULT_POINT="os.replace state/remembered.json #1" strikes at that one alone; several with ; between.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import checks
from tests.faults.injector import BEGIN, Fault, Mode, Passage
from tests.faults.patches import CONNECTION_CALLS, DOMAIN_CALLS
from tests.faults.scene import RULES, SPECS, FaultyAgent, Scene
from tests.faults.watch import BalloonWatch
from tests.waiting import PATIENCE_S, eventually
from vmpack.lab.lab import Lab

LOOKS_MAX = 3
"""How often a reading call is struck: an agent that waits for a balloon looks at it again and again."""
RECORDED_INTERVALS = 4
CHANCE = "setMemoryFlags fresh"
"""A new guest pays too where its first statistics come in time: no point that every run meets."""
STOPPED_S = 6.0
"""Longer than any call may take."""
FULL_HOST = "packed: the host cannot hold every VM's nominal"
"""Said by design: the host is full when the agent stops for the first time."""
EVERYDAY: dict[Mode, tuple[str, ...]] = {
    "kill": ("setMemoryFlags", "os.replace state/remembered.json #1"),
    "kill_after": ("setMemoryFlags",),
}
"""Where the outside changes: `kill` before or in the middle of the change, `kill_after` right behind it."""


@pytest.fixture(scope="module")
def scene(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """The three guests, on a host that they fill."""
    guests = lab.start(*SPECS)
    lab.wait_ready()
    yield Scene(lab, guests, tmp_path_factory.mktemp("overhead"))
    for guest in guests:
        guest.destroy()


@pytest.fixture(scope="module")
def points(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Every point of an interval in which things happen, or those that VMPACK_FAULT_POINT names."""
    if chosen := os.environ.get("VMPACK_FAULT_POINT"):
        return chosen.split(";")
    scene.set()
    with scene.agent(tmp_path_factory.mktemp("record"), Fault()) as agent:
        agent.ready()
        agent.pass_turns(RECORDED_INTERVALS)
        agent.stop()
    return points_of(agent.trace)


def points_of(trace: list[Passage]) -> list[str]:
    """The first interval's points, and what is written only later (the history)."""
    found: dict[str, None] = {}
    looks = 0
    for passage in trace:
        if passage.when != "before" or passage.point.startswith(CHANCE):
            continue
        name, _, ordinal = passage.point.rpartition(" #")
        looks += name == BEGIN
        late = passage.point.startswith("sqlite") and looks <= RECORDED_INTERVALS
        if (looks == 1 or late) and int(ordinal) <= LOOKS_MAX:
            found[passage.point] = None
    return list(found)


class Case:
    """One strike, what follows it, and what it broke."""

    def __init__(self, scene: Scene, folder: Path, fault: Fault) -> None:
        folder.mkdir(parents=True)
        self.scene = scene
        self.folder = folder
        self.fault = fault
        self.broken: list[str] = []

    def run(self) -> list[str]:
        """Strike, go on, stop; the broken promises, each with the mode and point that broke them."""
        self.scene.set()
        with (
            BalloonWatch(self.scene.guests) as watch,
            self.scene.agent(self.folder, self.fault) as agent,
        ):
            if self._strike(agent):
                agent.pass_turns(checks.SETTLED_INTERVALS)
            ended_s = time.monotonic()
            self._stop(agent)
        self._check(agent, watch, ended_s)
        return [f"{self.fault.mode} at {self.fault.point}: {what}" for what in self.broken]

    def _strike(self, agent: FaultyAgent) -> bool:
        kills = self.fault.mode in ("kill", "kill_after")
        eventually(f"the point is met: {self.fault.point}\n{agent.log}", lambda: self._over(agent, kills))
        if not kills:
            if self.fault.mode == "stop":
                self._hold_still(agent)
            agent.ready()
            return True
        assert agent.process.wait(PATIENCE_S) == -signal.SIGKILL, agent.log
        self.broken += checks.files_that_readers_trust(self.folder)
        agent.restart_sound()
        agent.ready()
        return True

    def _over(self, agent: FaultyAgent, kills: bool) -> bool:
        if kills:
            return agent.process.poll() is not None
        return any(passage.when == "struck" for passage in agent.trace)

    def _hold_still(self, agent: FaultyAgent) -> None:
        status = Path(f"/proc/{agent.process.pid}/stat")
        eventually("it is stopped", lambda: status.read_text().rpartition(")")[2].split()[0] == "T")
        time.sleep(STOPPED_S)
        agent.process.send_signal(signal.SIGCONT)

    def _stop(self, agent: FaultyAgent) -> None:
        """On the full host, which gives what it has, and then on one that can hold every nominal."""
        for config in ("", RULES):
            if config:
                agent.config_path.write_text(config)
                agent.restart_sound()
                agent.ready()
            if code := agent.stop():
                self.broken.append(f"the stopped agent ended with {code}")

    def _check(self, agent: FaultyAgent, watch: BalloonWatch, ended_s: float) -> None:
        if not self.scene.is_given_back():
            self.broken.append(f"not given back: {watch.looks[-1].balloons}")
        if self.scene.periods() != [True, True, False]:
            self.broken.append(f"statistics periods are set: {self.scene.periods()}")
        if "Traceback" in agent.log:
            self.broken.append(f"a traceback:\n{agent.log}")
        complaints = [line for line in agent.complaints if FULL_HOST not in line]
        if len(complaints) > 1:
            self.broken.append(f"more than one line: {complaints}")
        self.broken += checks.leftovers(self.folder)
        self.broken += checks.files_that_readers_trust(self.folder)
        self.broken += checks.replayed(self.folder)
        lines = [line for line in checks.intervals(self.folder) if line.snapshot.time_s < ended_s]
        self.broken += checks.needs_served(lines)
        self.broken += checks.room_kept(lines)
        most, told = watch.most_held(agent.trace, ended_s)
        if most > checks.budget_bytes(lines) + checks.DRIFT_BYTES:
            self.broken.append(f"{most} bytes held, budget {checks.budget_bytes(lines)}: {told}")


def strike_all(scene: Scene, points: list[str], mode: Mode, folder: Path, seconds: float = 0.0) -> None:
    """Strike at each point; fails with all that broke."""
    broken: list[str] = []
    for number, point in enumerate(points, 1):
        began_s = time.monotonic()
        found = Case(scene, folder / str(number), Fault(mode, point, seconds)).run()
        broken += found
        took_s = time.monotonic() - began_s
        print(
            f"{mode} {number}/{len(points)} {point}: {'BROKEN' if found else 'held'}, {took_s:.1f} s",
            flush=True,
        )
    assert not broken, "\n" + "\n".join(broken)


@pytest.mark.parametrize("mode", EVERYDAY)
def test_killed_where_something_changes(mode: Mode, scene: Scene, points: list[str], tmp_path: Path) -> None:
    """The host's OOM killer picks any moment: nothing borrowed may be forgotten, no file may be left half."""
    strike_all(scene, [point for point in points if point.startswith(EVERYDAY[mode])], mode, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize(
    ("mode", "seconds"),
    [("kill", 0.0), ("kill_after", 0.0), ("fail", 0.0), ("fail_after", 0.0), ("stop", 0.0), ("delay", 6.0)],
)
def test_every_fault_at_every_point(
    mode: Mode, seconds: float, scene: Scene, points: list[str], tmp_path: Path
) -> None:
    """Each of these calls fails on some host some day, and each of those guests must keep what it needs."""
    if mode in ("delay", "fail_after"):
        # Only libvirt's calls have a deadline, and answers that can get lost.
        points = [point for point in points if point.split()[0] in CONNECTION_CALLS + DOMAIN_CALLS]
    strike_all(scene, points, mode, tmp_path, seconds)
