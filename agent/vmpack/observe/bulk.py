"""libvirt's bulk statistics: one call for all running VMs, and what to do when one of them hangs it.

Called by domains.py and vcpus.py. Promises that a hung VM (its QEMU stopped) costs the others at most one
deadline, once: the hung call keeps that VM's job, and libvirt passes over a VM whose job is taken. Up to
three VMs that hang in the same moment cost no interval.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vmpack.errors import GuestBusyError, HypervisorLostError
from vmpack.hypervisor import Hypervisor

_TRIES = (1.0, 0.5, 0.5, 0.5)
"""How long each attempt at the bulk call may take, in deadlines."""
_PAUSED, _FOR_MIGRATION = 3, 2


@dataclass(frozen=True, slots=True)
class RunningDomain:
    """One VM in the answer of a bulk call."""

    handle: Any
    """The virDomain."""
    uuid: str
    name: str
    run: int
    """libvirt's number of this run of the VM; another one after a restart."""
    stats: Mapping[str, Any]

    @property
    def waits_for_migration(self) -> bool:
        """Perhaps on its way in: paused for a migration, as it is at the source in the last moment too."""
        return self.stats.get("state.state") == _PAUSED and self.stats.get("state.reason") == _FOR_MIGRATION


def all_running(hypervisor: Hypervisor, groups: int, deadline_s: float) -> list[RunningDomain]:
    """These groups of statistics of all running VMs; what a busy VM cannot tell is missing in its own.

    Each call that hangs has found one more hung VM, which the next call passes over. Raises
    HypervisorLostError when libvirt itself does not answer, and what Hypervisor.call raises.
    """

    def ask(connection: Any) -> list[RunningDomain]:
        import libvirt

        flags = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE
        flags |= libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
        return [running_domain(*found) for found in connection.getAllDomainStats(groups, flags)]

    for share in _TRIES:
        try:
            return hypervisor.call("read the statistics of all VMs", ask, deadline_s=share * deadline_s)
        except GuestBusyError as error:
            silence = error
    raise HypervisorLostError(silence.message, silence.hint) from silence


def running_domain(handle: Any, stats: Mapping[str, Any]) -> RunningDomain:
    """One entry of the answer. Raises libvirtError."""
    return RunningDomain(handle, handle.UUIDString(), handle.name(), handle.ID(), stats)
