"""Moving one running VM to another host, as a value; how it goes; and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Migrate:
    """Move one VM, live, to the libvirt at `destination_uri`.

    Preconditions: running or paused, no job, nominal unchanged, nothing in it that ties it to its host; the
    destination is another host, answers, has no VM of this uuid or name, and has memory for its balloon.
    """

    uuid: str
    name: str
    destination_uri: str
    """As the source's libvirt reaches it, and the one who asks for the migration too."""
    nominal_bytes: int
    timeout_s: float
    """The whole budget: what is not done by then is aborted, and the VM goes on where it is."""
    bandwidth_bytes_per_s: int | None = None
    """What it may take of the network, in whole MiB/s; None is all there is."""
    max_downtime_ms: int | None = None
    """How long the VM may stand still at the end; None is the hypervisor's own limit."""
    migrate_uri: str | None = None
    """Where the memory goes, when that is not the host that destination_uri names."""
    with_storage: bool = False
    """Copy disks that both hosts do not share."""
    kind: Literal["migrate"] = "migrate"


@dataclass(frozen=True, slots=True)
class MigrationProgress:
    """A migration under way, at one moment. Memory, and storage where that is copied."""

    elapsed_s: float
    total_bytes: int
    remaining_bytes: int
    moved_bytes: int
    """What went over the network so far; zero pages cost next to nothing, dirtied ones go again."""
    dirty_bytes_per_s: int
    """How fast the guest changes memory; 0 while that was not measured yet."""
    iteration: int
    throttle_ratio: float
    """The part of its time for which the guest is held up so that the migration ends; 0 is not at all."""


MigrationStatus = Literal["done", "skipped", "failed", "aborted", "unclear"]

Presence = Literal["running", "paused", "stopped", "absent", "unreachable"]
"""What one host showed of the VM. `stopped`: only its definition. `unreachable`: the host did not answer."""


@dataclass(frozen=True, slots=True)
class MigrationOutcome:
    """What came of a migration, as it was seen on both hosts afterwards."""

    action: Migrate
    status: MigrationStatus
    """`done`: it is there and no longer here. `skipped`: a precondition did not hold, nothing was begun.

    `failed`, `aborted`: it is here as before, and not there; aborted when it was stopped on purpose.
    `unclear`: anything else that was seen; `detail` says what, `hint` what helps.
    """
    detail: str = ""
    hint: str = ""
    source: Presence | None = None
    """What the hosts showed at the end, None where nothing was begun."""
    destination: Presence | None = None
    elapsed_s: float = 0.0
    downtime_ms: int | None = None
    moved_bytes: int | None = None
    balloon_before_bytes: int | None = None
    """Where the balloon stood when the migration began."""
    balloon_bytes: int | None = None
    """Where it stands at the destination, or here when nothing moved; None where that was not read."""
    warnings: tuple[str, ...] = ()
    """What did not arrive as it was, and what was done about it."""
