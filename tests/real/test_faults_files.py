"""The real agent on a real guest while its disk, directories, files and clock fail."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import checks
from tests.faults.injector import Fault
from tests.faults.scene import FaultyAgent
from tests.real.agent_process import (
    QUICK,
    balloon_bytes,
    make_whole,
    packed,
    stats_period_set,
    whole,
)
from tests.waiting import PATIENCE_S, eventually
from vmpack.lab.guest_spec import GuestSpec
from vmpack.lab.lab import Lab, LabGuest
from vmpack.units import MIB

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
DAY_S = 86400
RECORDS = ("what is remembered would be lost", "not published: history", "not published: journal")
"""What a disk costs that takes nothing more."""


@pytest.fixture(scope="module")
def guest(lab: Lab) -> Iterator[LabGuest]:
    """One guest for the whole file."""
    (started,) = lab.start(GuestSpec("files", memory_bytes=160 * MIB))
    lab.wait_ready()
    yield started
    started.destroy()


@pytest.fixture(autouse=True)
def made_whole(guest: LabGuest) -> Iterator[None]:
    """Each test finds it whole and without statistics."""
    yield
    guest.domain.setMemoryStatsPeriod(0)
    make_whole(guest)


@pytest.fixture
def agent(lab: Lab, guest: LabGuest, tmp_path: Path) -> Iterator[FaultyAgent]:
    """An agent that has packed the guest."""
    with FaultyAgent(tmp_path, lab.uri, Fault(), QUICK) as running:
        running.ready()
        eventually("the guest is packed", lambda: packed(guest))
        yield running


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB where the agent keeps its state."""
    folder = tmp_path / "state"
    folder.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k,mode=0750", "vmpack-test", str(folder)], check=True
    )
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def serves(agent: FaultyAgent, guest: LabGuest) -> None:
    """The guest gets memory when it wants some, whatever else is broken."""
    before = balloon_bytes(guest)
    guest.control.load_tmpfs(40 * MIB, 20 * MIB)
    eventually("it grows", lambda: balloon_bytes(guest) > before + 20 * MIB)
    agent.pass_turns(2)
    assert guest.control.oom_kills() == 0


def said_once(agent: FaultyAgent, *words: str) -> None:
    """One line for each of these and no other, each with what to do about it."""
    complaints = agent.complaints
    for word in words:
        assert len([line for line in complaints if word in line]) == 1, (word, complaints)
    assert len(complaints) == len(words), complaints
    assert all(line.rstrip().endswith(")") or ";" in line for line in complaints), complaints


def stops_well(agent: FaultyAgent, guest: LabGuest) -> None:
    """All is given back, and nothing is left."""
    assert agent.stop() == 0, agent.log
    assert whole(guest) and not stats_period_set(guest), agent.log
    assert "Traceback" not in agent.log
    assert list(checks.leftovers(agent.state_dir.parent)) == []


@as_root
def test_a_full_disk_costs_records_and_no_guest_its_memory(
    tiny_disk: Path, agent: FaultyAgent, guest: LabGuest
) -> None:
    """Disks fill up at night: guests must be served till morning, and all be well once there is space."""
    with (tiny_disk / "filler").open("wb", buffering=0) as filler:
        try:
            while filler.write(b"x" * 512):
                pass
        except OSError:
            pass
    eventually("it is said", lambda: len(agent.complaints) >= 3)
    serves(agent, guest)
    said_once(agent, *RECORDS)

    (tiny_disk / "filler").unlink()
    eventually("all is published again", lambda: agent.log.count("published again") == 2)
    agent.pass_turns(2)
    assert agent.log.count("published again") == 2 and len(agent.complaints) == len(RECORDS)
    stops_well(agent, guest)
    assert list(checks.replayed(agent.state_dir.parent)) == []


@as_root
def test_a_disk_that_turns_read_only_is_survived(
    tiny_disk: Path, agent: FaultyAgent, guest: LabGuest
) -> None:
    """Linux does that to a failing disk: the hint must say so, and a crash then must not lose the guests."""
    # The open journal stays on the writable mount below.
    subprocess.run(["mount", "--bind", str(tiny_disk), str(tiny_disk)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(tiny_disk)], check=True)
        eventually("it is said", lambda: len(agent.complaints) >= 2)
        serves(agent, guest)
        said_once(agent, *RECORDS[:2])
        assert "mounted read-only" in agent.complaints[0] + agent.complaints[1]
    finally:
        subprocess.run(["umount", "--lazy", str(tiny_disk)], check=True)

    eventually("it is published again", lambda: "published again: history" in agent.log)
    stops_well(agent, guest)


@as_root
def test_an_agent_does_not_start_where_it_can_keep_nothing(
    tiny_disk: Path, lab: Lab, guest: LabGuest, tmp_path: Path
) -> None:
    """Started on a read-only disk it would forget what it borrowed: it must say so and touch nobody."""
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)
    with FaultyAgent(tmp_path, lab.uri, Fault(), QUICK) as agent:
        code = agent.process.wait(PATIENCE_S)

    assert code == 69, agent.log
    assert "read-only" in agent.log and str(tiny_disk) in agent.log and "Traceback" not in agent.log
    assert whole(guest) and not stats_period_set(guest)


