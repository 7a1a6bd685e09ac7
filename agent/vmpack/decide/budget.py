"""Where the host's memory goes, and what is left for balloons."""

from __future__ import annotations

from vmpack.decide.brake import reserve_bytes
from vmpack.model.host import HostSnapshot
from vmpack.model.plan import Budget, Remembered, RememberedGuest
from vmpack.model.settings import HostSettings


def budget(host: HostSnapshot, settings: HostSettings, unseen_rss_bytes: int = 0) -> Budget:
    """budget = capacity - reserve - what the host itself uses - the overhead of the VM processes.

    A guest's untouched memory counts as its balloon, not as free. On a pretended host the machine's own use
    does not count, but the real machine's budget still caps it: pretending never risks the real host.

    What a VM holds beyond its balloon is overhead too: the balloon's size is the guest's own word, and a
    host that cannot take the pages back has not got them. `unseen_rss_bytes` is that of silent VMs.
    """
    overhead, vm_rss = 0, unseen_rss_bytes
    for guest in host.guests:
        rss = guest.rss_bytes
        if rss is None:
            overhead += settings.vm_overhead_bytes
            continue
        vm_rss += rss
        if guest.ram_rss_bytes is None:
            overhead += max(settings.vm_overhead_bytes, rss - guest.balloon_bytes)
        else:
            overhead += max(0, rss - min(guest.ram_rss_bytes, guest.balloon_bytes))
    own = max(0, host.memory_total_bytes - host.memory_available_bytes - vm_rss)
    real = _budget(host.memory_total_bytes, own, overhead, settings)
    if host.pretended_bytes is None:
        return real
    pretended = _budget(host.pretended_bytes, 0, overhead, settings)
    return pretended if pretended.budget_bytes <= real.budget_bytes else real


def _budget(capacity: int, own: int, overhead: int, settings: HostSettings) -> Budget:
    reserve = reserve_bytes(capacity, settings)
    return Budget(capacity, reserve, own, overhead, max(0, capacity - reserve - own - overhead))


def unseen(snapshot: HostSnapshot, remembered: Remembered) -> tuple[dict[str, RememberedGuest], int, int]:
    """VMs that told nothing still hold their memory: what is known of them, what they hold, their RSS."""
    known: dict[str, RememberedGuest] = {}
    held = rss = 0
    for guest in snapshot.unreadable:
        entry = remembered.guests.get(guest.uuid)
        held += guest.balloon_bytes if entry is None else max(guest.balloon_bytes, entry.target_bytes or 0)
        if entry is not None:
            known[guest.uuid] = entry
            rss += entry.rss_bytes or 0
    return known, held, rss
