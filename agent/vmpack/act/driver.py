"""The few things that are done to a VM through libvirt, one method each.

Called by executor.py and the service.

Promises that every method ends within its deadline, and raises only vmpack's errors: GuestGoneError,
GuestBusyError (another job has the VM, or it does not answer), HypervisorLostError, HypervisorError.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from vmpack.act.learned_xml import learned_xml
from vmpack.act.policy_xml import policy_xml
from vmpack.errors import HypervisorError
from vmpack.hypervisor import Hypervisor, find_domain, job_name, nominal_bytes, translated
from vmpack.model.guest import GuestPolicy
from vmpack.model.learned import LEARNED_NAMESPACE, LEARNED_PREFIX, Learned
from vmpack.model.policy_namespace import POLICY_NAMESPACE, POLICY_PREFIX
from vmpack.units import KIB, format_bytes

LEARNED_DEADLINE_S = 1.0


@dataclass(frozen=True, slots=True)
class Live:
    """One VM as it is at this moment."""

    balloon_bytes: int
    nominal_bytes: int
    running: bool
    job: str | None
    paused: bool = False


class Driver(Protocol):
    """What the executor needs of a hypervisor."""

    def look(self, uuid: str) -> Live:
        """The VM as it is now."""
        ...

    def balloon_bytes(self, uuid: str) -> int:
        """What the VM has now."""
        ...

    def set_memory(self, uuid: str, size_bytes: int) -> None:
        """Ask the balloon to leave the VM this much (rounded down to KiB). Returns before it has."""
        ...

    def set_stats_period(self, uuid: str, period_s: int) -> None:
        """Have the balloon driver report so often; 0 is never."""
        ...


class LibvirtDriver:
    """The Driver for real VMs; also writes their policies, and what was learned of them."""

    def __init__(self, hypervisor: Hypervisor, changed: Callable[[str], None] = lambda _uuid: None) -> None:
        """`changed(uuid)` is called after a change of which libvirt sends no event."""
        self._hypervisor = hypervisor
        self._changed = changed

    def look(self, uuid: str) -> Live:
        """See Driver."""
        return self._hypervisor.call(f"look at the VM {uuid}", lambda connection: _live(connection, uuid))

    def balloon_bytes(self, uuid: str) -> int:
        """See Driver."""
        what = f"read the balloon of the VM {uuid}"
        return self._hypervisor.call(what, lambda connection: _balloon_bytes(find_domain(connection, uuid)))

    def set_memory(self, uuid: str, size_bytes: int) -> None:
        """See Driver."""

        def act(connection: Any) -> None:
            import libvirt

            domain = find_domain(connection, uuid)
            domain.setMemoryFlags(size_bytes // KIB, libvirt.VIR_DOMAIN_AFFECT_LIVE)

        self._hypervisor.call(f"set the memory of the VM {uuid} to {format_bytes(size_bytes)}", act)

    def set_stats_period(self, uuid: str, period_s: int) -> None:
        """See Driver."""

        def act(connection: Any) -> None:
            import libvirt

            domain = find_domain(connection, uuid)
            domain.setMemoryStatsPeriod(period_s, libvirt.VIR_DOMAIN_AFFECT_LIVE)

        self._hypervisor.call(f"set the statistics period of the VM {uuid} to {period_s} s", act)
        self._changed(uuid)

    def write_policy(self, uuid: str, policy: GuestPolicy) -> None:
        """Write the VM's own settings: to the running VM and, where it is persistent, for later starts."""

        def act(connection: Any) -> None:
            _set_metadata(find_domain(connection, uuid), policy_xml(policy), POLICY_PREFIX, POLICY_NAMESPACE)

        self._hypervisor.call(f"write the policy of the VM {uuid}", act)

    def write_learned(self, uuid: str, learned: Learned | None) -> None:
        """Write what was learned of the VM (in Unix time) where its policy is; None removes it.

        It is written now and then and can wait: a VM that does not answer costs little.
        """
        text = None if learned is None else learned_xml(learned)

        def act(connection: Any) -> None:
            _set_metadata(find_domain(connection, uuid), text, LEARNED_PREFIX, LEARNED_NAMESPACE)

        self._hypervisor.call(f"write what was learned of the VM {uuid}", act, deadline_s=LEARNED_DEADLINE_S)

    def vms_with_learned(self) -> tuple[str, ...]:
        """The uuids of all VMs, also of those that do not run, in whose metadata something learned stands."""

        def look(connection: Any) -> tuple[str, ...]:
            domains = connection.listAllDomains()
            return tuple(domain.UUIDString() for domain in domains if _has_learned(domain))

        return self._hypervisor.call("look for what was learned of VMs", look)


def _set_metadata(domain: Any, text: str | None, prefix: str, namespace: str) -> None:
    import libvirt

    flags = libvirt.VIR_DOMAIN_AFFECT_LIVE if domain.isActive() else 0
    if domain.isPersistent():
        flags |= libvirt.VIR_DOMAIN_AFFECT_CONFIG
    domain.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, text, prefix, namespace, flags)


def _has_learned(domain: Any) -> bool:
    import libvirt

    for flags, may_have in (
        (libvirt.VIR_DOMAIN_AFFECT_LIVE, domain.isActive),
        (libvirt.VIR_DOMAIN_AFFECT_CONFIG, domain.isPersistent),
    ):
        # No such element, or a VM that ended meanwhile.
        with suppress(libvirt.libvirtError):
            if may_have():
                domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, LEARNED_NAMESPACE, flags)
                return True
    return False


def _live(connection: Any, uuid: str) -> Live:
    import libvirt

    domain = find_domain(connection, uuid)
    state, _reason = domain.state()
    return Live(
        balloon_bytes=_balloon_bytes(domain),
        nominal_bytes=nominal_bytes(domain),
        running=state in (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_BLOCKED),
        job=job_name(domain),
        paused=state == libvirt.VIR_DOMAIN_PAUSED,
    )


def _balloon_bytes(domain: Any) -> int:
    # Not info(): that follows the balloon by up to a second.
    with translated(f"read the balloon of {domain.name()}"):
        actual_kib, built_kib = domain.memoryStats().get("actual"), domain.maxMemory()
    if actual_kib is None:
        raise HypervisorError(f"the VM {domain.name()} has no balloon", "give it a memballoon device")
    # The guest writes this number: an impossible one must not count as memory given or taken.
    possible = type(actual_kib) is int and 0 < actual_kib <= built_kib
    return int(actual_kib if possible else built_kib) * KIB
