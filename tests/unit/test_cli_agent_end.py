"""How `vmpack agent` and `memory_coordinator` end when their terminal or pipe does, as real processes.

They work on libvirt's own test driver, which has no guests and needs no daemon.
"""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.waiting import PATIENCE_S, eventually

COORDINATOR = ("vmpack.cli.memory_coordinator", "-v", "0.5")
AGENT = ("vmpack.cli.main", "-v", "agent", "--interval", "0.5")
STATE = ("--config", "empty.toml", "--run-dir", "run", "--state-dir", "state")


class Started:
    """A program on a host of its own, with its socket as the sign of life."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pid = 0
        self.status: int | None = None
        (folder / "empty.toml").write_text("")
        (folder / "host.xml").write_text("<node><cpu><mhz>1</mhz><model>x</model></cpu></node>")

    def argv(self, *words: str) -> list[str]:
        """The command line."""
        return [sys.executable, "-m", *words, "--connect", f"test://{self.folder}/host.xml", *STATE]

    def works(self) -> None:
        """Wait until it answers."""
        eventually("the socket is there", (self.folder / "run" / "agent.sock").exists)

    def in_a_terminal(self, *words: str) -> int:
        """Start it as a shell in a terminal does; returns the terminal's other end."""
        self.pid, terminal = pty.fork()
        if self.pid == 0:
            os.chdir(self.folder)
            os.execv(sys.executable, self.argv(*words))
        return terminal

    def end(self) -> int:
        """Wait for its end and return its exit code."""

        def ended() -> bool:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status, self.pid = status, 0
            return bool(pid)

        eventually("it ends", ended)
        assert self.status is not None
        return os.waitstatus_to_exitcode(self.status)


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Started]:
    """Not started yet; killed when the test leaves it running."""
    pytest.importorskip("libvirt", reason="the libvirt module is missing here")
    made = Started(tmp_path)
    yield made
    if made.pid:
        os.kill(made.pid, signal.SIGKILL)
        os.waitpid(made.pid, 0)


@pytest.mark.parametrize("words", [COORDINATOR, AGENT], ids=["memory_coordinator", "agent"])
def test_it_ends_with_its_terminal(words: tuple[str, ...], program: Started) -> None:
    """It would squeeze guests on, unseen, after its administrator closed the window."""
    terminal = program.in_a_terminal(*words)
    program.works()
    os.close(terminal)

    assert program.end() == 0
    assert not (program.folder / "run" / "agent.sock").exists()


@pytest.mark.parametrize("words", [COORDINATOR, AGENT], ids=["memory_coordinator", "agent"])
def test_it_ends_with_its_pipe_and_without_a_traceback(words: tuple[str, ...], program: Started) -> None:
    """`memory_coordinator 5 | head -2` must end after two lines, having given the memory back."""
    errors = program.folder / "errors"
    coordinator = words is COORDINATOR
    with errors.open("wb") as other:
        process = subprocess.Popen(
            program.argv(*words),
            cwd=program.folder,
            stdout=subprocess.PIPE if coordinator else other,
            stderr=other if coordinator else subprocess.PIPE,
        )
        try:
            pipe = process.stdout if coordinator else process.stderr
            assert pipe is not None
            assert b"vmpack" in pipe.readline()
            pipe.close()
            assert process.wait(PATIENCE_S) == 0
        finally:
            process.kill()
            process.wait()

    assert errors.read_text() == ""
    assert not (program.folder / "run" / "agent.sock").exists()


def test_under_nohup_it_outlives_its_terminal(program: Started) -> None:
    """Who says nohup wants it to go on; only an asked end may end it."""
    argv = ["nohup", *program.argv(*COORDINATOR)]
    with (program.folder / "out").open("wb") as out:
        process = subprocess.Popen(argv, cwd=program.folder, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        program.works()
        process.send_signal(signal.SIGHUP)
        said = (program.folder / "out").read_text().count("\n")
        eventually("it goes on", lambda: (program.folder / "out").read_text().count("\n") > said + 1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
    finally:
        process.kill()
        process.wait()
