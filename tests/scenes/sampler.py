"""Balloons as libvirt tells them, several times a second, beside the agent that moves them."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import libvirt

from vmpack.lab.lab import LabGuest
from vmpack.units import KIB

PERIOD_S = 0.5
"""Each look keeps the VM from answering the agent for a moment."""


@dataclass(frozen=True, slots=True)
class Sample:
    """All balloons at nearly one moment, in bytes by guest."""

    time_s: float
    balloons: dict[str, int]


class BalloonSampler:
    """Asks libvirt, not vmpack, until it is stopped."""

    def __init__(self, guests: Sequence[LabGuest]) -> None:
        self.samples: list[Sample] = []
        self._domains = {guest.name: guest.domain for guest in guests}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="balloon-sampler", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End it, and wait until it has ended."""
        self._stopped.set()
        self._thread.join()

    def watch(self, guest: LabGuest) -> None:
        """Sample this one too from now on."""
        self._domains = {**self._domains, guest.name: guest.domain}

    def forget(self, name: str) -> None:
        """Sample this one no more."""
        self._domains = {other: domain for other, domain in self._domains.items() if other != name}

    def _run(self) -> None:
        while not self._stopped.wait(PERIOD_S):
            domains, balloons = self._domains, {}
            started_s = time.monotonic()
            for name, domain in domains.items():
                try:
                    balloons[name] = int(domain.memoryStats()["actual"]) * KIB
                except (libvirt.libvirtError, KeyError):
                    continue
            if balloons.keys() == domains.keys():
                self.samples.append(Sample(started_s, balloons))
