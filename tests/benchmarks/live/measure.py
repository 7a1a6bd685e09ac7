"""What a policy did to real guests: balloons, swap and resident memory twice a second, and their sums."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from tests.benchmarks.live.course import Course
from tests.benchmarks.live.host import FullHost
from vmpack.units import KIB, MIB

PERIOD_S = 0.5
SHORT_BYTES = 4 * MIB
"""Less than this is no shortage: a guest's own use moves by as much."""
OVER_BYTES = 16 * MIB
"""Resident memory above the host's by less is within the error of measuring it."""
GB = 10**9


@dataclass(frozen=True, slots=True)
class Sample:
    """All guests at nearly one moment, in the course's seconds."""

    time_s: float
    balloon_bytes: Mapping[str, int]
    swapped_in_bytes: int
    resident_bytes: int


class Sampler:
    """Asks libvirt and /proc, until it is stopped; knows nothing of the policy."""

    def __init__(self, host: FullHost, began_s: float) -> None:
        self.samples: list[Sample] = []
        self._host = host
        self._domains = {name: guest.domain for name, guest in host.guests.items()}
        self._began_s = began_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End it, and wait until it has ended."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(PERIOD_S):
            time_s = time.monotonic() - self._began_s
            told = {name: domain.memoryStats() for name, domain in self._domains.items()}
            self.samples.append(
                Sample(
                    time_s,
                    {name: int(stats["actual"]) * KIB for name, stats in told.items()},
                    sum(int(stats.get("swap_in", 0)) for stats in told.values()) * KIB,
                    self._host.resident_bytes(),
                )
            )


@dataclass(frozen=True, slots=True)
class Sums:
    """What was seen from the course's beginning to its end."""

    balloon_ratio_mean: float
    short_gbs: float
    """What guests were told to need, and use by themselves, above their balloons: 10^9 bytes x seconds."""
    short_vm_s: float
    swap_in_mib: float
    host_over_s: float
    """Resident memory of the guests above the host's."""


def sums(samples: list[Sample], host: FullHost, course: Course) -> Sums:
    """Add up the samples that lie in the course."""
    scored = [sample for sample in samples if 0 <= sample.time_s <= course.length_s]
    nominal = host.nominal_bytes * len(host.guests)
    ratio = short_bytes_s = short_s = over_s = 0.0
    for sample, following in pairwise(scored):
        passed_s = following.time_s - sample.time_s
        ratio += passed_s * sum(sample.balloon_bytes.values()) / nominal
        for name in course.changes:
            need = host.own_bytes[name] + course.need_bytes(name, sample.time_s)
            short = need - sample.balloon_bytes[name]
            if short > SHORT_BYTES:
                short_bytes_s += passed_s * short
                short_s += passed_s
        if sample.resident_bytes > host.room_bytes + OVER_BYTES:
            over_s += passed_s
    whole_s = scored[-1].time_s - scored[0].time_s
    return Sums(
        round(ratio / whole_s, 4),
        round(short_bytes_s / GB, 3),
        round(short_s, 1),
        round((scored[-1].swapped_in_bytes - scored[0].swapped_in_bytes) / MIB, 1),
        round(over_s, 1),
    )


def late_gbs(late: list[tuple[float, int]], length_s: float) -> float:
    """By a guest's own word: needed and not held yet, 10^9 bytes x seconds."""
    scored = [(time_s, behind) for time_s, behind in late if 0 <= time_s <= length_s]
    return sum((after[0] - before[0]) * before[1] for before, after in pairwise(scored)) / GB
