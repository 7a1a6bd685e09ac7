"""What a cloud and its hosts' agents say of hosts and VMs, and what is decided from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from vmpack.model.guest import GuestPolicy

HostState = Literal["up", "disabled", "down"]
"""`up`: monitored and given VMs; `disabled`: monitored, but given none; `down`: anything else."""


@dataclass(frozen=True, slots=True)
class CloudHost:
    """One host as the cloud sees it. Sizes are of memory."""

    id: str
    name: str
    """How it is reached over the network."""
    state: HostState
    cluster: str
    managed: bool
    """The cloud has it as one of vmpack's."""
    total_bytes: int
    base_bytes: int
    """What the cloud's scheduler would use without a grant."""
    promised_bytes: int
    """Nominals of all VMs that the cloud has placed there, also those on their way."""
    granted_bytes: int | None = None
    """What vmpack has granted beyond `base_bytes`; None where nothing of ours is set there."""
    marked: bool = False
    """The cloud has something of ours on record there: a grant, or what is left of one."""
    granted_s: float | None = None
    """When a grant was last changed (Unix time), None where there never was one."""
    base_words: str = ""
    """The administrator's own reservation, for people; empty where there is none."""
    domains: tuple[str, ...] = ()
    """libvirt names or UUIDs of the VMs counted in `promised_bytes`."""
    fault: str = ""
    """Why nothing can be granted on it, in words; empty where it can."""
    notes: tuple[str, ...] = ()
    """What an administrator should know before memory is granted there, in words."""

    @property
    def capacity_bytes(self) -> int:
        """What the cloud's scheduler uses now."""
        return self.base_bytes + (self.granted_bytes or 0)


@dataclass(frozen=True, slots=True)
class GuestReport:
    """What a guest said of its own memory. Its owner can write this: good for showing, not for deciding."""

    total_bytes: int
    available_bytes: int
    free_bytes: int | None
    age_s: float | None
    """By the clock of the one who read it; None where the guest told no believable time."""


@dataclass(frozen=True, slots=True)
class CloudVm:
    """One VM as the cloud sees it."""

    id: str
    name: str
    domain: str
    """Its libvirt name or UUID."""
    state: str
    """The cloud's own word."""
    running: bool
    host_id: str
    """Empty for a VM without a host."""
    host_name: str
    nominal_bytes: int
    left_alone: tuple[str, ...] = ()
    """Why it is not packed, as far as the cloud knows, in words."""
    policy: GuestPolicy = field(default_factory=GuestPolicy)
    """What its owner asked for, as far as it can be meant."""
    policy_named: bool = False
    """The owner asked for something."""
    policy_faults: tuple[str, ...] = ()
    """Parts of it that cannot be meant, in words."""
    policy_unclear: tuple[str, ...] = ()
    """The fields that they were meant for: what holds there stays."""
    told: tuple[tuple[str, str], ...] = ()
    """What its owner is told at present of what holds, by name."""
    report: GuestReport | None = None
    balloon_bytes: int | None = None
    """As last measured by the cloud's probes; None where they do not tell."""
    verdict: str = ""
    """What its agent does with it, as last measured."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What holds for one VM now, for its owner to see."""

    policy: GuestPolicy
    of_owner: bool
    """The owner asked for something."""
    floor_bytes: int | None
    target_bytes: int | None
    faults: tuple[str, ...] = ()
    """What of it does not hold, in words."""


@dataclass(frozen=True, slots=True)
class ReportedVm:
    """One VM as the agent of its host sees it."""

    uuid: str
    name: str
    nominal_bytes: int
    balloon_bytes: int
    floor_bytes: int | None = None
    target_bytes: int | None = None
    verdict: str | None = None
    policy: GuestPolicy | None = None
    """None from an agent that does not tell."""


@dataclass(frozen=True, slots=True)
class AgentReport:
    """What the agent of one host says."""

    state: Literal["active", "observe", "frozen"]
    stale: bool
    capacity_bytes: int
    packed_bytes: int
    offered_bytes: int
    vms: tuple[ReportedVm, ...] = ()
    version: str = ""


@dataclass(frozen=True, slots=True)
class NoReport:
    """A host whose agent did not answer, or not understandably."""

    why: str


AgentAnswer = AgentReport | NoReport


@dataclass(frozen=True, slots=True)
class GrantPlan:
    """What one host's scheduler shall be granted, and why."""

    host: CloudHost
    granted_bytes: int
    write: bool
    """The cloud must be told; else it already has this."""
    reason: str
    """In words, with numbers."""


@dataclass(frozen=True, slots=True)
class MoveTicket:
    """A live migration that the cloud accepted: how it is found again."""

    vm: CloudVm
    destination: CloudHost
    mark: str
    """The cloud's own: a sequence number, a migration id."""


@dataclass(frozen=True, slots=True)
class MoveState:
    """What the cloud shows of a migration at one moment."""

    status: Literal["moving", "moved", "stayed", "unclear"]
    detail: str


@dataclass(frozen=True, slots=True)
class MoveOutcome:
    """What came of a live migration by the cloud."""

    vm: CloudVm
    destination: CloudHost
    status: Literal["done", "skipped", "failed", "going_on", "unclear"]
    """`done`: the cloud shows it there, running. `skipped`: nothing was begun. `failed`: it is where it was.

    `going_on`: no longer watched, the cloud goes on with it. `unclear`: anything else; `detail` says what.
    """
    detail: str = ""
    hint: str = ""
    elapsed_s: float = 0.0
