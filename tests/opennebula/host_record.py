"""A double of one host as oned keeps it: its state, template and capacity after monitoring messages."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Literal

from tests.opennebula.template import (
    BadTemplateError,
    Template,
    first,
    merge,
    parse,
    vectors,
    whole_number,
)

HostState = Literal["INIT", "MONITORED", "ERROR", "DISABLED", "OFFLINE"]
VmState = Literal["RUNNING", "POWEROFF", "SUSPENDED", "UNKNOWN"]

HOST_MONITORING = {
    "FREECPU": "FREE_CPU",
    "USEDCPU": "USED_CPU",
    "FREEMEMORY": "FREE_MEMORY",
    "USEDMEMORY": "USED_MEMORY",
    "CPUSPEED": "CPU_SPEED",
    "NETRX": "NETRX",
    "NETTX": "NETTX",
}
"""The only names of host/monitor that are kept; the vectors of NUMA nodes are left out of this double."""

_AFTER_STATE = {"RUNNING": "RUNNING", "FAILURE": "UNKNOWN", "SUSPENDED": "SUSPENDED", "POWEROFF": "POWEROFF"}


@dataclass
class VmRecord:
    """One VM on the host."""

    memory_mib: int
    state: VmState = "RUNNING"
    monitoring: Template = field(default_factory=list)
    cpu_pct: int = 0


@dataclass
class HostRecord:
    """One host; memory in KiB as in HOST_SHARE."""

    forgets_capacity: bool = False
    """As before 7.0: a system message without TOTALMEMORY takes all capacity away."""
    state: HostState = "INIT"
    error: str = ""
    template: Template = field(default_factory=list)
    monitoring: dict[str, int] = field(default_factory=dict)
    vms: dict[int, VmRecord] = field(default_factory=dict)
    total_kib: int = 0
    max_kib: int = 0
    max_cpu_pct: int = 800

    @property
    def usage_kib(self) -> int:
        """What its VMs were promised, whatever they use."""
        return sum(vm.memory_mib * 1024 for vm in self.vms.values())

    @property
    def cpu_usage_pct(self) -> int:
        """What its VMs were promised, 100 for a CPU."""
        return sum(vm.cpu_pct for vm in self.vms.values())

    def fits(self, memory_mib: int, cpu_pct: int = 0) -> bool:
        """Would the scheduler put such a VM here?"""
        enough = self.max_cpu_pct - self.cpu_usage_pct >= cpu_pct
        return enough and self.max_kib - self.usage_kib >= memory_mib * 1024

    def update(self, text: str, append: bool = True) -> None:
        """The administrator's `onehost update`; without `append` it replaces all that was there."""
        given = parse(text)
        self.template = merge(self.template, given) if append else given
        self.max_kib = max_kib(self.total_kib, first(self.template, "RESERVED_MEM"))

    def offline(self) -> None:
        """`onehost offline`: no message counts any more, and capacity is gone."""
        self.state, self.total_kib, self.max_kib = "OFFLINE", 0, 0
        gone = ("TOTALCPU", "TOTALMEMORY")
        self.template = [entry for entry in self.template if entry[0] not in gone]

    def take_system(self, text: str) -> None:
        """A SYSTEM_HOST message. One syntax error, and all of it is only a line in a log."""
        try:
            told = parse(text)
        except BadTemplateError:
            return
        if self.forgets_capacity:
            self.template = [entry for entry in self.template if entry[0] != "TOTALMEMORY"]
        self.template, self.error = merge(self.template, told), ""
        if self.state != "DISABLED":
            self.state = "MONITORED"
        total_kib = whole_number(first(self.template, "TOTALMEMORY")) or 0
        if total_kib != self.total_kib:
            self.total_kib = total_kib
            self.max_kib = max_kib(total_kib, first(self.template, "RESERVED_MEM"))

    def take_monitor(self, text: str) -> None:
        """A MONITOR_HOST message."""
        try:
            told = parse(text)
        except BadTemplateError:
            self.fail("Error parsing monitor information")
            return
        for name, kept in HOST_MONITORING.items():
            value = whole_number(first(told, name))
            if value is not None:
                self.monitoring[kept] = value

    def take_vm_monitor(self, text: str) -> None:
        """A MONITOR_VM message, of vm/monitor or vm/snapshot."""
        try:
            told = parse(text)
        except BadTemplateError:
            self.fail("Error parsing monitor information")
            return
        found: dict[int, Template] = {}
        for block in vectors(told, "VM"):
            number = whole_number(block.get("ID"))
            if number is None or number < 0:
                continue
            try:
                values = parse(base64.b64decode(block.get("MONITOR", "")).decode())
            except (BadTemplateError, ValueError):
                continue
            found[number] = merge(found[number], values) if number in found else values
        for number, values in found.items():
            if number in self.vms:
                self.vms[number].monitoring = merge(self.vms[number].monitoring, values)

    def take_vm_states(self, text: str) -> None:
        """A STATE_VM message; in a full list VMs that are missing take the state that it names for them."""
        try:
            told = parse(text)
        except BadTemplateError:
            return
        named = {whole_number(block.get("ID")): block.get("STATE", "") for block in vectors(told, "VM")}
        for number, state in named.items():
            if number in self.vms and state in _AFTER_STATE:
                self.vms[number].state = _AFTER_STATE[state]
        missing = first(told, "MISSING_STATE")
        if (first(told, "SYNC_STATE") or "").upper() in ("YES", "1") and missing is not None:
            for number in self.vms.keys() - named.keys():
                self.vms[number].state = "UNKNOWN" if missing == "UNKNOWN" else "POWEROFF"

    def fail(self, why: str) -> None:
        """A probe of the host failed: nobody knows any more how its VMs are."""
        if self.state in ("OFFLINE", "ERROR"):
            return
        self.error = why
        if self.state != "DISABLED":
            self.state = "ERROR"
        for vm in self.vms.values():
            if vm.state == "RUNNING":
                vm.state = "UNKNOWN"

    def told(self, name: str) -> str | None:
        """A value of the template as `onehost show` has it."""
        return first(self.template, name)

    def vm_told(self, number: int, name: str) -> str | None:
        """A value of a VM's monitoring as `onevm show` has it."""
        return first(self.vms[number].monitoring, name)


def max_kib(total_kib: int, reserved: str | None) -> int:
    """Capacity for VMs: the total less RESERVED_MEM (KiB or percent, may be negative; garbage is none)."""
    text = (reserved or "").rstrip()
    number = whole_number(text.removesuffix("%"))
    if number is None:
        return total_kib
    return int(total_kib * (1 - number / 100.0)) if text.endswith("%") else total_kib - number
