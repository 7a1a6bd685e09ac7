"""Generated traces: days of memory use of made-up VMs, the same for the same seed.

Called by `vmpack simulate memory --generate` and by tests. Each kind stands for one way in which use
moves; `mixed` gives each VM one of the others in turn. Levels are shares of a VM's nominal.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vmpack.errors import UsageError
from vmpack.replay.trace import DAY_S, Trace
from vmpack.units import GIB

SLOT_S = 300
_SLOTS_A_DAY = DAY_S // SLOT_S
_SIZES_GIB = (1, 2, 4, 8, 16, 32)

Levels = NDArray[np.float64]
Random = np.random.Generator


def generate(kind: str, vms: int, days: int, seed: int) -> Trace:
    """Make a trace. Raises UsageError for an unknown kind."""
    makers = list(KINDS.values()) if kind == MIXED else [KINDS[kind]] if kind in KINDS else []
    if not makers:
        raise UsageError(f"there is no workload {kind!r}", f"there are {', '.join(kinds())}")
    slots = days * _SLOTS_A_DAY
    everyone = np.random.default_rng([seed, 0])
    shared = _shared_peaks(everyone, days)
    nominal = everyone.choice(np.array(_SIZES_GIB, dtype=np.int64), vms) * GIB
    used = np.empty((vms, slots), dtype=np.int64)
    for vm in range(vms):
        random = np.random.default_rng([seed, 1, vm])
        level = makers[vm % len(makers)](random, slots, shared)
        noise = 1 + 0.01 * random.standard_normal(slots)
        used[vm] = (np.clip(level * noise, 0.01, 0.95) * nominal[vm]).astype(np.int64)
    return Trace(tuple(f"{kind}-{vm:03d}" for vm in range(vms)), nominal, used, SLOT_S)


def kinds() -> tuple[str, ...]:
    """What can be generated."""
    return (*KINDS, MIXED)


def _shared_peaks(random: Random, days: int) -> Levels:
    """Two moments a day at which all VMs of the kind `peaks` rise together, for half an hour each."""
    level = np.zeros(days * _SLOTS_A_DAY)
    hours = random.uniform(0, 24, 2)
    for day in range(days):
        for hour in hours:
            begin = day * _SLOTS_A_DAY + int((hour + random.normal(0, 0.1)) % 24 * 12)
            level[begin : begin + 6] = 1
    return level


def _diurnal(random: Random, slots: int, _shared: Levels) -> Levels:
    """High by day, low by night; each VM has its own hour and height."""
    hour = np.arange(slots) * SLOT_S / 3600
    wave = np.sin((hour - random.normal(9, 2)) * 2 * np.pi / 24)
    low, high = random.uniform(0.05, 0.15), random.uniform(0.2, 0.5)
    return np.asarray(low + (high - low) * np.maximum(wave, 0))


def _bursts(random: Random, slots: int, _shared: Levels) -> Levels:
    """Quiet, with sudden bursts of minutes to an hour, some eight a day."""
    level = np.full(slots, random.uniform(0.04, 0.12))
    for begin in np.flatnonzero(random.random(slots) < 8 / _SLOTS_A_DAY):
        level[begin : begin + 1 + int(random.exponential(3))] += random.uniform(0.1, 0.5)
    return level


def _leaks(random: Random, slots: int, _shared: Levels) -> Levels:
    """Rises slowly until a restart, every half day to three days."""
    period = int(random.uniform(0.5, 3) * _SLOTS_A_DAY)
    low, high = random.uniform(0.05, 0.1), random.uniform(0.3, 0.8)
    return low + (high - low) * ((np.arange(slots) + random.integers(period)) % period) / period


def _batch(random: Random, slots: int, _shared: Levels) -> Levels:
    """One job at about the same hour each day: hours long, and large."""
    level = np.full(slots, random.uniform(0.03, 0.08))
    hour, height = random.uniform(0, 24), random.uniform(0.3, 0.8)
    for day in range(-(-slots // _SLOTS_A_DAY)):
        begin = day * _SLOTS_A_DAY + int((hour + random.normal(0, 0.2)) % 24 * 12)
        level[begin : begin + int(random.uniform(12, 48))] += height
    return level


def _peaks(random: Random, slots: int, shared: Levels) -> Levels:
    """Quiet, but all of them rise at the same moment: what statistics over VMs cannot smooth."""
    return random.uniform(0.05, 0.15) + random.uniform(0.1, 0.35) * shared[:slots]


MIXED = "mixed"
KINDS: dict[str, Callable[[Random, int, Levels], Levels]] = {
    "diurnal": _diurnal,
    "bursts": _bursts,
    "leaks": _leaks,
    "batch": _batch,
    "peaks": _peaks,
}
