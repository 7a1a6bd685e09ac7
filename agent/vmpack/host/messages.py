"""The answers of the host's service that are not in the model, as frozen records.

Made by vmpack.host.service and vmpack.host.release, read by vmpack.host.client and the command line;
they cross the socket with the model's codec.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from vmpack.model.action import Outcome
from vmpack.model.codec import ADDED
from vmpack.model.guest import GuestPolicy, GuestSnapshot
from vmpack.model.plan import GuestPlan, Reason
from vmpack.model.settings import VcpuMode
from vmpack.model.vcpu import AffinityOutcome


@dataclass(frozen=True, slots=True)
class Explanation:
    """All that the newest interval knows of one VM."""

    number: int
    """Of the interval."""
    wall_s: float
    """When it was, as Unix time."""
    observe_only: bool
    frozen: bool
    guest: GuestSnapshot
    plan: GuestPlan
    outcomes: tuple[Outcome, ...]
    """What was done to this VM in that interval."""
    host_reasons: tuple[Reason, ...]
    learned: tuple[Reason, ...] = ()
    """What was learned of this VM, and what is kept for it."""


@dataclass(frozen=True, slots=True)
class PolicySet:
    """A VM's own policy as it now stands."""

    uuid: str
    name: str
    policy: GuestPolicy


@dataclass(frozen=True, slots=True)
class StillPacked:
    """A VM that did not get everything back, and why."""

    uuid: str
    name: str
    packed_bytes: int
    why: str
    cure: str


@dataclass(frozen=True, slots=True)
class GivenBack:
    """What a release did."""

    given_bytes: int
    outcomes: tuple[Outcome, ...]
    still_packed: tuple[StillPacked, ...]
    pins: tuple[AffinityOutcome, ...] = field(default=(), metadata=ADDED)
    """What came of the pins of vCPUs that were taken off."""


@dataclass(frozen=True, slots=True)
class Pinned:
    """A vCPU that was pinned by hand."""

    vm: str
    vcpu: int
    cpus: tuple[int, ...]
    """Empty: any."""


@dataclass(frozen=True, slots=True)
class VcpuSums:
    """A host's vCPUs and pCPUs at the newest look."""

    wall_s: float
    pcpus: int
    vms: int
    vcpus: int
    std_points: float
    """Standard deviation of the pCPUs' loads, in points of 0.01."""
    target_points: float | None
    """What is wanted of it at most; None where the plan does not tell."""
    pins: int
    """vCPUs that vmpack has pinned."""


@dataclass(frozen=True, slots=True)
class VcpuSummary:
    """How the vCPU loop is."""

    mode: VcpuMode
    last_error: str | None
    """Why the newest turn failed, None when it went well."""
    sums: VcpuSums | None
    """None before the first turn."""
    changed_last_hour: int
    """Pins, as far as they are kept."""
    more_changed: bool
    """No older changes are kept than those of the last hour: there may have been more."""


@dataclass(frozen=True, slots=True)
class FreezeState:
    """Are all changes on this host stopped?"""

    frozen: bool


@dataclass(frozen=True, slots=True)
class Fault:
    """An error as it crosses the socket."""

    message: str
    hint: str
    exit_code: int
