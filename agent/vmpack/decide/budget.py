"""Where the host's memory goes, and what is left for balloons."""

from __future__ import annotations

from vmpack.model.host import HostSnapshot
from vmpack.model.plan import Budget
from vmpack.model.settings import HostSettings


def budget(host: HostSnapshot, settings: HostSettings) -> Budget:
    """budget = capacity - reserve - what the host itself uses - the overhead of the VM processes.

    A guest's untouched memory counts as its balloon, not as free. On a pretended host the machine's own use
    does not count, but the real machine's budget still caps it: pretending never risks the real host.
    """
    overhead = own_rss = 0
    for guest in host.guests:
        rss = guest.rss_bytes
        if rss is None:
            overhead += settings.vm_overhead_bytes
            continue
        own_rss += rss
        if guest.ram_rss_bytes is None:
            overhead += settings.vm_overhead_bytes
        else:
            overhead += max(0, rss - guest.ram_rss_bytes)
    own = max(0, host.memory_total_bytes - host.memory_available_bytes - own_rss)
    real = _budget(host.memory_total_bytes, own, overhead, settings)
    if host.pretended_bytes is None:
        return real
    pretended = _budget(host.pretended_bytes, 0, overhead, settings)
    return pretended if pretended.budget_bytes <= real.budget_bytes else real


def _budget(capacity: int, own: int, overhead: int, settings: HostSettings) -> Budget:
    reserve = max(settings.reserve_min_bytes, int(settings.reserve_ratio * capacity))
    return Budget(capacity, reserve, own, overhead, max(0, capacity - reserve - own - overhead))
