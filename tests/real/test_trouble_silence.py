"""Guests that stop reporting, cannot report yet, or kill their own processes: silence is need."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.agent_process import QUICK, AgentProcess, balloon_bytes, nominal_bytes, packed, whole
from tests.real.starver import starve
from tests.waiting import PATIENCE_S, eventually
from vmpack.cli.explain import lines
from vmpack.lab.guest_spec import GuestSpec
from vmpack.lab.lab import Lab, LabGuest
from vmpack.model.action import SetMemory
from vmpack.model.interval import Interval
from vmpack.units import MIB

IMPATIENT = QUICK + "silence_s = 3\nsilence_nominal_s = 8\nlearned_floor_s = 3\nkill_floor_s = 3\n"
STARVED_S = 25


@pytest.fixture(scope="module")
def guest(lab: Lab) -> Iterator[LabGuest]:
    """One guest for the whole file."""
    (started,) = lab.start(GuestSpec("quiet", memory_bytes=160 * MIB, stats_period_s=1))
    lab.wait_ready()
    yield started
    started.destroy()


@pytest.fixture
def agent(lab: Lab, guest: LabGuest, tmp_path: Path) -> Iterator[AgentProcess]:
    """An agent that has packed the guest, and that gives it all back after the test."""
    with AgentProcess(tmp_path, lab.uri, config=IMPATIENT) as running:
        running.ready()
        eventually("the guest is packed", lambda: packed(guest))
        yield running
        guest.control.free()
        assert running.stop() == 0
        assert whole(guest) and "Traceback" not in running.log


def explained(agent: AgentProcess, guest: LabGuest) -> str:
    """What `vmpack explain` prints of a guest, in one line."""
    return " ".join(" ".join(lines(agent.client.explain(guest.name), None, time.time())).split())


def rule(interval: Interval) -> str:
    """Why the only guest needs what it needs."""
    return interval.plan.guests[0].reasons[0].rule


class Recorder:
    """Every interval of an agent, as far as asking often catches them."""

    def __init__(self, agent: AgentProcess) -> None:
        self._agent = agent
        self.intervals: list[Interval] = []

    def newest_rule(self) -> str:
        """Look once more, and return why the only guest now needs what it needs."""
        interval = self._agent.client.status().interval
        assert interval is not None
        if not self.intervals or self.intervals[-1].number != interval.number:
            self.intervals.append(interval)
        return rule(interval)


@pytest.mark.long
def test_a_starved_guest_that_cannot_report_is_given_its_memory_back(
    agent: AgentProcess, guest: LabGuest
) -> None:
    """A guest that is squeezed too hard is the very one whose reports stop: waiting for one would kill it."""
    small_bytes = balloon_bytes(guest)
    recorder = Recorder(agent)
    starve(guest, cpus=2, seconds=STARVED_S)
    eventually("it is called silent", lambda: recorder.newest_rule().startswith("silent"))
    assert "fell silent" in explained(agent, guest)
    eventually("it is to have its nominal", lambda: recorder.newest_rule() == "silent_gets_nominal")

    called = next(
        index for index, interval in enumerate(recorder.intervals) if rule(interval).startswith("silent")
    )
    orders = [
        action.to_bytes
        for interval in recorder.intervals[called : called + 2]
        for action in interval.plan.actions
        if isinstance(action, SetMemory)
    ]
    assert orders and orders[0] > small_bytes
    eventually("it takes its memory when it can", lambda: whole(guest))
    eventually("it is packed again when it reports", lambda: packed(guest))
    assert guest.control.oom_kills() == 0


def test_a_guest_without_its_balloon_driver_is_left_alone_until_it_is_back(
    agent: AgentProcess, guest: LabGuest
) -> None:
    """A driver that is unloaded gives all memory back: orders to it would pile up for its return."""
    guest.control.run(["rmmod", "virtio_balloon"])
    eventually("its memory is back", lambda: whole(guest))
    eventually("it is told", lambda: "fell silent" in explained(agent, guest))
    agent.pass_turns(2)
    interval = agent.client.status().interval
    assert interval is not None and interval.plan.actions == ()

    guest.control.run(["insmod", "/lib/virtio_balloon.ko"])
    eventually("it is packed again", lambda: packed(guest))


def test_a_guest_that_kills_its_own_processes_goes_on_being_served(
    agent: AgentProcess, guest: LabGuest
) -> None:
    """A sudden need can be faster than any interval; the next attempt inside the guest must find the room."""
    guest.control.load_anonymous(110 * MIB)
    eventually("its kernel kills", lambda: guest.control.oom_kills() > 0)
    guest.control.free()
    kills = guest.control.oom_kills()

    guest.control.load_anonymous(60 * MIB, 6 * MIB)
    eventually("it holds its load now", lambda: guest.control.progress()[0].state == "done")
    assert balloon_bytes(guest) > nominal_bytes(guest) - 24 * MIB
    assert guest.control.oom_kills() == kills
    guest.control.free()


@pytest.mark.long
def test_guests_without_balloon_or_still_booting_are_left_alone_and_cost_nothing(
    agent: AgentProcess, guest: LabGuest, lab: Lab
) -> None:
    """Both are on every host; an order to either would be refused, or squeeze a guest that cannot answer."""
    names = ("no-balloon", "booting")
    others = lab.start(GuestSpec(names[0], balloon=False), GuestSpec(names[1], memory_bytes=160 * MIB))
    try:
        recorder = Recorder(agent)

        def reports() -> bool:
            recorder.newest_rule()
            seen = {vm.name: vm for vm in recorder.intervals[-1].snapshot.guests}
            return names[0] in seen and names[1] in seen and seen[names[1]].stats is not None

        eventually("the booting one reports", reports)
        assert "has no balloon device" in explained(agent, others[0])
        orders = [
            action.name
            for interval in recorder.intervals[:-1]
            for action in interval.plan.actions
            if isinstance(action, SetMemory)
        ]
        assert not set(orders) & set(names)
        eventually("it is packed once it has booted", lambda: packed(others[1]))
        assert packed(guest)
        assert agent.client.status().last_error is None
    finally:
        for other in others:
            other.destroy()


def test_memory_coordinator_beside_an_agent_is_refused(agent: AgentProcess, lab: Lab, tmp_path: Path) -> None:
    """Promise 3 holds for the seed's program, too: two of them would pull the same balloons both ways."""
    argv = [sys.executable, "-m", "vmpack.cli.memory_coordinator", "1", "--connect", lab.uri]
    argv += ["--run-dir", str(tmp_path / "other"), "--state-dir", str(tmp_path / "else")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE_S, check=False)

    assert done.returncode == 75
    assert f"process {agent.process.pid} holds" in done.stderr and "Traceback" not in done.stderr
    agent.pass_turns(1)
