"""Short ways to write what a policy of offers is shown; sizes in MiB, as people think of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tests.seen import in_bytes
from vmpack.replay.grant_policy import GrantFacts, GrantPolicy, GrantSeen
from vmpack.units import MIB


def facts(vms: int = 4, need: Sequence[Sequence[float]] | None = None) -> GrantFacts:
    """Steps of 10 s and a reaction time of 20 s; `need` is known in advance, by step and VM."""
    future = np.zeros((1, vms), dtype=np.int64) if need is None else np.array([in_bytes(row) for row in need])
    return GrantFacts(10.0, 20.0, future)


def seen(
    nominal: Sequence[float],
    need: Sequence[float],
    *,
    own: int | None = None,
    time_s: float = 0,
    for_vms: float = 10_000,
    leaving: Sequence[int] = (),
) -> GrantSeen:
    """A host at one moment; the first `own` VMs are its own, by default all."""
    count = len(nominal)
    gone = np.isin(np.arange(count), leaving)
    vms = np.arange(count)
    mine = count if own is None else own
    return GrantSeen(time_s, vms, in_bytes(nominal), in_bytes(need), gone, mine, int(for_vms * MIB))


def offered_mib(policy: GrantPolicy, moment: GrantSeen) -> float:
    """What is offered, in MiB."""
    return policy.offer(moment).memory_bytes / MIB
