"""A cheap look at all VMs between two intervals: balloons, what guests can still take, the host's rest.

Called by the agent's clock while it waits. One bulk call, no XML, no jobs, nothing remembered. Promises that
every value a guest sent has been checked, and that a glance costs libvirt no more than one look at each VM.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vmpack.hypervisor import Hypervisor
from vmpack.model.glance import Glance, GuestGlance
from vmpack.observe.balloon_stats import LARGEST_KIB, read_stats
from vmpack.observe.host import parse_meminfo
from vmpack.units import KIB

_RUNNING = (1, 2)


class Glancer:
    """Looks at one host. Remembers nothing, so it may be used beside a HostSource."""

    def __init__(self, hypervisor: Hypervisor, proc: Path = Path("/proc"), deadline_s: float = 1.0) -> None:
        self._hypervisor = hypervisor
        self._meminfo = proc / "meminfo"
        self._deadline_s = deadline_s

    def glance(self) -> Glance:
        """The running VMs and the host's MemAvailable, now. Takes at most one deadline.

        What a guest says of itself is as old as its newest report. A report that cannot be true counts as
        none (`usable_bytes` None); a VM whose balloon is not known is left out. Raises what Hypervisor.call
        raises: GuestBusyError when a VM hangs, HypervisorLostError, UnavailableError, AccessError.
        """
        stats = self._hypervisor.call("glance at all VMs", _balloons, deadline_s=self._deadline_s)
        guests = ((uuid, _guest(found)) for uuid, found in stats)
        return Glance(
            host_available_bytes=_available_bytes(self._meminfo),
            guests={uuid: guest for uuid, guest in guests if guest is not None},
        )


def _balloons(connection: Any) -> list[tuple[str, Mapping[str, Any]]]:
    import libvirt

    wanted = libvirt.VIR_DOMAIN_STATS_STATE | libvirt.VIR_DOMAIN_STATS_BALLOON
    flags = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE
    flags |= libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
    return [(domain.UUIDString(), stats) for domain, stats in connection.getAllDomainStats(wanted, flags)]


def _guest(stats: Mapping[str, Any]) -> GuestGlance | None:
    balloon_bytes, nominal_bytes = (
        _size_bytes(stats.get(f"balloon.{key}")) for key in ("current", "maximum")
    )
    if stats.get("state.state") not in _RUNNING or balloon_bytes is None or nominal_bytes is None:
        return None
    report, _ = read_stats(stats, nominal_bytes, 0.0)
    usable_bytes = None if report is None else report.usable_bytes
    return GuestGlance(min(balloon_bytes, nominal_bytes), usable_bytes)


def _size_bytes(kib: object) -> int | None:
    return (
        kib * KIB if isinstance(kib, int) and not isinstance(kib, bool) and 0 < kib <= LARGEST_KIB else None
    )


def _available_bytes(meminfo: Path) -> int | None:
    try:
        return parse_meminfo(meminfo.read_text()).get("MemAvailable")
    except OSError:
        return None
