"""A double of what oned keeps: VMs with their stays, hosts in clusters; and its XML. Used by oned.py."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

from tests.opennebula.host_record import HostRecord, VmRecord, max_kib
from tests.opennebula.template import Template, first, parse

ACTIVE, POWEROFF, DONE, PENDING, SUSPENDED = 3, 8, 6, 1, 5
RUNNING, MIGRATE, PROLOG_MIGRATE, BOOT, UNKNOWN = 3, 4, 8, 2, 16
HOST_STATES = {"INIT": 0, "MONITORED": 2, "ERROR": 3, "DISABLED": 4, "OFFLINE": 8}
SHORT_TEMPLATE = ("CPU", "MEMORY", "VCPU")


@dataclass
class Stay:
    """One history record."""

    sequence: int
    host_id: int
    host_name: str
    vm_mad: str = "vmpack"
    ended: bool = False


@dataclass
class OnedVm:
    """One VM."""

    id: int
    name: str
    template: Template
    user_template: Template = field(default_factory=list)
    state: int = PENDING
    lcm_state: int = 0
    uid: int = 0
    stays: list[Stay] = field(default_factory=list)
    monitoring: Template = field(default_factory=list)
    locked: int = 0
    """0, or the level: 1 USE, 2 MANAGE, 3 ADMIN. It binds oneadmin too."""

    @property
    def memory_mib(self) -> int:
        """What its owner pays for."""
        return int(first(self.template, "MEMORY") or 0)

    @property
    def cpu_pct(self) -> int:
        """100 for a whole CPU."""
        return int(float(first(self.template, "CPU") or 0) * 100)

    def record(self) -> VmRecord:
        """What a host is charged for it."""
        return VmRecord(self.memory_mib, cpu_pct=self.cpu_pct)

    @property
    def running(self) -> bool:
        """ACTIVE and RUNNING."""
        return (self.state, self.lcm_state) == (ACTIVE, RUNNING)

    def move(self, host: OnedHost) -> None:
        """A new history record."""
        sequence = self.stays[-1].sequence + 1 if self.stays else 0
        self.stays.append(Stay(sequence, host.id, host.name, host.vm_mad))


@dataclass
class OnedHost:
    """One host: what HostRecord keeps, and where it stands."""

    id: int
    name: str
    record: HostRecord
    cluster_id: int = 0
    im_mad: str = "vmpack"
    vm_mad: str = "vmpack"


@dataclass
class Cluster:
    """One cluster."""

    id: int
    name: str
    template: Template = field(default_factory=list)


def recompute(host: OnedHost, clusters: dict[int, Cluster]) -> None:
    """MAX_MEM again: the host's RESERVED_MEM, and where that is absent or empty the cluster's."""
    own = first(host.record.template, "RESERVED_MEM")
    holds = own or first(clusters[host.cluster_id].template, "RESERVED_MEM") or ""
    too_large = len(holds) > 19
    host.record.max_kib = max_kib(host.record.total_kib, None if too_large else holds)


def new_host(
    number: int, name: str, total_mib: int, text: str = "", im_mad: str = "vmpack", cluster_id: int = 0
) -> OnedHost:
    """A monitored host of this size."""
    record = HostRecord(state="MONITORED", total_kib=total_mib * 1024, max_kib=total_mib * 1024)
    record.template = parse(f'HYPERVISOR="kvm"\nTOTALMEMORY="{total_mib * 1024}"\n{text}')
    return OnedHost(number, name, record, cluster_id, im_mad, im_mad)


def host_xml(host: OnedHost, clusters: dict[int, Cluster]) -> str:
    """<HOST>."""
    record = host.record
    share = (
        f"<MEM_USAGE>{record.usage_kib}</MEM_USAGE><CPU_USAGE>{record.cpu_usage_pct}</CPU_USAGE>"
        f"<TOTAL_MEM>{record.total_kib}</TOTAL_MEM><TOTAL_CPU>800</TOTAL_CPU>"
        f"<MAX_MEM>{record.max_kib}</MAX_MEM><MAX_CPU>{record.max_cpu_pct}</MAX_CPU>"
        f"<RUNNING_VMS>{len(record.vms)}</RUNNING_VMS>"
    )
    ids = "".join(f"<ID>{number}</ID>" for number in sorted(record.vms))
    return (
        f"<HOST><ID>{host.id}</ID><NAME>{escape(host.name)}</NAME><STATE>{HOST_STATES[record.state]}</STATE>"
        f"<PREV_STATE>2</PREV_STATE><IM_MAD><![CDATA[{host.im_mad}]]></IM_MAD>"
        f"<VM_MAD><![CDATA[{host.vm_mad}]]></VM_MAD><CLUSTER_ID>{host.cluster_id}</CLUSTER_ID>"
        f"<CLUSTER>{escape(clusters[host.cluster_id].name)}</CLUSTER><HOST_SHARE>{share}</HOST_SHARE>"
        f"<VMS>{ids}</VMS>{template_xml('TEMPLATE', record.template)}<MONITORING/></HOST>"
    )


def vm_xml(vm: OnedVm, *, whole: bool = True, all_stays: bool = False) -> str:
    """<VM>; a short one leaves most of its templates out, and only a single VM's tells all its stays."""
    template, user = vm.template, vm.user_template
    if not whole:
        template = [entry for entry in template if entry[0] in SHORT_TEMPLATE]
        user = [entry for entry in user if entry[0] in ("LABELS", "SCHED_REQUIREMENTS", "ERROR")]
    stays = "".join(map(_stay_xml, vm.stays if all_stays else vm.stays[-1:]))
    monitoring = template_xml("MONITORING", vm.monitoring) if all_stays else "<MONITORING/>"
    return (
        f"<VM><ID>{vm.id}</ID><UID>{vm.uid}</UID><GID>0</GID><NAME>{escape(vm.name)}</NAME>"
        f"{f'<LOCK><LOCKED>{vm.locked}</LOCKED></LOCK>' if vm.locked else ''}"
        f"<LAST_POLL>0</LAST_POLL><STATE>{vm.state}</STATE><LCM_STATE>{vm.lcm_state}</LCM_STATE>"
        f"<RESCHED>0</RESCHED><STIME>1</STIME><ETIME>0</ETIME><DEPLOY_ID>uuid-{vm.id}</DEPLOY_ID>{monitoring}"
        f"{template_xml('TEMPLATE', template)}{template_xml('USER_TEMPLATE', user)}"
        f"<HISTORY_RECORDS>{stays}</HISTORY_RECORDS></VM>"
    )


