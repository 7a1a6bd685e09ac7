"""The vCPUs and pCPUs of one host at one moment, and what is decided of them.

What is made anew for every vCPU in every interval is a named tuple: it takes a third of the time that a
frozen dataclass takes to make.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from vmpack.model.plan import Reason
from vmpack.model.settings import VcpuMode
from vmpack.model.thread import ThreadKey, ThreadKind

MaskOwner = Literal["nobody", "vmpack", "run_time", "owner"]
"""Whose a mask is: `run_time` was set on the running VM by somebody else and is not of its definition."""

LeftAlone = Literal[
    "dedicated_cpus", "owner_mask", "run_time_mask", "real_time", "job", "not_running", "held", "opt_out"
]
"""Why the pins of a VM are not touched."""


class Pcpu(NamedTuple):
    """One physical CPU that VMs may run on; siblings of a core, caches and nodes have equal numbers."""

    number: int
    node: int = 0
    cache: int = 0
    """Of the last level, unique on the host."""
    core: int = 0
    """Unique on the host."""
    capacity_ratio: float = 1.0
    """Its speed over that of the host's fastest."""


class VcpuState(NamedTuple):
    """One vCPU thread."""

    number: int
    run_ns: int
    """Counter: it ran. So is the next."""
    delay_ns: int | None
    """It was ready to run and did not; None where the kernel does not count it."""
    cpus: tuple[int, ...]
    """The pCPUs that it may run on, ascending; empty: any."""
    mask_of: MaskOwner = "nobody"
    seat: int | None = None
    """The pCPU that it ran on last."""


class ThreadMask(NamedTuple):
    """The mask of the emulator or of one I/O thread."""

    kind: ThreadKind
    number: int
    """Of the I/O thread; 0 for the emulator."""
    cpus: tuple[int, ...]
    """As VcpuState.cpus."""
    mask_of: MaskOwner = "nobody"


class VmVcpus(NamedTuple):
    """The vCPUs of one VM."""

    uuid: str
    name: str
    vcpus: tuple[VcpuState, ...]
    left_alone: LeftAlone | None = None
    nodes: tuple[int, ...] = ()
    """The NUMA nodes that all of its memory is bound to; empty: it may come from anywhere."""
    threads: tuple[ThreadMask, ...] = ()


@dataclass(frozen=True, slots=True)
class VcpuSnapshot:
    """One host's pCPUs, and the vCPUs of all its VMs."""

    time_s: float
    """Monotonic clock."""
    wall_s: float
    pcpus: tuple[Pcpu, ...]
    """Those that are on and not reserved, by number."""
    vms: tuple[VmVcpus, ...]
    frozen: bool = False


@dataclass(frozen=True, slots=True)
class SetAffinity:
    """Let one thread of a running VM run on these pCPUs alone.

    Preconditions: running, no job, the mask is still `from_cpus`.
    """

    uuid: str
    name: str
    thread: ThreadKind
    number: int
    from_cpus: tuple[int, ...]
    """As found; empty: any. So is the next."""
    to_cpus: tuple[int, ...]
    gives_back: bool = False
    """What was there before vmpack is put back; the executor knows it, `to_cpus` is empty."""
    kind: Literal["set_affinity"] = "set_affinity"


AffinityStatus = Literal["done", "skipped", "failed"]


@dataclass(frozen=True, slots=True)
class AffinityOutcome:
    """What came of one change."""

    action: SetAffinity
    status: AffinityStatus
    """`skipped`: a precondition no longer held; `failed`: also what could not be given back and holds."""
    detail: str = ""


class PinChange(NamedTuple):
    """One change that was tried."""

    wall_s: float
    outcome: AffinityOutcome
    why: Reason | None


