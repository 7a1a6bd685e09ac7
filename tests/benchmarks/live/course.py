"""The course of needs that every policy of the live benchmark is put through: data, made from a seed.

Two guests idle, one needs steadily more, two swap roles, one has bursts, one gives back. Needs are anonymous
memory on top of what a guest uses by itself; times are seconds of the course, before 0 is its warm-up.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vmpack.units import MIB

START_RATE_BYTES_PER_S = 40 * MIB
"""How fast a guest takes what it has from the beginning, or takes again what was killed."""


@dataclass(frozen=True, slots=True)
class Change:
    """From `at_s` on a guest needs this much: up at a rate, down at once."""

    at_s: float
    need_bytes: int
    rate_bytes_per_s: int = START_RATE_BYTES_PER_S


@dataclass(frozen=True, slots=True)
class Course:
    """What each guest needs when. Begins with a warm-up, which is not scored."""

    changes: Mapping[str, Sequence[Change]]
    """By guest, the first one at the beginning of the warm-up."""
    warm_up_s: float
    length_s: float

    def need_bytes(self, name: str, time_s: float) -> int:
        """What this guest was told to need by then."""
        return need_bytes(self.changes[name], time_s)

    def peak_bytes(self) -> int:
        """The most that all guests together are told to need at one moment."""
        times = range(int(self.length_s))
        return max(sum(self.need_bytes(name, float(time_s)) for name in self.changes) for time_s in times)


def course(seed: int, nominal_bytes: int) -> Course:
    """Seven guests of this nominal that need at most 0.53 of it each; the seed moves all by a tenth."""
    rng = random.Random(seed)

    def size(ratio: float) -> int:
        return int(nominal_bytes * ratio * rng.uniform(0.9, 1.1)) // MIB * MIB

    def at(time_s: float) -> float:
        return time_s + rng.uniform(-4, 4)

    def rate(mib_per_s: float) -> int:
        return int(mib_per_s * rng.uniform(0.9, 1.1) * MIB)

    some, more, role, calm, burst, given = (size(ratio) for ratio in (0.10, 0.48, 0.48, 0.06, 0.28, 0.36))
    swap_s, first_s, second_s = at(40), at(25), at(82)
    warm_up_s = 45.0
    changes = {
        "idle1": [Change(-warm_up_s, 0)],
        "idle2": [Change(-warm_up_s, 0)],
        "rising": [Change(-warm_up_s, some), Change(at(12), more, rate(10))],
        "leaving": [Change(-warm_up_s, role), Change(swap_s, 0)],
        "coming": [Change(-warm_up_s, 0), Change(swap_s + 2, role, rate(20))],
        "bursts": [
            Change(-warm_up_s, calm),
            Change(first_s, calm + burst, rate(30)),
            Change(first_s + 20, calm),
            Change(second_s, calm + burst, rate(30)),
            Change(second_s + 15, calm),
        ],
        "giving": [Change(-warm_up_s, given), Change(at(62), size(0.05))],
    }
    return Course(changes, warm_up_s, length_s=110.0)


def need_bytes(changes: Sequence[Change], time_s: float) -> int:
    """What a guest with these changes was told to need by then."""
    need = 0
    for change, following in zip(changes, [*changes[1:], None], strict=True):
        if time_s < change.at_s:
            break
        until_s = time_s if following is None else min(time_s, following.at_s)
        if change.need_bytes <= need:
            need = change.need_bytes
        else:
            risen = int((until_s - change.at_s) * change.rate_bytes_per_s)
            need = min(change.need_bytes, need + risen)
    return need
