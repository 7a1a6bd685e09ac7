"""OpenNebula's XML (a driver's stdin, vm.xml, XML-RPC answers) as checked records.

Called by opennebula.py and the driver hooks; the one place that knows cpyutils. Promises: no entity, no
document type and nothing larger than the limit is read; every value is checked. Raises CloudError, and
UnavailableError where the extra `opennebula` is not installed.

cpyutils' XMLObject finds a name at any depth, so each record's own leaves are handed to it alone: an
owner's USER_TEMPLATE/STATE is never taken for the VM's. Its numbers are floats that may be infinite: numbers
are read here.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeVar
from xml.etree.ElementTree import Element

from vmpack.errors import CloudError, UnavailableError
from vmpack.units import KIB, MIB

T = TypeVar("T")

DOCUMENT_LARGEST_CHARACTERS = 4 * 2**20
"""Of one VM, host or driver action."""
POOL_LARGEST_CHARACTERS = 256 * 2**20
NUMBER_LARGEST = 2**62
_ODD = "the cloud is of another version, or something else answers in its place"


@dataclass(frozen=True, slots=True)
class Template:
    """A free-form template: what people and probes wrote. Names are upper case; nothing in it is trusted."""

    values: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Single values; the first of a name counts, as it does for oned."""
    vectors: Mapping[str, tuple[Mapping[str, str], ...]] = field(default_factory=lambda: MappingProxyType({}))
    """Vectors by name: NIC, PCI, TOPOLOGY..."""

    def value(self, vector: str, name: str) -> str:
        """One value of the first vector of that name; empty when it is not there."""
        found = self.vectors.get(vector, ())
        return found[0].get(name, "") if found else ""


@dataclass(frozen=True, slots=True)
class History:
    """One stay of a VM on a host."""

    sequence: int
    host_id: int
    host_name: str
    vm_mad: str = ""


@dataclass(frozen=True, slots=True)
class VmXml:
    """One VM as oned tells it."""

    id: int
    name: str
    state: int
    lcm_state: int
    memory_bytes: int
    """TEMPLATE/MEMORY: what the owner pays for."""
    vcpus: int
    cpu_pct: int
    """What it is promised, 100 for a whole CPU."""
    locked: bool
    """On whatever level: none of them lets it be migrated."""
    deploy_id: str
    template: Template
    user_template: Template
    history: tuple[History, ...]
    """The stays that the document tells, oldest first; most documents tell the last alone."""

    @property
    def host_name(self) -> str | None:
        """Where it is, or was last."""
        return self.history[-1].host_name if self.history else None


@dataclass(frozen=True, slots=True)
class HostXml:
    """One host as oned tells it."""

    id: int
    name: str
    state: int
    im_mad: str
    vm_mad: str
    cluster_id: int
    cluster: str
    total_bytes: int
    """What the probes say."""
    max_bytes: int
    """What the scheduler may fill: total less RESERVED_MEM."""
    usage_bytes: int
    """The sum of its VMs' TEMPLATE/MEMORY."""
    max_cpu_pct: int
    """What the scheduler may fill, 100 for each CPU."""
    cpu_usage_pct: int
    vm_ids: tuple[int, ...]
    template: Template


@dataclass(frozen=True, slots=True)
class ClusterXml:
    """One cluster as oned tells it."""

    id: int
    name: str
    template: Template


@dataclass(frozen=True, slots=True)
class ActionXml:
    """What oned hands to a driver action on stdin."""

    vm: VmXml
    host_name: str
    destination_name: str
    """Of a migration; else empty."""


def read_vm(text: str) -> VmXml:
    """One <VM>. Raises CloudError."""
    return _checked("VM", lambda: _vm(_root(text, "VM", DOCUMENT_LARGEST_CHARACTERS)))


def read_host(text: str) -> HostXml:
    """One <HOST>. Raises CloudError."""
    return _checked("host", lambda: _host(_root(text, "HOST", DOCUMENT_LARGEST_CHARACTERS)))


def read_vms(text: str) -> tuple[tuple[VmXml, ...], tuple[str, ...]]:
    """A <VM_POOL>: its VMs, and one sentence for each that cannot be read. Raises CloudError."""
    return _pool(text, "VM_POOL", "VM", _vm)


def read_hosts(text: str) -> tuple[tuple[HostXml, ...], tuple[str, ...]]:
    """A <HOST_POOL>: its hosts, and one sentence for each that cannot be read. Raises CloudError."""
    return _pool(text, "HOST_POOL", "HOST", _host)