def halved(path: Path) -> None:
    """As a crash of the machine leaves it."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path: Path) -> None:
    """As a full disk leaves it."""
    path.write_bytes(b"")


def overwritten(path: Path) -> None:
    """As a failing disk leaves it."""
    path.write_bytes(os.urandom(4096))


@pytest.mark.parametrize("spoil", [halved, emptied, overwritten])
def test_spoilt_files_cost_a_line_each_and_never_the_start(
    spoil: object, agent: FaultyAgent, guest: LabGuest
) -> None:
    """Promise 4, on all files at once: after a power cut the agent must start without anybody's hand."""
    agent.pass_turns(3)
    agent.process.kill()
    agent.process.wait()
    (agent.state_dir / "claims.json").write_text('{"format":1,"claims":[]}')
    assert (agent.state_dir / "history.db").exists()
    for name in ("remembered.json", "claims.json", "history.db"):
        spoil(agent.state_dir / name)  # type: ignore[operator]
    segments = sorted((agent.state_dir / "journal").iterdir())
    spoil(segments[-1])  # type: ignore[operator]

    agent.restart_sound()
    agent.ready()
    agent.pass_turns(4)

    aside = {path.name for path in agent.state_dir.glob("*.broken-1")}
    assert {"remembered.json.broken-1", "claims.json.broken-1"} <= aside
    assert len([line for line in agent.complaints if "remembered.json" in line]) == 1
    assert len([line for line in agent.complaints if "claims.json" in line]) == 1
    assert len(agent.complaints) == len(aside), agent.complaints
    assert agent.stop() == 0, agent.log
    assert whole(guest) and "Traceback" not in agent.log


def test_a_stepped_clock_changes_nothing_for_the_guests(agent: FaultyAgent, guest: LabGuest) -> None:
    """An administrator who sets the clock must not have every guest taken for silent and unpacked."""
    step = agent.state_dir.parent / "clock_step"
    eventually("it is packed as far as it goes", lambda: balloon_bytes(guest) < 124 * MIB)
    before = balloon_bytes(guest)
    for seconds in (DAY_S, -DAY_S, 0):
        (step.with_suffix(".new")).write_text(str(seconds))
        step.with_suffix(".new").replace(step)
        agent.pass_turns(5)
        assert abs(balloon_bytes(guest) - before) <= 12 * MIB, agent.log
    serves(agent, guest)

    assert agent.complaints == []
    assert agent.client.explain(guest.name).guest.stats_fault is None
    stops_well(agent, guest)
    assert list(checks.replayed(agent.state_dir.parent)) == []


def test_a_textfile_directory_that_cannot_be_written_is_said_once(
    lab: Lab, guest: LabGuest, tmp_path: Path
) -> None:
    """node_exporter is installed after vmpack, or removed: metrics there are a comfort and stop nothing."""
    config = QUICK + f'[publish]\ntextfile_dir = "{tmp_path}/textfile"\n'
    with FaultyAgent(tmp_path, lab.uri, Fault(), config) as agent:
        agent.ready()
        eventually("the guest is packed", lambda: packed(guest))
        said_once(agent, "not published: metrics")

        (tmp_path / "textfile").mkdir()
        eventually("it is written", (tmp_path / "textfile" / "vmpack.prom").exists)
        eventually("it is said", lambda: "published again: metrics" in agent.log)
        shutil.rmtree(tmp_path / "textfile")
        eventually("it is said again", lambda: len(agent.complaints) == 2)
        agent.pass_turns(3)
        assert len(agent.complaints) == 2
        stops_well(agent, guest)


def test_a_run_directory_that_vanishes_comes_back(agent: FaultyAgent, guest: LabGuest) -> None:
    """A cleaner of /run must not leave an agent that packs guests and that nobody can ask anything."""
    shutil.rmtree(agent.run_dir)
    eventually("the socket is back", agent.client.socket_path.exists)
    eventually("probe texts are back", (agent.run_dir / "probe" / "vm-snapshot").exists)
    agent.pass_turns(3)

    assert agent.client.status().last_error is None
    assert agent.client.socket_path.stat().st_mode & 0o777 == 0o600
    said_once(agent, "agent.sock had vanished")
    stops_well(agent, guest)


def break_file(path: Path, breakage: str) -> None:
    """Put something else where the configuration was."""
    path.unlink(missing_ok=True)
    if breakage == "garbage":
        path.write_bytes(bytes(range(256)))
    elif breakage == "a directory":
        path.mkdir()


def test_a_configuration_that_breaks_is_refused_and_a_mended_one_taken(
    agent: FaultyAgent, guest: LabGuest
) -> None:
    """A reload in the middle of somebody's edit must change nothing, and say which file."""
    path = agent.config_path
    for number, breakage in enumerate(("missing", "garbage", "a directory"), 1):
        break_file(path, breakage)
        agent.process.send_signal(signal.SIGHUP)
        eventually(
            "it refuses", lambda n=number: agent.log.count("the old configuration stays in force") == n
        )
        agent.pass_turns(1)
        assert agent.log.count(str(path)) == number, agent.log
    assert agent.client.status().interval_s == 0.5

    path.rmdir()
    path.write_text(QUICK.replace("0.5", "0.6"))
    agent.process.send_signal(signal.SIGHUP)
    eventually("it takes the mended one", lambda: agent.client.status().interval_s == 0.6)
    stops_well(agent, guest)
