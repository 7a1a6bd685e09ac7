"""When the host itself runs short of memory: comfort gives way at once, and nothing more is offered.

The host's own death is the worst outcome: QEMU killed by the host costs every VM that it ran.
"""

from __future__ import annotations

from vmpack.model.host import HostSnapshot
from vmpack.model.plan import Reason
from vmpack.model.settings import HostSettings

STALLED_RATIO = 0.10
"""All tasks of the host waited for memory for this share of the last ten seconds."""


def reserve_bytes(capacity_bytes: int, settings: HostSettings) -> int:
    """Memory of a host of this size that is never given to VMs."""
    return max(settings.reserve_min_bytes, int(settings.reserve_ratio * capacity_bytes))


def brake(host: HostSnapshot, settings: HostSettings) -> Reason | None:
    """Why the host must be relieved now, or None.

    Half of the real reserve is eaten; or everything stalls while no more than two reserves are left: one job
    that thrashes in its own limit stalls the rest of an idle host too.
    """
    reserve = reserve_bytes(host.memory_total_bytes, settings)
    stalled = 0.0 if host.pressure is None else host.pressure.full_avg10_ratio
    available = host.memory_available_bytes
    if 2 * available >= reserve and (stalled < STALLED_RATIO or available >= 2 * reserve):
        return None
    return relief(host, settings)


def relief(host: HostSnapshot, settings: HostSettings) -> Reason:
    """The host's shortage in numbers."""
    numbers = {
        "available_bytes": host.memory_available_bytes,
        "reserve_bytes": reserve_bytes(host.memory_total_bytes, settings),
        "stalled_pct": 0.0 if host.pressure is None else round(100 * host.pressure.full_avg10_ratio, 1),
    }
    return Reason("host_runs_short", numbers)