def read_clusters(text: str) -> tuple[tuple[ClusterXml, ...], tuple[str, ...]]:
    """A <CLUSTER_POOL>: its clusters, and one sentence for each that cannot be read. Raises CloudError."""
    return _pool(text, "CLUSTER_POOL", "CLUSTER", _cluster)


def read_driver_names(text: str, kind: str) -> frozenset[str]:
    """The names in oned's configuration of its drivers of one kind: VM_MAD. Raises CloudError."""

    def read() -> frozenset[str]:
        root = _root(text, "OPENNEBULA_CONFIGURATION", DOCUMENT_LARGEST_CHARACTERS)
        return frozenset(_own(driver, ("NAME",))["NAME"] for driver in root.iterfind(kind)) - {""}

    return _checked("configuration", read)


def read_monitoring(text: str) -> Mapping[int, Mapping[str, str]]:
    """A <MONITORING_DATA>: what was measured, by VM or host id; the newest of each. Raises CloudError."""
    records, _ = _pool(text, "MONITORING_DATA", "MONITORING", _monitoring)
    return {number: values for number, _, values in sorted(records, key=lambda record: record[:2])}


def read_action(text: str) -> ActionXml:
    """The <VMM_DRIVER_ACTION_DATA> of a driver action. Raises CloudError."""

    def read() -> ActionXml:
        root = _root(text, "VMM_DRIVER_ACTION_DATA", DOCUMENT_LARGEST_CHARACTERS)
        own, vm = _own(root, ("HOST", "MIGR_HOST")), root.find("VM")
        if vm is None:
            raise ValueError("there is no VM in it")
        return ActionXml(_vm(vm), own["HOST"], own["MIGR_HOST"])

    return _checked("driver action", read)


def read_domain(text: str) -> Element:
    """The <domain> that oned makes for libvirt, with what an owner put into RAW. Raises CloudError."""
    return _checked("domain", lambda: _root(text, "domain", DOCUMENT_LARGEST_CHARACTERS))


def _checked(what: str, read: Callable[[], T]) -> T:
    try:
        return read()
    except ValueError as error:
        raise CloudError(f"the XML of a {what} cannot be used: {error}", _ODD) from error


def _pool(
    text: str, tag: str, member: str, read: Callable[[Element], T]
) -> tuple[tuple[T, ...], tuple[str, ...]]:
    root = _checked(tag, lambda: _root(text, tag, POOL_LARGEST_CHARACTERS))
    found: list[T] = []
    faults: list[str] = []
    for element in root.iterfind(member):
        try:
            found.append(read(element))
        except ValueError as error:
            faults.append(f"{member} {element.findtext('ID', default='?'):.20}: {error}")
    return tuple(found), tuple(faults)


def _root(text: str, tag: str, most_characters: int) -> Element:
    """The document's root. Raises ValueError for what is too large, not plain XML, or something else."""
    if len(text) > most_characters:
        raise ValueError(f"it has more than {most_characters} characters")
    defused = _defused()
    try:
        root: Element = defused.ElementTree.fromstring(text, forbid_dtd=True)
    except ElementTree.ParseError as error:
        raise ValueError(f"not well-formed: {error}") from error
    except defused.DefusedXmlException as error:
        raise ValueError(f"not allowed in it: {type(error).__name__}") from error
    if root.tag != tag:
        raise ValueError(f"found <{root.tag:.40}>, expected <{tag}>")
    return root


def _vm(element: Element) -> VmXml:
    own = _own(element, ("ID", "NAME", "STATE", "LCM_STATE", "DEPLOY_ID"))
    template = _template(element.find("TEMPLATE"))
    return VmXml(
        id=_number(own, "ID"),
        name=own["NAME"],
        state=_number(own, "STATE"),
        lcm_state=_number(own, "LCM_STATE"),
        memory_bytes=_number(template.values, "MEMORY") * MIB,
        vcpus=_number(template.values, "VCPU", 1),
        cpu_pct=_percent(template.values, "CPU"),
        locked=element.findtext("LOCK/LOCKED", "0").strip() not in ("", "0"),
        deploy_id=own["DEPLOY_ID"],
        template=template,
        user_template=_template(element.find("USER_TEMPLATE")),
        history=tuple(
            sorted(map(_history, element.iterfind("HISTORY_RECORDS/HISTORY")), key=lambda h: h.sequence)
        ),
    )


