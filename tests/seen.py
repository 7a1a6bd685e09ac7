"""Short ways to write what a memory policy is shown; sizes in MiB, as people think of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from vmpack.replay.facts import DrawFacts
from vmpack.replay.policy import Bytes, Policy, Seen
from vmpack.units import MIB

NEVER_S = float("nan")


def in_bytes(mib: Sequence[float]) -> Bytes:
    """MiB as the policies' arrays."""
    return (np.array(mib) * MIB).astype(np.int64)


def seen(
    nominal: Sequence[float],
    balloon: Sequence[float],
    *,
    unused: Sequence[float],
    caches: Sequence[float] | None = None,
    kernel: float = 0,
    capacity: float = 10_240,
    host_available: float = 10_240,
    time_s: float = 0,
    silent: Sequence[int] = (),
    committed: Sequence[float] | None = None,
) -> Seen:
    """Fresh reports of VMs whose MemTotal is `kernel` below the balloon; those in `silent` never reported."""
    nothing = in_bytes([0] * len(nominal))
    caches_bytes = nothing if caches is None else in_bytes(caches)
    return Seen(
        time_s=time_s,
        nominal_bytes=in_bytes(nominal),
        balloon_bytes=in_bytes(balloon),
        sampled_s=np.array([NEVER_S if vm in silent else time_s for vm in range(len(nominal))]),
        sampled_balloon_bytes=in_bytes(balloon),
        available_bytes=in_bytes([vm - kernel for vm in balloon]),
        usable_bytes=in_bytes(unused) + caches_bytes,
        unused_bytes=in_bytes(unused),
        caches_bytes=caches_bytes,
        swap_in_bytes=nothing,
        major_faults=nothing,
        capacity_bytes=int(capacity * MIB),
        host_available_bytes=int(host_available * MIB),
        committed_bytes=None if committed is None else in_bytes(committed),
    )


def made_for(first: Seen, factory: Callable[[DrawFacts], Policy], step_s: float = 10.0) -> Policy:
    """A policy for the host that it is about to see."""
    nobody_knows = np.zeros((0, len(first.nominal_bytes)), dtype=np.int64)
    return factory(DrawFacts(first.nominal_bytes, first.capacity_bytes, step_s, nobody_knows))


def targets(factory: Callable[[DrawFacts], Policy], *moments: Seen, step_s: float = 10.0) -> list[float]:
    """What a new policy answers, in MiB, at the last of these moments."""
    policy = made_for(moments[0], factory, step_s)
    for moment in moments:
        answer = policy.decide(moment)
    return [float(each) for each in answer / MIB]
