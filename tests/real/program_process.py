"""A program of vmpack in a process of its own, as an administrator runs it; it ends with its test."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.waiting import PATIENCE_S, eventually

TURN_DEADLINE_S = 20.0
"""Ten times the longest interval that tests have turns in."""


class ProgramProcess(ABC):
    """One program with its configuration, its directories and its log under one folder."""

    def __init__(
        self, folder: Path, module: str, *words: str, config: str, environment: dict[str, str] | None = None
    ) -> None:
        self.run_dir, self.state_dir = folder / "run", folder / "state"
        self.config_path, self.log_path = folder / "vmpack.toml", folder / "log"
        self.config_path.write_text(config)
        self._module = module
        self._words: Sequence[str] = (*words, "--config", str(self.config_path))
        self._environment = environment or {}
        self.process = self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        with self.log_path.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", self._module, *self._words],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=os.environ | self._environment,
            )

    def restart(self) -> None:
        """Start it again with the same words, after it ended."""
        self.process = self._start()

    @property
    def log(self) -> str:
        """All that it and its forerunners printed."""
        return self.log_path.read_text()

    def turns(self) -> int:
        """How many turns of its loop went through; a program that has ended fails the test."""
        assert self.process.poll() is None, self.log
        return self._turns()

    @abstractmethod
    def _turns(self) -> int:
        """The same; 0 while nobody knows."""

    def ready(self) -> None:
        """Wait until the first turn went through."""
        self.wait("it works", lambda: self.turns() > 0)

    def pass_turns(self, count: int) -> None:
        """Wait until so many more have gone through."""
        goal = self.turns() + count
        deadline_s = max(PATIENCE_S, count * TURN_DEADLINE_S)
        self.wait(f"{count} more turns", lambda: self.turns() >= goal, deadline_s)

    def wait(self, what: str, condition: Callable[[], bool], deadline_s: float = PATIENCE_S) -> None:
        """Wait until this is true; where it ends before, the test fails with all that it said."""

        def true() -> bool:
            assert self.process.poll() is None, self.log
            return condition()

        eventually(f"{what}; until now it says:\n{self.log}", true, deadline_s)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to stop, and return its exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)
