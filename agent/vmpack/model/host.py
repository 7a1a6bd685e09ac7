"""What is known of one host at one moment."""

from __future__ import annotations

from dataclasses import dataclass, field

from vmpack.model.codec import ADDED
from vmpack.model.gpu import Gpu
from vmpack.model.guest import GuestSnapshot


@dataclass(frozen=True, slots=True)
class Pressure:
    """Memory pressure of the host (PSI): share of the last 10 s in which tasks stalled, and the total."""

    some_avg10_ratio: float
    full_avg10_ratio: float
    some_total_us: int
    full_total_us: int


@dataclass(frozen=True, slots=True)
class PcpuTime:
    """Counters of one physical CPU."""

    number: int
    node: int
    busy_ns: int
    idle_ns: int


@dataclass(frozen=True, slots=True)
class NumaNode:
    """One NUMA node of the host."""

    number: int
    memory_total_bytes: int
    memory_free_bytes: int
    memory_cache_bytes: int = field(default=0, metadata=ADDED)
    """Pages of files and kernel memory that it gives up when it must: as good as free."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A use of the host's room that is not a running VM's nominal: who, how much, why, until when."""

    owner: str
    amount_bytes: int
    why: str
    expires_s: float | None = None
    """On the clock of HostSnapshot.wall_s; None is until withdrawn."""


@dataclass(frozen=True, slots=True)
class UnreadableGuest:
    """A VM that exists but told nothing this time: a hung QEMU."""

    uuid: str
    name: str
    balloon_bytes: int
    """The last size that libvirt knows of."""


@dataclass(frozen=True, slots=True)
class HostSnapshot:
    """One host and all its VMs as seen in one interval."""

    time_s: float
    """Monotonic clock: the one that decisions compare with."""
    wall_s: float
    """Unix time, for people and for expiry dates; may be stepped."""
    memory_total_bytes: int
    """Real memory of the machine."""
    memory_available_bytes: int
    """MemAvailable of the machine."""
    pretended_bytes: int | None = None
    """The size of a smaller host that the configuration pretends, if it does."""
    swap_total_bytes: int = 0
    swap_free_bytes: int = 0
    pressure: Pressure | None = None
    pcpus: tuple[PcpuTime, ...] = ()
    nodes: tuple[NumaNode, ...] = ()
    guests: tuple[GuestSnapshot, ...] = ()
    unreadable: tuple[UnreadableGuest, ...] = ()
    """VMs that are not in `guests` and hold their memory all the same."""
    claims: tuple[Claim, ...] = ()
    frozen: bool = False
    """The administrator stopped all changes on this host."""
    gpus: tuple[Gpu, ...] = field(default=(), metadata=ADDED)

    @property
    def capacity_bytes(self) -> int:
        """What the cloud is told that the machine has."""
        return self.memory_total_bytes if self.pretended_bytes is None else self.pretended_bytes
