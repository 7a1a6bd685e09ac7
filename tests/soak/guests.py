"""The guests of a soak and what is done to them."""

from __future__ import annotations

import random
import uuid
from pathlib import Path

from tests.soak.churn import GUESTS
from vmpack.errors import VmpackError
from vmpack.hypervisor import translated
from vmpack.lab.guest_spec import GuestSpec
from vmpack.lab.lab import Lab, LabGuest
from vmpack.units import MIB

RATE_BYTES_PER_S = 2 * MIB
"""How fast a need rises: what a headroom of 48 MiB holds for several intervals."""
LARGEST_NEED_RATIO = 0.3
"""Of a guest's nominal, beside what it uses when idle."""


def specs(seed: int) -> tuple[GuestSpec, ...]:
    """The guests, each with the same uuid in every life; the last one deflates its balloon by itself."""
    dice = random.Random(seed)
    return tuple(
        GuestSpec(
            f"soak{number}",
            memory_bytes=(192 if number % 2 else 160) * MIB,
            vcpus=1,
            autodeflate=number == GUESTS - 1,
            uuid=str(uuid.UUID(int=dice.getrandbits(128), version=4)),
        )
        for number in range(GUESTS)
    )


class SoakGuests:
    """The guests, those that run and those that do not. Not for several threads."""

    def __init__(self, lab: Lab, seed: int) -> None:
        self._lab = lab
        self._specs = specs(seed)
        self._running: dict[int, LabGuest] = {}
        self._held_bytes: dict[int, int] = {}
        self._ended_kills = 0
        self._kills: dict[int, int] = {}
        self.silences: list[str] = []
        """Guests that did not answer, and when asked for what."""

    @property
    def running(self) -> list[LabGuest]:
        """Those that run now."""
        return list(self._running.values())

    @property
    def stopped(self) -> list[int]:
        """Numbers of those that do not run now."""
        return [number for number in range(GUESTS) if number not in self._running]

    def nominal_bytes(self, number: int) -> int:
        """What a guest is promised."""
        return self._specs[number].memory_bytes

    def start(self, *numbers: int) -> None:
        """Start guests and wait until they have booted."""
        guests = self._lab.start(*(self._specs[number] for number in numbers))
        for number, guest in zip(numbers, guests, strict=True):
            self._running[number] = guest
            self._held_bytes[number] = 0
        self._lab.wait_ready()

    def stop(self, number: int) -> None:
        """End a guest as a power cut would."""
        self._count_kills(number)
        self._running.pop(number).destroy()
        self._ended_kills += self._kills.pop(number, 0)

    def rise_bytes(self, number: int, ratio: float) -> int:
        """By how much `change_need` would raise this guest's need; 0 for one that does not run."""
        if number not in self._running:
            return 0
        return max(0, self._wanted_bytes(number, ratio) - self._held_bytes[number])

    def change_need(self, number: int, ratio: float) -> None:
        """Let a running guest hold this part of its largest need: up at a rate, down at once."""
        control, wanted = self._running[number].control, self._wanted_bytes(number, ratio)
        held = self._held_bytes[number]
        if wanted < held or any(load.state != "done" for load in control.progress()):
            control.free()
            held = 0
        if wanted > held:
            load = control.load_tmpfs if number == 0 else control.load_anonymous
            load(wanted - held, RATE_BYTES_PER_S)
        self._held_bytes[number] = wanted

    def outstanding_bytes(self) -> int:
        """What the guests' needs still have to rise."""
        loads = [load for guest in self.running for load in guest.control.progress()]
        return sum(load.wanted_bytes - load.held_bytes for load in loads if load.state != "killed")

    def suspend(self, number: int) -> None:
        """Stop a guest's CPUs."""
        with translated("pause a guest"):
            self._running[number].domain.suspend()

    def resume(self, number: int) -> None:
        """Let a suspended guest go on."""
        with translated("resume a guest"):
            self._running[number].domain.resume()

    def save(self, number: int, path: Path) -> None:
        """Write a guest to a file; it is gone until it is restored."""
        with translated("save a guest"):
            self._running[number].domain.save(str(path))

    def restore(self, path: Path) -> None:
        """Bring a saved guest back and delete the file."""
        with translated("restore a guest"):
            self._lab.hypervisor.connection().restore(str(path))
        path.unlink()

    def kills(self) -> int:
        """Processes that the guests' own OOM killers have ended, in all lives."""
        for number in list(self._running):
            self._count_kills(number)
        return self._ended_kills + sum(self._kills.values())

    def rss_bytes(self) -> int:
        """Host memory that all QEMUs hold."""
        return sum(guest.rss_bytes() for guest in self.running)

    def _wanted_bytes(self, number: int, ratio: float) -> int:
        return int(ratio * LARGEST_NEED_RATIO * self.nominal_bytes(number)) // MIB * MIB

    def _count_kills(self, number: int) -> None:
        guest = self._running[number]
        try:
            self._kills[number] = guest.control.oom_kills()
        except VmpackError as error:
            self.silences.append(f"{guest.name}: {error}")