class VcpuUse(NamedTuple):
    """What was seen of one vCPU until now."""

    number: int
    time_s: float
    run_ns: int
    delay_ns: int | None
    demand_ratio: float = 0.0
    """Of one pCPU: what it would use if it never had to wait, smoothed. See decide/vcpu/demand."""
    wait_ratio: float = 0.0
    """Of the time: it was ready and did not run, smoothed."""
    samples: int = 0
    """Since it was new, or its load last changed."""
    stray_ratio: float | None = None
    """How far the newest sample was from the average, where it was far."""
    moved_s: float | None = None
    """When vmpack last changed its mask, or tried to."""
    noise_squares: float = 0.0
    """Variance of the samples around the average."""
    moves: int = 0
    """How often it was changed without a long rest in between."""
    stepped_s: float | None = None
    """When its load last changed at once."""


@dataclass(frozen=True, slots=True)
class RememberedVcpus:
    """What the vCPU decision remembers of the host."""

    vms: Mapping[str, tuple[VcpuUse, ...]] = field(default_factory=dict)
    """By VM uuid; one per vCPU, as the snapshot had them."""
    uneven: int = 0
    """For how many intervals in a row the pCPUs have been more uneven than wanted."""


class PcpuLoad(NamedTuple):
    """How one pCPU is loaded, as a share of its capacity; above 1 vCPUs must wait."""

    number: int
    before_ratio: float
    after_ratio: float


class VmVcpuPlan(NamedTuple):
    """What was decided for the vCPUs of one VM."""

    uuid: str
    name: str
    demand_ratios: tuple[float, ...]
    """By vCPU, as in the snapshot."""
    wait_ratios: tuple[float, ...]
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class VcpuPlan:
    """The whole answer of one interval."""

    actions: tuple[SetAffinity, ...]
    """In an order in which no pCPU gets more on the way than it has before or after, where there is one."""
    pcpus: tuple[PcpuLoad, ...]
    std_points_before: float
    """Standard deviation of the pCPUs' loads, in points of 0.01. So is the next."""
    std_points_after: float
    vms: tuple[VmVcpuPlan, ...]
    reasons: tuple[Reason, ...]
    remembered: RememberedVcpus


@dataclass(frozen=True, slots=True)
class VcpuInterval:
    """One turn of the vCPU loop."""

    number: int
    """Counts from 1 since the program's start."""
    snapshot: VcpuSnapshot
    plan: VcpuPlan
    outcomes: tuple[AffinityOutcome, ...]
    """One per action, in order; empty in observe mode and while frozen."""

    def vms_now(self) -> tuple[VmVcpus, ...]:
        """The VMs as the changes have left them; what was given back floats until it is seen again."""
        done = {
            (one.action.uuid, (one.action.thread, one.action.number)): one.action
            for one in self.outcomes
            if one.status == "done"
        }
        if not done:
            return self.snapshot.vms
        changed = {uuid for uuid, _ in done}
        return tuple(_changed(vm, done) if vm.uuid in changed else vm for vm in self.snapshot.vms)


def _changed(vm: VmVcpus, done: Mapping[tuple[str, ThreadKey], SetAffinity]) -> VmVcpus:
    vcpus, threads = list(vm.vcpus), list(vm.threads)
    for index, vcpu in enumerate(vcpus):
        if action := done.get((vm.uuid, ("vcpu", vcpu.number))):
            vcpus[index] = vcpu._replace(cpus=action.to_cpus, mask_of=_owner_after(action))
    for index, thread in enumerate(threads):
        if action := done.get((vm.uuid, (thread.kind, thread.number))):
            threads[index] = thread._replace(cpus=action.to_cpus, mask_of=_owner_after(action))
    return vm._replace(vcpus=tuple(vcpus), threads=tuple(threads))


def _owner_after(action: SetAffinity) -> MaskOwner:
    return "nobody" if action.gives_back else "vmpack"


@dataclass(frozen=True, slots=True)
class VcpuStatus:
    """What the vCPU loop says of itself; the answer of the service's `vcpus`."""

    mode: VcpuMode
    interval_s: float
    observe_only: bool
    last_error: str | None
    """Why the newest turn failed, None when it went well."""
    interval: VcpuInterval | None
    """The newest turn that went through, None before the first."""
    changed: tuple[PinChange, ...] = ()
    """The newest changes that were tried, oldest first."""
