"""The full host of the live benchmark: real guests, promised more than it pretends to have.

The host's memory for guests (`room_bytes`) is their nominals over the overcommitment. What QEMU uses for
itself comes on top, because without hardware acceleration it is as large as a small guest.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.scenes.stage import made_ready, overhead
from tests.waiting import eventually
from vmpack.decide.brake import reserve_bytes
from vmpack.decide.share import fill
from vmpack.lab.guest_spec import GuestSpec
from vmpack.lab.lab import Lab, LabGuest
from vmpack.model.settings import HostSettings
from vmpack.units import KIB, MIB

TOUCHED_BEFORE_RATIO = 0.25
"""Of nominal: used once and freed, as guests have that ran for a while."""
SWAP_RATIO = 0.5
"""Of nominal: a guest's swap disk."""
SWAP_BYTES_PER_S = 100 * MIB
STREAM_BYTES = 64 << 30
STREAM_BYTES_PER_S = 10 * MIB
"""Every guest reads something new all the time, so that page cache fills whatever is free, as it does in
guests that live long: memory that a policy gives is memory that the host then lacks."""
STREAM = "exec 9< /dev/vda; while :; do dd if=/dev/vda of=/dev/null bs=64k; done"
SWAPPING = frozenset({"bursts", "giving", "leaving"})
"""These have swap, as about half of all guests do; the kernels of the others kill."""
START_SLACK_BYTES = 24 * MIB
BOOT_DEADLINE_S = 300.0


class FullHost:
    """Guests that stand as large as the host allows, and what each uses by itself."""

    def __init__(self, lab: Lab, guests: Mapping[str, LabGuest], overcommit: float) -> None:
        self.lab = lab
        self.guests = guests
        self.nominal_bytes = next(iter(guests.values())).size()[0]
        self.room_bytes = int(self.nominal_bytes * len(guests) / overcommit) // MIB * MIB
        self.reserve_bytes = reserve_bytes(self.room_bytes, HostSettings())
        """What vmpack keeps of such a host by default."""
        self.overhead_bytes = overhead(guests.values())
        self.own_bytes = {name: self._own_bytes(guest) for name, guest in guests.items()}
        """The balloon that each guest would need without any of the course's needs: its kernel's included."""

    def make_full(self, needs: Mapping[str, int]) -> None:
        """End what the guests do and give them all that the host has: nobody short, the rest by nominal."""
        made_ready(list(self.guests.values()))
        for guest in self.guests.values():
            guest.control.drop_caches()
        names = list(self.guests)
        least = [self.own_bytes[name] + needs[name] + START_SLACK_BYTES for name in names]
        sizes = fill(
            self.room_bytes - self.reserve_bytes, least, [self.nominal_bytes] * len(names), [1] * len(names)
        )
        for name, size in zip(names, sizes, strict=True):
            self.guests[name].domain.setMemory(size // KIB)
        for name, size in zip(names, sizes, strict=True):
            eventually(f"the balloon of {name} is there", lambda name=name, size=size: self._is(name, size))

    def resident_bytes(self) -> int:
        """What the guests hold of the host's memory now, without QEMU's own."""
        return sum(guest.rss_bytes() for guest in self.guests.values()) - self.overhead_bytes

    def _is(self, name: str, size: int) -> bool:
        told = self.guests[name].domain.memoryStats()
        return abs(int(told["actual"]) * KIB - size) < 8 * MIB and int(told.get("available", 0)) > 0

    def _own_bytes(self, guest: LabGuest) -> int:
        return self.nominal_bytes - guest.control.mem().available_bytes


@contextmanager
def full_host(names: list[str], nominal_bytes: int, overcommit: float) -> Iterator[FullHost]:
    """Boot the guests on a libvirt of their own; all of it ends with the context, however that ends."""
    with tempfile.TemporaryDirectory(prefix="vmpack-live-") as folder, Lab.private() as lab:
        specs = [_spec(name, nominal_bytes, Path(folder)) for name in names]
        guests = dict(zip(names, lab.start(*specs), strict=True))
        lab.wait_ready(BOOT_DEADLINE_S)
        for name, guest in guests.items():
            _limit(guest, "vda", STREAM_BYTES_PER_S)
            if name in SWAPPING:
                _limit(guest, "vdb", SWAP_BYTES_PER_S)
                _run(guest, "mkswap /dev/vdb > /dev/null && swapon /dev/vdb")
        for guest in guests.values():
            guest.control.load_anonymous(int(TOUCHED_BEFORE_RATIO * nominal_bytes))
        for guest in guests.values():
            eventually(
                f"{guest.name} has used memory",
                lambda guest=guest: all(load.state == "done" for load in guest.control.progress()),
                BOOT_DEADLINE_S,
            )
            guest.control.free()
            _run(guest, f"setsid sh -c '{STREAM}' > /dev/null 2>&1 &")
        yield FullHost(lab, guests, overcommit)


def _spec(name: str, nominal_bytes: int, folder: Path) -> GuestSpec:
    disks = [_disk(folder / f"{name}-stream.raw", STREAM_BYTES)]
    if name in SWAPPING:
        disks.append(_disk(folder / f"{name}-swap.raw", int(SWAP_RATIO * nominal_bytes)))
    return GuestSpec(
        name, nominal_bytes, vcpus=1, disks=tuple(disks), stats_period_s=1, free_page_reporting=False
    )


def _disk(path: Path, size_bytes: int) -> Path:
    """A disk without contents, which takes no room on the host's."""
    with path.open("wb") as file:
        file.truncate(size_bytes)
    return path


def _limit(guest: LabGuest, disk: str, bytes_per_s: int) -> None:
    import libvirt

    limits = {"total_bytes_sec": bytes_per_s}
    guest.domain.setBlockIoTune(disk, limits, libvirt.VIR_DOMAIN_AFFECT_LIVE)


def _run(guest: LabGuest, script: str) -> None:
    done = guest.control.run(["sh", "-c", script])
    assert done.exit_code == 0, done.output
