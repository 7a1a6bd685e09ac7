"""The reaper with small programs in the place of libvirt and QEMU."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.waiting import eventually

from vmpack.lab.reaper import Reaper

# Prints its own process id and that of an orphan, which leaves its session and its parent as QEMU does.
_WORKER = """
import os, signal, subprocess, sys, time
command = ["setsid", "--fork", "sh", "-c", "echo $$; exec sleep 1000"]
orphan = subprocess.Popen(command, stdout=subprocess.PIPE)
if sys.argv[1] == "polite":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
print(os.getpid(), orphan.stdout.readline().decode().strip(), flush=True)
if sys.argv[1] != "end":
    time.sleep(1000)
sys.exit(3)
"""
_CALLER = """
import sys
from vmpack.lab.supervise import supervise
sys.exit(supervise([sys.executable, "-c", sys.argv[1], sys.argv[2]]))
"""


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _supervised(mode: str) -> tuple[subprocess.Popen[str], int, int]:
    process = subprocess.Popen(
        [sys.executable, "-c", _CALLER, _WORKER, mode], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    worker, orphan = map(int, process.stdout.readline().split())
    return process, worker, orphan


@pytest.mark.parametrize(
    ("mode", "sent", "expected"),
    [
        ("end", None, 3),
        ("polite", signal.SIGTERM, 5),
        ("wait", signal.SIGTERM, 128 + signal.SIGTERM),
        ("wait", signal.SIGINT, 128 + signal.SIGINT),
    ],
)
def test_the_programs_end_is_ours_and_its_orphans_end_too(
    mode: str, sent: signal.Signals | None, expected: int
) -> None:
    """Scripts read the exit code, and signals must reach the program; QEMUs must not outlive either."""
    process, worker, orphan = _supervised(mode)
    with process:
        if sent is not None:
            process.send_signal(sent)
        code = process.wait()

    # Python turns SIGINT into KeyboardInterrupt and ends by that signal
    assert code == expected
    assert not _alive(worker)
    assert not _alive(orphan)


def test_orphans_of_a_killed_program_are_killed() -> None:
    """kill -9 leaves the program no chance to clean up."""
    process, worker, orphan = _supervised("wait")
    with process:
        os.kill(worker, signal.SIGKILL)
        assert process.wait() == 128 + signal.SIGKILL

    assert not _alive(orphan)


def test_everything_ends_when_the_caller_is_killed() -> None:
    """A closed terminal or a killed test run must leave no guest behind."""
    process, worker, orphan = _supervised("wait")
    with process:
        process.kill()

        eventually("program and orphan end", lambda: not _alive(worker) and not _alive(orphan))


def test_a_program_that_cannot_start_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    """A missing libvirtd must not look like one that hangs."""
    with Reaper(["/does/not/exist"]) as reaper:
        assert eventually("the end", lambda: reaper.poll() is not None)
        assert reaper.poll() == 127

    assert "/does/not/exist: No such file or directory" in capfd.readouterr().err


@pytest.mark.parametrize("comes_back", [True, False])
def test_an_outage_ends_the_program_alone(comes_back: bool, tmp_path: Path) -> None:
    """Tests of a crashed libvirt would find its guests gone too, or leave them behind at the end."""
    output = tmp_path / "output"
    with output.open("wb") as file:
        argv = [sys.executable, "-c", _WORKER, "wait"]
        with Reaper(argv, output=file.fileno(), new_session=True, outages=True) as reaper:
            worker, orphan = eventually("it runs", lambda: _numbers(output)[:2])
            os.kill(reaper.pid, signal.SIGUSR1)
            eventually("the program ends", lambda: not _alive(worker))
            assert _alive(orphan)
            pids = [orphan]
            if comes_back:
                os.kill(reaper.pid, signal.SIGUSR2)
                pids += eventually("it is back", lambda: _numbers(output)[2:4])
                assert all(map(_alive, pids))
    assert not any(map(_alive, pids))


def _numbers(output: Path) -> list[int]:
    """Process ids of the programs that have said both of theirs."""
    return [
        int(word)
        for line in output.read_text().splitlines(True)
        if line.endswith("\n")
        for word in line.split()
    ]
