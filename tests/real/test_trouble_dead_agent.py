"""The agent is dead and nobody starts it again: guests live on, and all can be given back without it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.real.agent_process import (
    QUICK,
    AgentProcess,
    balloon_bytes,
    make_whole,
    packed,
    whole,
)
from tests.waiting import PATIENCE_S, eventually
from vmpack.lab.guest_spec import GuestSpec
from vmpack.lab.lab import Lab, LabGuest
from vmpack.units import MIB

ROOM_BYTES = 280 * MIB
"""What the smaller host of some tests has for the two guests, beside what their QEMUs need."""
SLACK_BYTES = 16 * MIB
"""The memory of the QEMUs themselves moves a little between two looks."""
STILL_PACKED = 3


@pytest.fixture(scope="module")
def two(lab: Lab) -> Iterator[list[LabGuest]]:
    """An ordinary guest, and one whose balloon gives way by itself."""
    plain = GuestSpec("plain", memory_bytes=160 * MIB, stats_period_s=1)
    giving = GuestSpec("giving", memory_bytes=160 * MIB, stats_period_s=1, autodeflate=True)
    guests = lab.start(plain, giving)
    lab.wait_ready()
    yield guests
    for guest in guests:
        guest.destroy()


@pytest.fixture(autouse=True)
def made_whole(two: list[LabGuest]) -> Iterator[None]:
    """After each test both guests have all their memory and no load."""
    yield
    for guest in two:
        make_whole(guest)


@pytest.fixture
def dead(lab: Lab, two: list[LabGuest], tmp_path: Path) -> Iterator[AgentProcess]:
    """An agent that was killed once it had packed both guests."""
    with AgentProcess(tmp_path, lab.uri) as agent:
        agent.ready()
        eventually("both are packed", lambda: all(packed(guest) for guest in two))
        agent.pass_turns(1)
        agent.process.kill()
        agent.process.wait()
        yield agent


@pytest.fixture
def overhead_bytes(lab: Lab, dead: AgentProcess) -> int:
    """What the guests' QEMUs need beside the guests' memory."""
    dead.restart()
    dead.ready()
    interval = dead.client.status().interval
    dead.process.kill()
    dead.process.wait()
    assert interval is not None
    return interval.plan.budget.overhead_bytes


def vmpack(agent: AgentProcess, command: str, *options: str) -> tuple[int, dict[str, Any]]:
    """One command with the agent's own directories: its exit code and its answer."""
    argv = [sys.executable, "-m", "vmpack.cli.main", command, *options, "--json"]
    argv += ["--config", str(agent.config_path), "--socket", str(agent.client.socket_path)]
    argv += ["--state-dir", str(agent.state_dir)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout or "{}") | {"stderr": done.stderr}


class Watch:
    """Looks at the guests as often as it can, and keeps the most that they ever had together."""

    def __init__(self, guests: list[LabGuest]) -> None:
        self._guests = guests
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.most_bytes = 0
        self.looks = 0

    def __enter__(self) -> Watch:
        for guest in self._guests:
            # libvirt's own figure, which is cheap to ask for, may follow a balloon by seconds.
            eventually("libvirt has heard", lambda guest=guest: guest.size()[1] == balloon_bytes(guest))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join(PATIENCE_S)

    def _look(self) -> None:
        while not self._stopped.wait(0.01):
            # Not memoryStats: that takes the VM's job, and vmpack would find it busy.
            self.most_bytes = max(self.most_bytes, sum(guest.size()[1] for guest in self._guests))
            self.looks += 1


def overcommit(agent: AgentProcess, overhead_bytes: int) -> None:
    """Make the host too small for both nominals."""
    size_bytes = ROOM_BYTES + overhead_bytes
    host = f'[host]\nmemory_bytes = "{size_bytes // MIB}MiB"\nreserve_ratio = 0\nreserve_min_bytes = 0\n'
    agent.config_path.write_text(QUICK + host)


def test_guests_live_on_at_their_balloons_when_the_agent_is_killed(
    dead: AgentProcess, two: list[LabGuest]
) -> None:
    """kill -9 gives nothing back; then the guests must at least be as well as they were."""
    sizes = [balloon_bytes(guest) for guest in two]
    plain, giving = two

    giving.control.load_anonymous(68 * MIB, 10 * MIB)
    eventually("its balloon gives way by itself", lambda: balloon_bytes(giving) > sizes[1] + 4 * MIB)
    eventually("the load is held", lambda: giving.control.progress()[0].state == "done")

    assert giving.control.oom_kills() == 0
    assert balloon_bytes(plain) == sizes[0] and plain.control.ping() > 0


def test_freeze_and_release_need_no_agent(lab: Lab, dead: AgentProcess, two: list[LabGuest]) -> None:
    """Promise 6: in an emergency the administrator has only the command line, and may be in a hurry."""
    code, told = vmpack(dead, "freeze")
    assert (code, told["frozen"], told["agent"]) == (STILL_PACKED, True, False)

    code, told = vmpack(dead, "release", "--all", *connect(lab))
    assert (code, told["still_packed"]) == (0, [])
    assert told["given_bytes"] > 20 * MIB
    assert all(whole(guest) for guest in two)

    code, told = vmpack(dead, "release", "--all", *connect(lab))
    assert (code, told["given_bytes"], told["outcomes"]) == (0, 0, [])


def connect(lab: Lab) -> tuple[str, str]:
    """The option that names the lab's libvirt."""
    return "--connect", lab.uri


def check_fair_and_within(two: list[LabGuest], watch: Watch) -> None:
    """Both got equal parts of what is there, and the host was overdrawn at no moment."""
    sizes = sorted(balloon_bytes(guest) for guest in two)
    assert sizes[1] - sizes[0] <= 4 * MIB, sizes
    assert ROOM_BYTES - SLACK_BYTES <= sum(sizes) <= ROOM_BYTES + SLACK_BYTES
    assert watch.looks > 10 and watch.most_bytes <= ROOM_BYTES + SLACK_BYTES


def test_a_release_on_an_overcommitted_host_gives_only_what_is_there(
    lab: Lab, dead: AgentProcess, overhead_bytes: int, two: list[LabGuest]
) -> None:
    """The host's own death is the worst outcome: a release that gives more than there is would bring it."""
    overcommit(dead, overhead_bytes)
    with Watch(two) as watch:
        code, told = vmpack(dead, "release", "--all", *connect(lab))
        given = [balloon_bytes(guest) for guest in two]
        again, second = vmpack(dead, "release", "--all", *connect(lab))

    assert code == again == STILL_PACKED
    check_fair_and_within(two, watch)
    for answer in (told, second):
        assert {left["name"] for left in answer["still_packed"]} == {guest.name for guest in two}
        for left in answer["still_packed"]:
            assert "cannot hold every VM's nominal" in left["why"] and "migrating a VM" in left["cure"]
    assert all(abs(balloon_bytes(guest) - size) <= 8 * MIB for guest, size in zip(two, given, strict=True))


def test_an_agent_that_stops_on_an_overcommitted_host_gives_only_what_is_there(
    dead: AgentProcess, overhead_bytes: int, two: list[LabGuest]
) -> None:
    """The same at an ordinary stop, which is what an update of the package does to every host."""
    overcommit(dead, overhead_bytes)
    dead.restart()
    with Watch(two) as watch:
        dead.ready()
        assert dead.stop() == 0

    check_fair_and_within(two, watch)
    for guest in two:
        assert f"{guest.name} keeps " in dead.log
    assert "cannot hold every VM's nominal" in dead.log and "what helps: stopping or migrating" in dead.log
