"""How a program around a loop takes its signals, as a real process."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.waiting import PATIENCE_S, eventually

PROGRAM = """
import signal, sys, threading
from vmpack.host.stop_signals import StopSignals

stopped, over = threading.Event(), threading.Event()
# Whoever runs the tests may ignore it.
signal.signal(signal.SIGHUP, signal.SIG_IGN if "nohup" in sys.argv else signal.SIG_DFL)
reload = (lambda: print("reloaded", flush=True)) if "reload" in sys.argv else None
def stop():
    print("stopped", flush=True)
    stopped.set()
with StopSignals(stay_ignored=() if reload else (signal.SIGHUP,)) as signals:
    signals.watch(stop, "all stays", reload)
    print("begun", flush=True)
    stopped.wait()
    if "hangs" in sys.argv:
        over.wait()
    sys.exit(signals.exit_code("badly" not in sys.argv))
"""


class Program:
    """The program, told to do this; what it prints goes to files."""

    def __init__(self, folder: Path, *words: str) -> None:
        self._out, self._err = folder / "out", folder / "err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            argv = [sys.executable, "-c", PROGRAM, *words]
            self._process = subprocess.Popen(argv, stdout=out, stderr=err)
        self._read = 0

    def says(self, line: str) -> None:
        """Wait for the next line that it prints."""
        found = eventually(f"it says {line}", lambda: self._out.read_text().splitlines()[self._read :])
        self._read += 1
        assert found[0] == line

    def gets(self, number: signal.Signals) -> None:
        """Send it this."""
        self._process.send_signal(number)

    def end(self) -> tuple[int, str]:
        """Its exit code, and what it said on stderr."""
        return self._process.wait(PATIENCE_S), self._err.read_text()

    def kill(self) -> None:
        """Whatever it does."""
        self._process.kill()
        self._process.wait()


Start = Callable[..., Program]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """`start(*words)`; the program ends with its test."""
    started: list[Program] = []

    def begin(*words: str) -> Program:
        program = Program(tmp_path, *words)
        started.append(program)
        program.says("begun")
        return program

    yield begin
    for program in started:
        program.kill()


@pytest.mark.parametrize(
    ("number", "words", "code"),
    [
        (signal.SIGTERM, (), 0),
        (signal.SIGINT, (), 130),
        (signal.SIGHUP, (), 0),
        (signal.SIGPIPE, (), 0),
        (signal.SIGTERM, ("badly",), 1),
        (signal.SIGINT, ("badly",), 130),
    ],
)
def test_the_first_one_stops(number: signal.Signals, words: tuple[str, ...], code: int, start: Start) -> None:
    """Service managers and shells go by the code; an agent that a signal kills gives nothing back."""
    program = start(*words)
    program.gets(number)
    program.says("stopped")

    assert program.end()[0] == code


@pytest.mark.parametrize(("second", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_second_one_ends_it_at_once(second: signal.Signals, code: int, start: Start) -> None:
    """Who is in a hurry must not be left with SIGKILL alone, nor without a word on what stays."""
    program = start("hangs")
    program.gets(signal.SIGTERM)
    program.says("stopped")
    program.gets(second)

    assert program.end() == (code, "stopped at once: all stays until `vmpack release --all`\n")


def test_a_terminal_that_goes_too_does_not_cut_the_end_short(start: Start) -> None:
    """Ctrl-C and then a closed window must still give everything back."""
    program = start("hangs")
    program.gets(signal.SIGINT)
    program.says("stopped")
    for number in (signal.SIGHUP, signal.SIGPIPE, signal.SIGTERM):
        program.gets(number)

    assert program.end()[0] == 143


def test_a_reload_is_no_stop(start: Start) -> None:
    """`systemctl reload` would give all memory back."""
    program = start("reload")
    for _ in range(2):
        program.gets(signal.SIGHUP)
        program.says("reloaded")
    program.gets(signal.SIGTERM)
    program.says("stopped")

    assert program.end()[0] == 0


def test_what_its_starter_ignores_stays_ignored(start: Start) -> None:
    """Who says nohup wants it to go on."""
    program = start("nohup")
    program.gets(signal.SIGHUP)
    program.gets(signal.SIGINT)
    program.says("stopped")

    assert program.end()[0] == 130
