"""The scene that every fault meets: in the first interval one guest grows, one pays for it, one is new.

`hungry` needs more than its balloon, `idle` has what is not used, `fresh` reports no statistics yet. The
pretended host is so small that the grow can be paid only by the shrink.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.faults.injector import Fault, Passage, read_trace
from tests.real.agent_process import AgentProcess, balloon_bytes, nominal_bytes, stats_period_set, whole
from tests.waiting import eventually
from vmpack.lab.guest_spec import GuestSpec
from vmpack.lab.lab import Lab, LabGuest
from vmpack.units import KIB, MIB

RESERVE_BYTES = 16 * MIB
SPARE_BYTES = 6 * MIB
"""What is free at first: less than the grow costs."""
SQUEEZED_BYTES = 120 * MIB
LOAD_BYTES = 40 * MIB
SPECS = (
    GuestSpec("hungry", memory_bytes=160 * MIB),
    GuestSpec("idle", memory_bytes=160 * MIB),
    GuestSpec("fresh", memory_bytes=128 * MIB),
)
RULES = f"""\
[memory]
interval_s = 0.5
calm_s = 0
shrink_step_ratio = 1
[host]
reserve_ratio = 0
reserve_min_bytes = {RESERVE_BYTES}
"""
REPOSITORY = Path(__file__).parents[2]


class FaultyAgent(AgentProcess):
    """The agent with a fault put in; without one (or after `restart_sound`) its calls are only noted."""

    def __init__(self, folder: Path, uri: str, fault: Fault, config: str) -> None:
        self._folder = folder
        self._fault = fault
        self.trace_path = folder / "trace"
        super().__init__(folder, uri, config=config, module="tests.faults.main")

    def _start(self) -> subprocess.Popen[bytes]:
        with self.log_path.open("ab") as log:
            stream = os.fstat(log.fileno())
            self._environment |= {
                "JOURNAL_STREAM": f"{stream.st_dev}:{stream.st_ino}",
                "NOTIFY_SOCKET": str(self._folder / "nobody-listens"),
                "PYTHONPATH": f"{REPOSITORY}:{os.environ.get('PYTHONPATH', '')}",
                "VMPACK_FAULT": self._fault.as_text(),
                "VMPACK_FAULT_FOLDER": str(self._folder),
                "VMPACK_TRACE": str(self.trace_path),
            }
        return super()._start()

    def restart_sound(self) -> None:
        """Start it again on the same directories, without the fault."""
        self._fault = Fault()
        self.restart()

    @property
    def trace(self) -> list[Passage]:
        """Every call that was reached since the first agent of this folder."""
        return read_trace(self.trace_path)

    @property
    def complaints(self) -> list[str]:
        """Its warnings and errors, one a line, without the level."""
        return [line[3:] for line in self.log.splitlines() if line.startswith(("<3>", "<4>"))]


class Scene:
    """The three guests, put back into their places before each fault."""

    def __init__(self, lab: Lab, guests: list[LabGuest], folder: Path) -> None:
        self.lab = lab
        self.guests = guests
        self.hungry, self.idle, self.fresh = guests
        self.hungry.control.load_tmpfs(LOAD_BYTES)
        eventually("the load is there", lambda: self.hungry.control.progress()[0].state == "done")
        self.set()
        self.host_bytes = RESERVE_BYTES + SPARE_BYTES + self.held_bytes() + self._overhead_bytes(folder)

    @property
    def config(self) -> str:
        """Of a host that is full."""
        return RULES + f"memory_bytes = {self.host_bytes}\n"

    def agent(self, folder: Path, fault: Fault) -> FaultyAgent:
        """An agent on this scene."""
        return FaultyAgent(folder, self.lab.uri, fault, self.config)

    def held_bytes(self) -> int:
        """All balloons together."""
        return sum(balloon_bytes(guest) for guest in self.guests)

    def set(self) -> None:
        """Everything as every agent shall find it."""
        for guest, size_bytes in zip(self.guests, (SQUEEZED_BYTES, 160 * MIB, 128 * MIB), strict=True):
            guest.domain.setMemory(size_bytes // KIB)
        self.fresh.domain.setMemoryStatsPeriod(0)
        for guest in (self.hungry, self.idle):
            guest.domain.setMemoryStatsPeriod(1)
        eventually("the hungry guest is squeezed", lambda: balloon_bytes(self.hungry) <= SQUEEZED_BYTES)
        eventually("the others are whole", lambda: whole(self.idle) and whole(self.fresh))
        for guest in (self.hungry, self.idle):
            available = (balloon_bytes(guest) - 40 * MIB) // KIB, (balloon_bytes(guest) - 30 * MIB) // KIB
            eventually(
                f"{guest.name} has reported since",
                lambda guest=guest, span=available: (
                    span[0] <= guest.domain.memoryStats()["available"] <= span[1]
                ),
            )

    def is_given_back(self) -> bool:
        """Has every guest its nominal memory?"""
        return all(whole(guest) for guest in self.guests)

    def periods(self) -> list[bool]:
        """Which guests report by themselves."""
        return [stats_period_set(guest) for guest in self.guests]

    def _overhead_bytes(self, folder: Path) -> int:
        with AgentProcess(folder, self.lab.uri, "--observe", config=RULES) as agent:
            agent.ready()
            agent.pass_turns(2)
            interval = agent.client.status().interval
            assert interval is not None
            return interval.plan.budget.overhead_bytes


def nominals(guests: list[LabGuest]) -> dict[str, int]:
    """What each guest was promised, in bytes."""
    return {guest.name: nominal_bytes(guest) for guest in guests}