def _history(element: Element) -> History:
    own = _own(element, ("SEQ", "HID", "HOSTNAME", "VM_MAD"))
    return History(_number(own, "SEQ"), _number(own, "HID"), own["HOSTNAME"], own["VM_MAD"])


def _host(element: Element) -> HostXml:
    own = _own(element, ("ID", "NAME", "STATE", "IM_MAD", "VM_MAD", "CLUSTER_ID", "CLUSTER"))
    share = element.find("HOST_SHARE")
    if share is None:
        raise ValueError("HOST_SHARE is missing")
    sizes = _own(share, ("TOTAL_MEM", "MAX_MEM", "MEM_USAGE", "MAX_CPU", "CPU_USAGE"))
    return HostXml(
        id=_number(own, "ID"),
        name=own["NAME"],
        state=_number(own, "STATE"),
        im_mad=own["IM_MAD"],
        vm_mad=own["VM_MAD"],
        cluster_id=_number(own, "CLUSTER_ID", -1, least=-1),
        cluster=own["CLUSTER"],
        total_bytes=_number(sizes, "TOTAL_MEM") * KIB,
        # An administrator may reserve more than there is.
        max_bytes=_number(sizes, "MAX_MEM", least=-NUMBER_LARGEST) * KIB,
        usage_bytes=_number(sizes, "MEM_USAGE") * KIB,
        max_cpu_pct=_number(sizes, "MAX_CPU", 0, least=-NUMBER_LARGEST),
        cpu_usage_pct=_number(sizes, "CPU_USAGE", 0),
        vm_ids=tuple(_number({"ID": leaf.text or ""}, "ID") for leaf in element.iterfind("VMS/ID")),
        template=_template(element.find("TEMPLATE")),
    )


def _cluster(element: Element) -> ClusterXml:
    own = _own(element, ("ID", "NAME"))
    return ClusterXml(_number(own, "ID"), own["NAME"], _template(element.find("TEMPLATE")))


def _monitoring(element: Element) -> tuple[int, int, Mapping[str, str]]:
    values = _template(element).values
    return _number(values, "ID"), _number(values, "TIMESTAMP", 0), values


def _own(element: Element, names: tuple[str, ...]) -> dict[str, str]:
    """The named leaves of one element, empty where they are missing; never those of elements within it."""
    alone = Element(element.tag)
    alone.extend(child for child in element if len(child) == 0 and child.tag in names)
    found = _reader(names)(ElementTree.tostring(alone, encoding="unicode"))
    return {name: getattr(found, name) or "" for name in names}


def _template(element: Element | None) -> Template:
    values: dict[str, str] = {}
    vectors: dict[str, list[Mapping[str, str]]] = {}
    for child in () if element is None else element:
        name = child.tag.upper()
        if len(child) == 0:
            values.setdefault(name, child.text or "")
        else:
            vectors.setdefault(name, []).append({leaf.tag.upper(): leaf.text or "" for leaf in child})
    return Template(values, {name: tuple(found) for name, found in vectors.items()})


def _number(values: Mapping[str, str], name: str, missing: int | None = None, *, least: int = 0) -> int:
    text = values.get(name, "").strip()
    if not text and missing is not None:
        return missing
    try:
        number = int(text) if text.isascii() and len(text) <= 20 else None
    except ValueError:
        number = None
    if number is None or not least <= number <= NUMBER_LARGEST:
        raise ValueError(f"{name} is {text!r:.40}, expected a whole number")
    return number


def _percent(values: Mapping[str, str], name: str) -> int:
    """A share such as 0.5 as percent; 0 where it is not understood: only oned judges then."""
    text = values.get(name, "").strip()
    return int(float(text) * 100) if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text) else 0


def _defused() -> Any:
    try:
        import defusedxml
        import defusedxml.ElementTree
    except ImportError as error:
        raise _not_installed("defusedxml") from error
    return defusedxml


def _reader(names: tuple[str, ...]) -> Any:
    """A cpyutils class that reads these names."""
    try:
        from cpyutils.xmlobject import XMLObject
    except ImportError as error:
        raise _not_installed("cpyutils") from error
    return type("Leaves", (XMLObject,), {"values": list(names)})


def _not_installed(module: str) -> UnavailableError:
    return UnavailableError(
        f"Python's {module} is not installed, without which OpenNebula's XML is not read",
        "run ./install.sh opennebula again, or pip with the extra `opennebula` where pip did it",
    )
