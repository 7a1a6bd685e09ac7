"""The embedded lab, each time in a process of its own below the reaper."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import eventually
from vmpack.lab.daemon import leftovers
from vmpack.lab.state import StateFolder
from vmpack.units import MIB

_ROOT = Path(__file__).parents[2]
_SUPERVISE = (
    "import sys; from vmpack.lab.supervise import supervise; "
    "sys.exit(supervise([sys.executable, '-m', 'tests.real.embedded_worker', sys.argv[1]]))"
)


def _start(mode: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _SUPERVISE, mode], cwd=_ROOT, stdout=subprocess.PIPE, text=True
    )


def _first_line(process: subprocess.Popen[str]) -> dict[str, object]:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, f"the worker ended with {process.wait()}"
    return dict(json.loads(line))


def _children(pid: int) -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue
        if int(parent) == pid:
            found.append(int(process.name))
    return found


@pytest.mark.long
def test_ballooning_gives_host_memory_back() -> None:
    """All of vmpack rests on this: what a guest used and freed comes back to the host by ballooning."""
    with _start("balloon") as process:
        answer = _first_line(process)

    assert process.returncode == 0
    assert answer["used"] - answer["ballooned"] > 60 * MIB
    assert answer["available"] < 160 * MIB
    assert not Path(f"/proc/{answer['pid']}").exists()
    assert not Path(str(answer["root"])).exists()


def test_a_killed_program_leaves_no_guest() -> None:
    """A crashed demo or test must not leave guests that eat the machine's memory unseen."""
    with _start("hang") as process:
        answer = _first_line(process)
        (reaper,) = _children(process.pid)
        worker = next(pid for pid in _children(reaper) if pid != answer["pid"])
        os.kill(worker, signal.SIGKILL)

        assert process.wait() == 128 + signal.SIGKILL
    assert leftovers(StateFolder(Path(str(answer["root"])))) == []


@pytest.mark.long
def test_a_killed_starter_takes_program_and_guests_along() -> None:
    """Closing a terminal or kill -9 hits the outermost process first; nothing below may live on."""
    with _start("hang") as process:
        answer = _first_line(process)
        (reaper,) = _children(process.pid)
        process.kill()

        eventually("the reaper ends", lambda: not Path(f"/proc/{reaper}").exists())
    assert leftovers(StateFolder(Path(str(answer["root"])))) == []


def test_ctrl_c_ends_the_program_in_order() -> None:
    """Ctrl-C is how people end a demo: guests must be gone and the exit code must be 130."""
    with _start("hang") as process:
        answer = _first_line(process)
        process.send_signal(signal.SIGINT)

        assert process.wait() == 128 + signal.SIGINT
    assert leftovers(StateFolder(Path(str(answer["root"])))) == []
    assert not Path(str(answer["root"])).exists()
