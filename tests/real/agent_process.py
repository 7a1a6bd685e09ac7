"""An agent in a process of its own, as an administrator runs it; it ends with its test."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from tests.waiting import PATIENCE_S, eventually
from vmpack.errors import UnavailableError
from vmpack.host.client import AgentClient
from vmpack.lab.lab import LabGuest
from vmpack.units import KIB

QUICK = "[offer]\nreaction_s = 1\n[memory]\ninterval_s = 0.5\ncalm_s = 1\nshrink_step_ratio = 1\n"
"""Decides often and shrinks at once: tests need not wait for calm."""


class AgentProcess:
    """`vmpack agent` (or another program) on a lab, with its directories under one folder."""

    def __init__(
        self, folder: Path, uri: str, *options: str, config: str = QUICK, **environment: str
    ) -> None:
        self.run_dir, self.state_dir = folder / "run", folder / "state"
        self.config_path, self.log_path = folder / "vmpack.toml", folder / "log"
        self.config_path.write_text(config)
        self.client = AgentClient(self.run_dir / "agent.sock")
        self._argv = [sys.executable, "-m", "vmpack.cli.main", "agent", "--connect", uri]
        self._argv += ["--config", str(self.config_path)]
        self._argv += ["--run-dir", str(self.run_dir), "--state-dir", str(self.state_dir), *options]
        self._environment = environment
        self.process = self._start()

    def __enter__(self) -> AgentProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        with self.log_path.open("ab") as log:
            environment = os.environ | self._environment
            return subprocess.Popen(
                self._argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment
            )

    def restart(self) -> None:
        """Start it again with the same words, after it ended."""
        self.process = self._start()

    @property
    def log(self) -> str:
        """All that it and its forerunners printed."""
        return self.log_path.read_text()

    def ready(self) -> None:
        """Wait until the first interval went through."""
        eventually(f"the agent works; it says:\n{self.log}", lambda: self.intervals() > 0)

    def intervals(self) -> int:
        """How many intervals went through; 0 while nobody answers."""
        assert self.process.poll() is None, self.log
        try:
            interval = self.client.status().interval
        except UnavailableError:
            return 0
        return interval.number if interval else 0

    def pass_intervals(self, count: int) -> None:
        """Wait until so many more have gone through."""
        goal = self.intervals() + count
        eventually(f"{count} more intervals", lambda: self.intervals() >= goal)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to stop, and return its exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)


def balloon_bytes(guest: LabGuest) -> int:
    """What the guest has now, asked of libvirt and not of vmpack."""
    return int(guest.domain.memoryStats()["actual"]) * KIB


def nominal_bytes(guest: LabGuest) -> int:
    """What the guest was promised."""
    return int(guest.domain.maxMemory()) * KIB


def packed(guest: LabGuest) -> bool:
    """Has the balloon taken a good part of the guest's memory?"""
    return balloon_bytes(guest) <= nominal_bytes(guest) * 0.92


def whole(guest: LabGuest) -> bool:
    """Does the guest have all that it was promised, as far as a balloon is exact?"""
    return nominal_bytes(guest) - balloon_bytes(guest) <= 64 * KIB


def make_whole(guest: LabGuest) -> None:
    """End the guest's loads and give it all that it was promised, past any agent."""
    guest.control.free()
    guest.domain.setMemory(nominal_bytes(guest) // KIB)
    eventually(f"{guest.name} is whole", lambda: whole(guest))


def stats_period_set(guest: LabGuest) -> bool:
    """Does the guest's balloon driver report by itself?"""
    return "<stats period=" in guest.domain.XMLDesc(0)
