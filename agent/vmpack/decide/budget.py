"""Where the host's memory goes, and what is left for balloons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from vmpack.decide.brake import reserve_bytes
from vmpack.model.guest import GuestSnapshot
from vmpack.model.host import HostSnapshot
from vmpack.model.plan import Budget, Remembered, RememberedGuest
from vmpack.model.settings import HostSettings


class Unseen(NamedTuple):
    """The VMs that exist but told nothing this time."""

    known: Mapping[str, RememberedGuest]
    """What is remembered of them, by uuid."""
    held_bytes: int
    rss_bytes: int
    overhead_bytes: int
    most_bytes: int
    """What they may come to hold: nominal where it is remembered."""


NOBODY = Unseen({}, 0, 0, 0, 0)


def budget(host: HostSnapshot, settings: HostSettings, silent: Unseen = NOBODY) -> Budget:
    """budget = capacity - reserve - what the host itself uses - the overhead of the VM processes.

    A guest's untouched memory counts as its balloon, not as free. On a pretended host the machine's own use
    does not count, but the real machine's budget still caps it: pretending never risks the real host.

    What a VM holds beyond its balloon is overhead too: the balloon's size is the guest's own word, and a
    host that cannot take the pages back has not got them.
    """
    overhead, vm_rss = silent.overhead_bytes, silent.rss_bytes
    for guest in host.guests:
        vm_rss += guest.rss_bytes or 0
        overhead += overhead_bytes(guest, settings)
    own = max(0, host.memory_total_bytes - host.memory_available_bytes - vm_rss)
    real = _budget(host.memory_total_bytes, own, overhead, settings)
    if host.pretended_bytes is None:
        return real
    pretended = _budget(host.pretended_bytes, 0, overhead, settings)
    return pretended if pretended.budget_bytes <= real.budget_bytes else real


def overhead_bytes(guest: GuestSnapshot, settings: HostSettings) -> int:
    """What the process of this VM holds beyond the VM's balloon; as configured where it cannot be told."""
    rss, ram_rss, balloon = guest.rss_bytes, guest.ram_rss_bytes, guest.balloon_bytes
    if rss is None:
        return settings.vm_overhead_bytes
    if ram_rss is None:
        return max(settings.vm_overhead_bytes, rss - balloon)
    return max(0, rss - min(ram_rss, balloon))


def _budget(capacity: int, own: int, overhead: int, settings: HostSettings) -> Budget:
    reserve = reserve_bytes(capacity, settings)
    return Budget(capacity, reserve, own, overhead, max(0, capacity - reserve - own - overhead))


def unseen(snapshot: HostSnapshot, remembered: Remembered, settings: HostSettings) -> Unseen:
    """VMs that told nothing still hold their memory, and their QEMU's: as last known, else as configured."""
    known: dict[str, RememberedGuest] = {}
    held = rss = overhead = most = 0
    for guest in snapshot.unreadable:
        entry = remembered.guests.get(guest.uuid)
        own_rss = 0
        holds = guest.balloon_bytes if entry is None else max(guest.balloon_bytes, entry.target_bytes or 0)
        held += holds
        most += holds if entry is None else max(holds, entry.nominal_bytes)
        if entry is not None:
            known[guest.uuid] = entry
            own_rss = entry.rss_bytes or 0
        rss += own_rss
        overhead += max(settings.vm_overhead_bytes, own_rss - guest.balloon_bytes)
    return Unseen(known, held, rss, overhead, most)
