"""What vmpack asks of a cloud. Implemented by opennebula.py; called by the commands and, later, the manager.

Promises of every implementation: each call ends within a deadline of its own; what fails is a CloudError
(CloudLostError when nobody knows whether a write was done); answers are checked; a bad entry costs no other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from vmpack.model.cluster import Applied, CloudHost, CloudVm, MoveState, MoveTicket


class Cloud(Protocol):
    """A cloud."""

    @property
    def name(self) -> str:
        """Which one and where, for people."""
        ...

    def hosts(self) -> tuple[tuple[CloudHost, ...], tuple[str, ...]]:
        """All hosts, sorted by name; and one sentence for each that cannot be read."""
        ...

    def vms(self) -> tuple[tuple[CloudVm, ...], tuple[str, ...]]:
        """All VMs that this user may see and that are not done, sorted by id; sentences as for hosts."""
        ...

    def grant(self, host: CloudHost, granted_bytes: int) -> None:
        """Let the scheduler use `host.base_bytes + granted_bytes`; 0 puts back what was there before us.

        0 is possible with a `fault`, too, and where a host is only `marked`.
        Raises CloudChangedError, and changes nothing, when somebody changed the host's reservation meanwhile.
        """
        ...

    def untold(self, vm: CloudVm, applied: Applied) -> Mapping[str, str]:
        """What of this its owner is not told yet, as names and texts of this cloud; no call is made."""
        ...

    def tell_owner(self, vm: CloudVm, values: Mapping[str, str | None]) -> None:
        """Let the VM's owner see these; None: no longer."""
        ...

    def refusals(self, vm: CloudVm, host: CloudHost) -> tuple[str, ...]:
        """Why this VM would not move there live, in words; empty is a yes. Asks anew."""
        ...

    def migrate(self, vm: CloudVm, host: CloudHost) -> MoveTicket:
        """Ask for a live migration and return at once."""
        ...

    def move(self, ticket: MoveTicket) -> MoveState:
        """Where that migration is now, as it is seen."""
        ...

    def stop_move(self, ticket: MoveTicket) -> bool:
        """Ask the cloud to give the migration up. False: it has no such call."""
        ...
