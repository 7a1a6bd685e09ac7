"""A host that looks as large as a scene wants it, with a real agent on real guests.

Called by the tests of scenes. The agent runs as its own process; what it did is read from its journal.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType

from tests.real.agent_process import AgentProcess, nominal_bytes, whole
from tests.scenes.sampler import BalloonSampler
from tests.scenes.table import told
from tests.waiting import eventually
from vmpack.lab.guest_spec import GuestSpec
from vmpack.lab.lab import Lab, LabGuest
from vmpack.model.action import SetMemory
from vmpack.model.settings import MemorySettings
from vmpack.observe.process import find_qemus, measured
from vmpack.publish.journal import Header, JournalLine
from vmpack.replay.segments import read_segments
from vmpack.units import KIB, MIB

GUEST_BYTES = 256 * MIB
RESERVE_BYTES = 64 * MIB
USED_BEFORE_BYTES = 120 * MIB
NEARLY_BYTES = 8 * MIB
"""The dead band of such guests."""
SCENE_DEADLINE_S = 240.0
REPORT_PRECISION_S = 1.0
"""Guests' reports carry whole seconds."""
IN_FORCE = "the new configuration is in force"
PANIC = "(usleep 300000; echo c > /proc/sysrq-trigger) > /dev/null 2>&1 &"


class Stage:
    """One agent on guests of the lab."""

    def __init__(
        self, folder: Path, lab: Lab, guests: Sequence[LabGuest], room_bytes: int, pace: str
    ) -> None:
        """`room_bytes` is what the pretended host has for balloons; `pace` are lines of [memory]."""
        self.lab = lab
        self.guests = {guest.name: guest for guest in guests}
        self._marks: list[tuple[float, str]] = []
        self.crashed: set[str] = set()
        self._pace = pace
        self.agent = AgentProcess(folder, lab.uri, config=self._config(room_bytes))
        self.sampler = BalloonSampler(guests)

    def __enter__(self) -> Stage:
        self.agent.ready()
        self.sampler.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sampler.stop()
        self.agent.__exit__(kind, error, trace)

    def mark(self, what: str) -> None:
        """Note what happens from now on, for the table."""
        self._marks.append((time.monotonic(), what))

    def settle(self, still_turns: int = 3) -> None:
        """Wait until every balloon is where it shall be, or near, and nothing has moved for so many turns.

        Turns count once every guest that lives has reported what happened right before.
        """
        still: dict[int, bool] = {}
        since_s = time.monotonic() + REPORT_PRECISION_S

        def is_still() -> bool:
            interval = self.agent.client.status().interval
            assert interval is not None
            balloons = {guest.uuid: guest.balloon_bytes for guest in interval.snapshot.guests}
            off = [
                abs(balloons[plan.uuid] - plan.target_bytes)
                for plan in interval.plan.guests
                if plan.reasons[-1].rule != "within_dead_band"
            ]
            moving = any(isinstance(action, SetMemory) for action in interval.plan.actions)
            reported = all(
                guest.stats is None or guest.stats.sampled_s >= since_s
                for guest in interval.snapshot.guests
                if guest.name not in self.crashed
            )
            still[interval.number] = reported and not moving and max(off, default=0) <= NEARLY_BYTES
            return all(still.get(interval.number - back, False) for back in range(still_turns))

        eventually(f"nothing moves; the agent says:\n{self.agent.log}", is_still, SCENE_DEADLINE_S)

    def loaded(self, names: Iterable[str]) -> bool:
        """True once all loads of these guests hold all that they want, or were killed."""
        return self.load_states(names) <= {"done", "killed"}

    def load_states(self, names: Iterable[str]) -> set[str]:
        """The states that loads of these guests are in."""
        return {load.state for name in names for load in self.guests[name].control.progress()}

    def resize_host(self, room_bytes: int) -> None:
        """Make the host another size, as an administrator does it: configuration and SIGHUP."""
        taken = self.agent.log.count(IN_FORCE)
        self.agent.config_path.write_text(self._config(room_bytes))
        self.agent.process.send_signal(signal.SIGHUP)
        eventually("the agent reads it", lambda: self.agent.log.count(IN_FORCE) > taken)

    def start_guest(self, name: str) -> None:
        """One more VM, ready to work when this returns."""
        (guest,) = self.lab.start(GuestSpec(name, GUEST_BYTES, vcpus=1))
        self.guests[name] = guest
        self.sampler.watch(guest)
        self.lab.wait_ready()

    def end_guest(self, name: str) -> None:
        """End a VM at once."""
        self.sampler.forget(name)
        self.guests.pop(name).destroy()

    def panic(self, name: str) -> None:
        """Crash a guest's kernel; its QEMU stays, and nobody answers any more."""
        self.crashed.add(name)
        self.guests[name].control.run(["sh", "-c", PANIC])

    def oom_kills(self) -> dict[str, int]:
        """Processes that guests' OOM killers have ended since boot, of those that can still be asked."""
        return {
            name: guest.control.oom_kills() for name, guest in self.guests.items() if name not in self.crashed
        }

    def journal(self, since_s: float = 0.0) -> list[JournalLine]:
        """Every interval that began since then (monotonic clock), oldest first."""
        lines = (record for record in self._records() if isinstance(record, JournalLine))
        return [line for line in lines if line.snapshot.time_s >= since_s]

    def settings(self) -> MemorySettings:
        """What the agent decides with, as its journal says."""
        return next(record for record in self._records() if isinstance(record, Header)).settings.memory

    def table(self) -> str:
        """All intervals and what happened, as text."""
        return told(self.journal(), self._marks)

    def _records(self) -> list[object]:
        return list(read_segments(self.agent.state_dir / "journal"))

    def _config(self, room_bytes: int) -> str:
        size = room_bytes + RESERVE_BYTES + overhead(self.guests.values())
        return (
            f"[host]\nmemory_bytes = {size}\nreserve_ratio = 0\nreserve_min_bytes = {RESERVE_BYTES}\n"
            f'[memory]\nfloor_min_bytes = "100MiB"\n{self._pace}'
        )


def overhead(guests: Iterable[LabGuest]) -> int:
    """What the guests' QEMUs use beside the guests' memory, in bytes."""
    proc = Path("/proc")
    processes = find_qemus(proc)
    total = 0
    for guest in guests:
        found = measured(proc, processes[guest.uuid], nominal_bytes(guest))
        assert found is not None, f"{guest.name} cannot be measured"
        total += found.overhead_bytes
    return total


def made_ready(guests: Sequence[LabGuest]) -> None:
    """Full balloons and no loads."""
    for guest in guests:
        guest.control.free()
        guest.domain.setMemory(nominal_bytes(guest) // KIB)
    for guest in guests:
        eventually(f"{guest.name} is whole", lambda guest=guest: whole(guest))


def used_before(guests: Sequence[LabGuest]) -> None:
    """Let every guest use a good part of its memory once and free it, as guests have that ran for a while."""
    for guest in guests:
        guest.control.load_anonymous(USED_BEFORE_BYTES)
    for guest in guests:
        eventually(
            f"{guest.name} has used memory",
            lambda guest=guest: all(load.state == "done" for load in guest.control.progress()),
            SCENE_DEADLINE_S,
        )
        guest.control.free()
