"""One VM as a migration meets it, on either host: state, sizes, what must arrive with it, what ties it down.

Called by migration.py and migration_checks.py.
"""

from __future__ import annotations

import difflib
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element

from vmpack.errors import GuestGoneError, HypervisorError, UsageError
from vmpack.hypervisor import Hypervisor, find_domain, job_name, nominal_bytes, translated
from vmpack.model.migration import Presence
from vmpack.model.policy_namespace import POLICY_NAMESPACE, POLICY_PREFIX
from vmpack.units import KIB

_PASSTHROUGH = (
    ("devices/hostdev[@type='pci']", "a passed-through PCI device"),
    ("devices/hostdev[@type='mdev']", "a mediated device (a part of a GPU)"),
    ("devices/hostdev[@type='usb']", "a passed-through USB device"),
    ("devices/interface[@type='hostdev']", "a passed-through network device"),
    ("devices/interface[@type='vdpa']", "a vDPA network device"),
    ("devices/disk[@type='nvme']", "a passed-through NVMe disk"),
    ("devices/filesystem", "a folder shared with its host"),
    ("launchSecurity", "memory encrypted with a key of its host's processor"),
)


@dataclass(frozen=True, slots=True)
class MigrantVm:
    """One VM at one moment."""

    name: str
    presence: Presence
    job: str | None
    persistent: bool
    nominal_bytes: int
    balloon_bytes: int | None
    """None for a VM without a balloon, or one that does not tell."""
    stats_period_s: int
    policy: str | None
    """vmpack's own element of the metadata, as text."""
    ties: tuple[str, ...]
    """What cannot leave the host, in words."""


def find_migrant(hypervisor: Hypervisor, wanted: str) -> tuple[str, str, int]:
    """Uuid, name and nominal bytes of the VM with this uuid, else of the one with this name.

    Raises UsageError when there is none, and what Hypervisor.call raises.
    """

    def ask(connection: Any) -> tuple[str, str, int]:
        domains = connection.listAllDomains()
        for spelling in ("UUIDString", "name"):
            for domain in domains:
                if getattr(domain, spelling)() == wanted:
                    return domain.UUIDString(), domain.name(), nominal_bytes(domain)
        near = difflib.get_close_matches(wanted, [domain.name() for domain in domains], 3, 0.5)
        hint = f"there is {', '.join(near)}" if near else "`virsh list --all` names those there are"
        raise UsageError(f"no VM is named {wanted}", hint)

    return hypervisor.call("list the VMs", ask)


def read_migrant(hypervisor: Hypervisor, uuid: str) -> MigrantVm:
    """The VM as this libvirt shows it. Raises GuestGoneError and what Hypervisor.call raises."""
    return hypervisor.call(f"look at the VM {uuid}", lambda connection: _read(find_domain(connection, uuid)))


def presence(hypervisor: Hypervisor, uuid: str) -> Presence:
    """Whether and how this host has the VM; asks nothing of its QEMU. Raises what Hypervisor.call raises."""

    def ask(connection: Any) -> Presence:
        try:
            return _presence(find_domain(connection, uuid))
        except GuestGoneError:
            return "absent"

    return hypervisor.call(f"look for the VM {uuid}", ask)


def restore_extras(hypervisor: Hypervisor, uuid: str, was: MigrantVm, persistent: bool) -> None:
    """Give the VM the statistics period and the policy that it had. Raises what Hypervisor.call raises."""

    def act(connection: Any) -> None:
        import libvirt

        domain = find_domain(connection, uuid)
        lasting = libvirt.VIR_DOMAIN_AFFECT_CONFIG if persistent else 0
        domain.setMemoryStatsPeriod(was.stats_period_s, libvirt.VIR_DOMAIN_AFFECT_LIVE)
        if was.policy is not None:
            domain.setMetadata(
                libvirt.VIR_DOMAIN_METADATA_ELEMENT,
                was.policy,
                POLICY_PREFIX,
                POLICY_NAMESPACE,
                libvirt.VIR_DOMAIN_AFFECT_LIVE | lasting,
            )

    hypervisor.call(f"put the settings of the VM {was.name} right", act)


def ties(domain: Element) -> tuple[str, ...]:
    """What in a domain's XML cannot leave its host, in words."""
    return tuple(words for path, words in _PASSTHROUGH if domain.find(path) is not None)


def _read(domain: Any) -> MigrantVm:
    tree = ElementTree.fromstring(domain.XMLDesc(0))
    stats = tree.find("devices/memballoon/stats")
    policy = tree.find(f"metadata/{{{POLICY_NAMESPACE}}}policy")
    return MigrantVm(
        name=domain.name(),
        presence=_presence(domain),
        job=job_name(domain),
        persistent=bool(domain.isPersistent()),
        nominal_bytes=nominal_bytes(domain),
        balloon_bytes=_balloon_bytes(domain),
        stats_period_s=0 if stats is None else int(stats.get("period", "0")),
        policy=None if policy is None else _plain(policy),
        ties=ties(tree),
    )


def _plain(policy: Element) -> str:
    """The element without its namespace, which libvirt adds when it is set."""
    plain = Element(policy.tag.partition("}")[2], policy.attrib)
    return ElementTree.tostring(plain, encoding="unicode")


def _presence(domain: Any) -> Presence:
    import libvirt

    state, _reason = domain.state()
    if state in (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_BLOCKED, libvirt.VIR_DOMAIN_SHUTDOWN):
        return "running"
    return "stopped" if state in (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_CRASHED) else "paused"


def _balloon_bytes(domain: Any) -> int | None:
    try:
        with translated(f"read the balloon of {domain.name()}"):
            actual_kib = domain.memoryStats().get("actual")
    except GuestGoneError:
        raise
    except HypervisorError:
        return None
    return None if actual_kib is None else int(actual_kib) * KIB
