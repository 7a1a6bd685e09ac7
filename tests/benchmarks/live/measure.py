"""What a policy did to real guests: balloons, swap and resident memory twice a second, and their sums."""

from __future__ import annotations

import threading
import time
from bisect import bisect_right
from collections.abc import Mapping, Sequence
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
AT_LIMIT_BYTES = 32 * MIB
"""A guest with more than this above what it holds is not held up by memory: it lacks CPU time to take it."""
GB = 10**9

Held = Mapping[str, Sequence[tuple[float, int]]]
"""By guest, what it held of its needs by its own word: the course's seconds and bytes, oldest first."""


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
    """What guests were told to need, and use by themselves, above their balloons, while what they hold
    fills these: 10^9 bytes x seconds."""
    short_vm_s: float
    late_gbs: float
    """What guests were told to need and did not hold, for whatever reason: 10^9 bytes x seconds."""
    swap_in_mib: float
    host_over_s: float
    """Resident memory of the guests above the host's."""


def sums(samples: Sequence[Sample], held: Held, host: FullHost, course: Course) -> Sums:
    """Add up the samples that lie in the course."""
    scored = [sample for sample in samples if 0 <= sample.time_s <= course.length_s]
    nominal = host.nominal_bytes * len(host.guests)
    ratio = short_bytes_s = short_s = late_bytes_s = over_s = 0.0
    for sample, following in pairwise(scored):
        passed_s = following.time_s - sample.time_s
        ratio += passed_s * sum(sample.balloon_bytes.values()) / nominal
        for name in course.changes:
            need, own = course.need_bytes(name, sample.time_s), host.own_bytes[name]
            has, balloon = held_bytes(held[name], sample.time_s), sample.balloon_bytes[name]
            late_bytes_s += passed_s * max(0, need - has)
            short = own + need - balloon
            if short > SHORT_BYTES and own + has > balloon - AT_LIMIT_BYTES:
                short_bytes_s += passed_s * short
                short_s += passed_s
        if sample.resident_bytes > host.room_bytes + OVER_BYTES:
            over_s += passed_s
    whole_s = scored[-1].time_s - scored[0].time_s
    return Sums(
        round(ratio / whole_s, 4),
        round(short_bytes_s / GB, 3),
        round(short_s, 1),
        round(late_bytes_s / GB, 3),
        round((scored[-1].swapped_in_bytes - scored[0].swapped_in_bytes) / MIB, 1),
        round(over_s, 1),
    )


def held_bytes(told: Sequence[tuple[float, int]], time_s: float) -> int:
    """What a guest held when it was last heard of; nothing before."""
    place = bisect_right(told, time_s, key=lambda entry: entry[0])
    return told[place - 1][1] if place else 0
