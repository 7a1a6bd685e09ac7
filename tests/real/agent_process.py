"""An agent in a process of its own, as an administrator runs it; it ends with its test."""

from __future__ import annotations

from pathlib import Path

from tests.real.program_process import ProgramProcess
from tests.waiting import eventually
from vmpack.errors import UnavailableError
from vmpack.host.client import AgentClient
from vmpack.lab.lab import LabGuest
from vmpack.units import KIB

QUICK = "[offer]\nreaction_s = 1\n[memory]\ninterval_s = 0.5\ncalm_s = 1\nshrink_step_ratio = 1\n"
"""Decides often and shrinks at once: tests need not wait for calm."""


class AgentProcess(ProgramProcess):
    """`vmpack agent` (or what stands in its place) on a lab."""

    def __init__(
        self,
        folder: Path,
        uri: str,
        *options: str,
        config: str = QUICK,
        module: str = "vmpack.cli.main",
        **environment: str,
    ) -> None:
        directories = ("--run-dir", str(folder / "run"), "--state-dir", str(folder / "state"))
        self.client = AgentClient(folder / "run" / "agent.sock")
        words = ("agent", "--connect", uri, *directories, *options)
        super().__init__(folder, module, *words, config=config, environment=environment)

    def _turns(self) -> int:
        try:
            interval = self.client.status().interval
        except UnavailableError:
            return 0
        return interval.number if interval else 0


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