def cluster_xml(cluster: Cluster) -> str:
    """<CLUSTER>."""
    return (
        f"<CLUSTER><ID>{cluster.id}</ID><NAME>{escape(cluster.name)}</NAME><HOSTS/><DATASTORES/><VNETS/>"
        f"{template_xml('TEMPLATE', cluster.template)}</CLUSTER>"
    )


def monitoring_xml(vms: Iterable[OnedVm], time_s: int) -> str:
    """<MONITORING_DATA>: the newest record of each VM."""
    records = "".join(
        f"<MONITORING><ID>{vm.id}</ID><TIMESTAMP>{time_s}</TIMESTAMP>{_leaves(vm.monitoring)}</MONITORING>"
        for vm in vms
    )
    return f"<MONITORING_DATA>{records}</MONITORING_DATA>"


def template_xml(tag: str, template: Template) -> str:
    """A template as oned prints it: every leaf in CDATA."""
    return f"<{tag}>{_leaves(template)}</{tag}>"


def _leaves(template: Template) -> str:
    parts = []
    for name, value in template:
        if isinstance(value, str):
            parts.append(f"<{name}><![CDATA[{value}]]></{name}>")
        else:
            inner = "".join(f"<{key}><![CDATA[{text}]]></{key}>" for key, text in value.items())
            parts.append(f"<{name}>{inner}</{name}>")
    return "".join(parts)


def _stay_xml(stay: Stay) -> str:
    return (
        f"<HISTORY><OID>0</OID><SEQ>{stay.sequence}</SEQ><HOSTNAME>{escape(stay.host_name)}</HOSTNAME>"
        f"<HID>{stay.host_id}</HID><CID>0</CID><STIME>1</STIME><ETIME>{int(stay.ended)}</ETIME>"
        f"<VM_MAD><![CDATA[{stay.vm_mad}]]></VM_MAD></HISTORY>"
    )
