"""How a program around a loop takes its signals, as a real process."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from tests.waiting import PATIENCE_S

PROGRAM = """
import signal, sys, threading
from vmpack.host.stop_signals import StopSignals

stopped, over = threading.Event(), threading.Event()
if "nohup" in sys.argv:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
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
    """The program, told to do this."""

    def __init__(self, *words: str) -> None:
        argv = [sys.executable, "-c", PROGRAM, *words]
        self._process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.says("begun")

    def says(self, line: str) -> None:
        """The next line that it prints."""
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == line + "\n"

    def gets(self, number: signal.Signals) -> None:
        """Send it this."""
        self._process.send_signal(number)

    def end(self) -> tuple[int, str]:
        """Its exit code, and what it said on stderr."""
        return self._process.wait(PATIENCE_S), self._process.communicate(timeout=PATIENCE_S)[1]

    def kill(self) -> None:
        """Whatever it does."""
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def start() -> Iterator[type[Program]]:
    """`start(*words)`; each program ends with its test."""
    started: list[Program] = []

    class Started(Program):
        def __init__(self, *words: str) -> None:
            started.append(self)
            super().__init__(*words)

    yield Started
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
def test_the_first_one_stops(
    number: signal.Signals, words: tuple[str, ...], code: int, start: type[Program]
) -> None:
    """Service managers and shells go by the code; an agent that a signal kills gives nothing back."""
    program = start(*words)
    program.gets(number)
    program.says("stopped")

    assert program.end()[0] == code


@pytest.mark.parametrize(("second", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_second_one_ends_it_at_once(second: signal.Signals, code: int, start: type[Program]) -> None:
    """Who is in a hurry must not be left with SIGKILL alone, nor without a word on what stays."""
    program = start("hangs")
    program.gets(signal.SIGTERM)
    program.says("stopped")
    program.gets(second)

    assert program.end() == (code, "stopped at once: all stays until `vmpack release --all`\n")


def test_a_terminal_that_goes_too_does_not_cut_the_end_short(start: type[Program]) -> None:
    """Ctrl-C and then a closed window must still give everything back."""
    program = start("hangs")
    program.gets(signal.SIGINT)
    program.says("stopped")
    for number in (signal.SIGHUP, signal.SIGPIPE, signal.SIGTERM):
        program.gets(number)

    assert program.end()[0] == 143


def test_a_reload_is_no_stop(start: type[Program]) -> None:
    """`systemctl reload` would give all memory back."""
    program = start("reload")
    for _ in range(2):
        program.gets(signal.SIGHUP)
        program.says("reloaded")
    program.gets(signal.SIGTERM)
    program.says("stopped")

    assert program.end()[0] == 0


def test_what_its_starter_ignores_stays_ignored(start: type[Program]) -> None:
    """Who says nohup wants it to go on."""
    program = start("nohup")
    program.gets(signal.SIGHUP)
    program.gets(signal.SIGINT)
    program.says("stopped")

    assert program.end()[0] == 130
