"""What is known of one VM at one moment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from vmpack.model.codec import ADDED
from vmpack.model.learned import Learned
from vmpack.model.policy_namespace import ACTION_HOLD_S

RunState = Literal["running", "paused", "other"]

Exclusion = Literal[
    "no_balloon_device",
    "huge_pages",
    "locked_memory",
    "file_backed_memory",
    "pci_passthrough",
    "encrypted_memory",
    "memory_hotplug",
    "dedicated_cpus",
]


@dataclass(frozen=True, slots=True)
class GuestPolicy:
    """What the VM's owner or the administrator set for this one VM; None means the host's default."""

    floor_bytes: int | None = None
    """Never balloon below this."""
    shares: int | None = None
    """Weight under scarcity, 1..100000; a VM of 2000 has half the unmet need of one with 1000."""
    headroom_ratio: float | None = None
    """Elastic room kept above use, as a share of what is used."""
    opt_out: bool = False
    """Leave this VM alone."""
    hold_until_s: float | None = None
    """Wall-clock time (Unix seconds) until which the VM is left alone; infinity is written as 1e18."""
    nominal_bytes: int | None = field(default=None, metadata=ADDED)
    """What the cloud promised its owner: the ceiling where the VM was built with more. The cloud's to set."""
    headroom_min_bytes: int | None = field(default=None, metadata=ADDED)
    """That elastic room is at least this."""
    action_until_s: float | None = field(default=None, metadata=ADDED)
    """Wall-clock time until which an action of the cloud holds the VM, by the clock of the host it is on."""
    of_owner: tuple[str, ...] = field(default=(), metadata=ADDED)
    """Which of these fields hold what the VM's owner asked of its cloud; the others are administrators'."""

    def is_on_hold(self, wall_s: float) -> bool:
        """A person holds the VM at this Unix time."""
        return self.hold_until_s is not None and self.hold_until_s > wall_s

    def is_in_action(self, wall_s: float) -> bool:
        """An action of the cloud holds it.

        False, too, for a time that only another host's clock, or one that was set back, can have brought.
        """
        until_s = self.action_until_s
        return until_s is not None and 0 < until_s - wall_s <= 2 * ACTION_HOLD_S


@dataclass(frozen=True, slots=True)
class MemoryStats:
    """One report of the guest's balloon driver. All values are of the same moment."""

    sampled_s: float
    """When the guest reported, on the clock of HostSnapshot.time_s (whole seconds of precision)."""
    available_bytes: int
    """MemTotal as the guest sees it."""
    usable_bytes: int
    """MemAvailable: what the guest could take without swapping."""
    unused_bytes: int | None = None
    """MemFree."""
    caches_bytes: int | None = None
    swap_in_bytes: int | None = None
    """Counter since the guest's start."""
    swap_out_bytes: int | None = None
    major_faults: int | None = None
    minor_faults: int | None = None


@dataclass(frozen=True, slots=True)
class KernelCounts:
    """What the guest's own kernel counts of its want of memory since its boot; None: it does not count it."""

    sampled_s: float
    """When it was asked, on the clock of HostSnapshot.time_s."""
    refaults: int | None = None
    """Pages that had to be read again, since they were put out of memory a moment before."""
    allocation_stalls: int | None = None
    """How often somebody had to free memory before he got any."""
    stalled_some_us: int | None = None
    """How long some task waited for memory (PSI)."""
    stalled_full_us: int | None = None
    """How long all that were not idle did."""


@dataclass(frozen=True, slots=True)
class VcpuTime:
    """Counters of one vCPU thread."""

    number: int
    run_ns: int
    delay_ns: int | None
    """Time spent runnable but not running."""


@dataclass(frozen=True, slots=True)
class GuestSnapshot:
    """One VM as seen in one interval. What could not be read is None, never a guess."""

    uuid: str
    name: str
    state: RunState
    nominal_bytes: int
    """What the owner was promised: the ceiling."""
    balloon_bytes: int
    """What the VM has now."""
    autodeflate: bool = False
    """The balloon gives way by itself before the guest kills a process."""
    stats_period_s: int | None = None
    """How often the balloon driver reports; 0 is never, None is not known."""
    stats: MemoryStats | None = None
    """The newest report, None when the guest never made one or made an impossible one."""
    stats_fault: str | None = None
    """Why a report was thrown away."""
    rss_bytes: int | None = None
    """Resident memory of the QEMU process."""
    ram_rss_bytes: int | None = None
    """The part of it that is the guest's own memory; the rest is QEMU's overhead."""
    vcpus: tuple[VcpuTime, ...] = ()
    job: str | None = None
    """A running job (migration, save, snapshot); such a VM is left alone."""
    exclusions: tuple[Exclusion, ...] = ()
    """What makes ballooning impossible or harmful for this VM."""
    configured_bytes: int | None = None
    """What its lasting definition starts it with, None for a VM without one."""
    configured_period_s: int | None = None
    """The statistics period of its lasting definition; 0 is never, None for a VM without one."""
    policy: GuestPolicy = GuestPolicy()
    oom_kills: int | None = None
    """Processes that the guest's kernel killed for want of memory, counted since its boot; None: not told."""
    policy_faults: tuple[str, ...] = ()
    """Parts of the VM's own policy that cannot be meant, in words; the host's defaults hold for them."""
    maximum_bytes: int | None = field(default=None, metadata=ADDED)
    """What the VM was built with, where that is more than nominal: the rest is not its owner's."""
    learned: Learned | None = field(default=None, metadata=ADDED)
    """What its metadata say was learned of it; told only while the VM is new to this host's source."""
    kernel: KernelCounts | None = field(default=None, metadata=ADDED)
    """None: its guest agent has not told lately."""
    nodes: tuple[int, ...] = field(default=(), metadata=ADDED)
    """The NUMA nodes of the host that all of its memory is bound to; empty: it may come from anywhere."""
    huge_pages_ratio: float | None = field(default=None, metadata=ADDED)
    """Which part of its resident memory the host mapped as huge pages when that was last measured."""

    @property
    def built_bytes(self) -> int:
        """What the VM was built with: what its kernel counts, less what the balloon has."""
        return self.nominal_bytes if self.maximum_bytes is None else self.maximum_bytes
