"""One interval as ready-to-print texts for OpenNebula's probes, one per category.

Called by the publisher, which writes them under RUN_DIR/probe/; a probe then only prints its file.
One syntax error makes OpenNebula refuse the whole message and put the host in ERROR, so every value is
quoted ASCII. OpenNebula also never forgets a name, so one that had a value once always has one (a zero).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from vmpack.model.gpu import Gpu
from vmpack.model.guest import GuestSnapshot
from vmpack.model.host import UnreadableGuest
from vmpack.model.interval import Interval
from vmpack.model.machine import Machine
from vmpack.model.plan import GuestPlan
from vmpack.publish import gpu_text
from vmpack.publish.quoting import quotable
from vmpack.units import KIB

State = Literal["ACTIVE", "OBSERVE", "FROZEN"]

CATEGORIES = ("host-system", "vm-snapshot")

_VM_NAME = re.compile(r"one-([0-9]{1,9})")


@dataclass(frozen=True, slots=True)
class ProbeSettings:
    """What a host's texts depend on beside the interval."""

    machine: Machine
    granted_bytes: int
    """What TOTALMEMORY is raised by."""
    version: str
    observe_only: bool


def host_state(interval: Interval, observe_only: bool) -> State:
    """What the agent may do on this host: a frozen host stays FROZEN in observe mode too."""
    if interval.snapshot.frozen:
        return "FROZEN"
    return "OBSERVE" if observe_only else "ACTIVE"


def render(interval: Interval, settings: ProbeSettings) -> dict[str, str]:
    """Text by category, for each of CATEGORIES; a text is empty or ends with a newline."""
    return {
        "host-system": _host_system(interval, settings),
        "vm-snapshot": _vm_snapshot(interval, settings.machine),
    }


def vm_id(name: str) -> int | None:
    """OpenNebula's number of the VM whose domain has this name; None for one that is not OpenNebula's."""
    match = _VM_NAME.fullmatch(name)
    return int(match[1]) if match else None


def _host_system(interval: Interval, settings: ProbeSettings) -> str:
    """What OpenNebula's own probe for this says, whose place it takes, and what is packed."""
    machine, offer = settings.machine, interval.plan.offer
    values = {
        "HYPERVISOR": "kvm",
        "TOTALCPU": str(100 * machine.cpus),
        "CPUSPEED": str(machine.cpu_mhz),
        "TOTALMEMORY": _kib(interval.snapshot.capacity_bytes + settings.granted_bytes),
    }
    if machine.cgroups_version is not None:
        values["CGROUPS_VERSION"] = str(machine.cgroups_version)
    values |= {
        "PACKEDMEMORY": _kib(offer.packed_bytes),
        "OFFEREDMEMORY": _kib(offer.memory_bytes),
        "VMPACK_STATE": host_state(interval, settings.observe_only),
        "VMPACK_VERSION": settings.version,
    }
    return _lines(values) + gpu_text.host_lines(interval.snapshot.gpus)


def _vm_snapshot(interval: Interval, machine: Machine) -> str:
    plans = {plan.uuid: plan for plan in interval.plan.guests}
    snapshot = interval.snapshot
    has_gpus = machine.has_gpus or bool(snapshot.gpus)
    told = [(vm.name, _lines(_unreadable_values(vm))) for vm in snapshot.unreadable]
    told += [
        (
            guest.name,
            _lines(_vm_values(guest, plans.get(guest.uuid))) + _gpu_lines(guest, snapshot.gpus, has_gpus),
        )
        for guest in snapshot.guests
    ]
    numbered = ((vm_id(name), lines) for name, lines in told)
    return "".join(_vm_block(number, lines) for number, lines in numbered if number is not None)


def _vm_values(guest: GuestSnapshot, plan: GuestPlan | None) -> dict[str, str]:
    return {
        "REALMEMORY": _kib(guest.balloon_bytes),
        "MAXMEMORY": _kib(guest.nominal_bytes),
        "PACKEDMEMORY": _kib(guest.nominal_bytes - guest.balloon_bytes),
        "VMPACK_FLOOR": _kib(plan.floor_bytes if plan else 0),
        "VMPACK_TARGET": _kib(plan.target_bytes if plan else 0),
        "VMPACK_STATE": plan.verdict.upper() if plan else "UNKNOWN",
        "VMPACK_REASON": plan.reasons[-1].rule if plan and plan.reasons else "none",
    }


def _unreadable_values(guest: UnreadableGuest) -> dict[str, str]:
    """What was printed of it before and is not known now stays as it was: it still has that memory."""
    return {
        "REALMEMORY": _kib(guest.balloon_bytes),
        "VMPACK_STATE": "UNREADABLE",
        "VMPACK_REASON": "no_answer",
    }


def _gpu_lines(guest: GuestSnapshot, gpus: Sequence[Gpu], has_gpus: bool) -> str:
    """A VM without a device of the host's has no GPU; of one that has, its guest may tell by itself.

    On a host with GPUs that is said while none of them is read, too, for one may have been told before.
    """
    values = gpu_text.vm_values(gpus, guest.uuid)
    if values or not has_gpus or "pci_passthrough" in guest.exclusions:
        return _lines(values)
    return gpu_text.NO_GPU


def _vm_block(number: int, lines: str) -> str:
    encoded = base64.b64encode(lines.encode("ascii")).decode("ascii")
    return f'VM=[ ID="{number}", MONITOR="{encoded}" ]\n'


def _lines(values: Mapping[str, str]) -> str:
    return "".join(f'{name}="{quotable(value)}"\n' for name, value in values.items())


def _kib(amount_bytes: int) -> str:
    return str(max(0, amount_bytes) // KIB)
