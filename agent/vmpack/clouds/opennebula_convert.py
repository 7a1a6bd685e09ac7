"""Changes the drivers of a live OpenNebula host; puts the old ones back when it is not monitored then.

Called by `vmpack opennebula convert`. Promises: VMs run on and keep the VMM driver of their record; what
cannot work is refused before anything is changed; whatever happens afterwards, the host is not left offline.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from vmpack.clock import Clock
from vmpack.clouds import opennebula_reserve as reserve
from vmpack.clouds.opennebula_policy import APPLIED
from vmpack.clouds.opennebula_text import template_text
from vmpack.clouds.opennebula_xml import (
    HostXml,
    VmXml,
    read_driver_names,
    read_host,
    read_hosts,
    read_vm,
)
from vmpack.errors import CloudAccessError, CloudError, CloudGoneError, UsageError, VmpackError

OURS = "vmpack"
STOCK = "kvm"
MONITORED, ERROR, DISABLED, OFFLINE = 2, 3, 4, 8
ENABLE, DISABLE, TAKE_OFFLINE = 0, 1, 2
PAUSE_S = 10.0
"""What monitord's order to stop the old client takes to reach it; its node answers nobody."""
LOOK_EVERY_S = 2.0
BEFORE = "VMPACK_IM_MAD_BEFORE", "VMPACK_VM_MAD_BEFORE"

_GPU_TOTALS = "COUNT MIG_COUNT IDLE FAULTS MEMORY_TOTAL MEMORY_USED UTILIZATION POWER_USAGE"
UNTOLD = (
    *("PACKEDMEMORY", "OFFEREDMEMORY", "VMPACK_STATE", "VMPACK_VERSION"),
    *("GPU", *(f"GPU_{name}" for name in _GPU_TOTALS.split())),
)
"""oned keeps for ever what was told once: this no longer holds when our probes tell nothing more."""


class Client(Protocol):
    """What is needed of opennebula_client."""

    def text(self, method: str, *arguments: object) -> str:
        """The answer to a call that gives text."""
        ...

    def number(self, method: str, *arguments: object) -> int:
        """The answer to a call that gives a number."""
        ...


@dataclass(frozen=True, slots=True)
class Drivers:
    """A host's pair."""

    im_mad: str
    vm_mad: str

    @property
    def ours(self) -> bool:
        """One of them, at least, is vmpack's."""
        return OURS in (self.im_mad, self.vm_mad)

    def __str__(self) -> str:
        return f"{self.im_mad}/{self.vm_mad}"


@dataclass(frozen=True, slots=True)
class ConversionPlan:
    """What shall be done, and why not."""

    host: HostXml
    now: Drivers
    wanted: Drivers
    vms: tuple[tuple[int, str], ...]
    """The host's VMs, each with the VMM driver that it keeps."""
    refusals: tuple[str, ...]

    @property
    def needed(self) -> bool:
        """The host does not have those drivers yet."""
        return self.now != self.wanted


@dataclass(frozen=True, slots=True)
class Conversion:
    """What came of it."""

    host: str
    status: Literal["done", "nothing", "failed"]
    now: Drivers
    detail: str
    vms: tuple[tuple[int, str], ...] = ()


class Converter:
    """Converts hosts of one oned."""

    def __init__(self, client: Client, clock: Clock, tell: Callable[[str], None]) -> None:
        self._client = client
        self._clock = clock
        self._tell = tell

    def plan(self, name: str, wanted: Drivers | None) -> ConversionPlan:
        """What would be done. `wanted` None: what the host had before us.

        Raises UsageError for an unknown host, CloudError.
        """
        host = self._find(name)
        now = Drivers(host.im_mad, host.vm_mad)
        target = wanted or (Drivers(*_kept(host)) if now.ours else now)
        vms, refusals = self._vms(host)
        if now != target:
            refusals += self._against(host, target)
        return ConversionPlan(host, now, target, vms, refusals)

    def carry_out(self, plan: ConversionPlan, timeout_s: float) -> Conversion:
        """Offline, other drivers, online, and wait until it is monitored.

        Raises CloudError; the old drivers were put back then, as far as oned answered.
        """
        name = plan.host.name
        if not plan.needed:
            return Conversion(name, "nothing", plan.now, f"it has the drivers {plan.now} already", plan.vms)
        settled = False
        try:
            self._switch(plan, plan.wanted)
            detail = self._monitored(plan, timeout_s)
            settled = detail is None
        finally:
            if not settled:
                self._put_back(plan)
        if detail is None:
            words = _state_words(plan.host.state)
            if plan.wanted.im_mad != OURS:
                words += self._forget(plan)
            return Conversion(name, "done", plan.wanted, words, plan.vms)
        back = self._monitored(plan, timeout_s)
        more = "" if back is None else f"; with {plan.now} again: {back}"
        return Conversion(name, "failed", plan.now, f"{detail}{more}", plan.vms)

    def _forget(self, plan: ConversionPlan) -> str:
        """Owners of its VMs no longer see what held; words for those that do, because oned refused."""
        left = []
        for vm_id, _ in plan.vms:
            try:
                vm = read_vm(self._client.text("vm.info", vm_id))
                told = [name for name in vm.user_template.values if name.startswith(APPLIED)]
                if told:
                    self._client.number("vm.update", vm_id, template_text(dict.fromkeys(told)), 1)
            except CloudGoneError:
                continue
            except VmpackError:
                left.append(str(vm_id))
        return f"; {APPLIED}* could not be taken from VMs {', '.join(left)}" if left else ""

    def _put_back(self, plan: ConversionPlan) -> None:
        name = plan.host.name
        self._tell(f"putting {plan.now} back on {name}")
        try:
            self._switch(plan, plan.now)
        except VmpackError as error:
            raise CloudError(
                f"{name} may be offline, and the drivers {plan.now} could not be put back: {error.message}",
                f"once oned answers: onehost show {name}; set IM_MAD and VM_MAD with onehost update {name}, "
                f"then onehost enable {name}. Its VMs run on meanwhile",
            ) from error

    def _find(self, name: str) -> HostXml:
        hosts, _faults = read_hosts(self._client.text("hostpool.info"))
        found = [host for host in hosts if name in (host.name, str(host.id))]
        if len(found) != 1:
            known = ", ".join(sorted(host.name for host in hosts)) or "none"
            raise UsageError(f"OpenNebula has no host {name!r:.80}", f"it has: {known[:400]}")
        return found[0]

    def _host(self, host_id: int) -> HostXml:
        return read_host(self._client.text("host.info", host_id))

    def _vms(self, host: HostXml) -> tuple[tuple[tuple[int, str], ...], tuple[str, ...]]:
        vms: list[tuple[int, str]] = []
        moving: list[int] = []
        for vm_id in host.vm_ids:
            try:
                vm = read_vm(self._client.text("vm.info", vm_id))
            except CloudGoneError:
                continue
            vms.append((vm_id, _driver_of(vm)))
            if vm.state == 3 and vm.lcm_state not in (3, 16):
                moving.append(vm_id)
        words = ", ".join(str(vm_id) for vm_id in moving[:10])
        return tuple(vms), (f"something is being done to its VMs: {words}; wait for it",) if moving else ()

    def _against(self, host: HostXml, target: Drivers) -> tuple[str, ...]:
        refusals = []
        if host.state == ERROR and target.ours and not Drivers(host.im_mad, host.vm_mad).ours:
            refusals.append("it is in ERROR with the drivers that it has; mend that first")
        known = self._known_vm_mads()
        if known and target.vm_mad not in known:
            refusals.append(
                f"oned knows no VM_MAD {target.vm_mad!r}: `./install.sh opennebula --edit` on the front-end, "
                "then restart opennebula"
            )
        if target.im_mad != OURS and reserve.stands(host.template):
            refusals.append(
                f"memory of it is granted to the scheduler: first `vmpack grant {host.name} --off`; where "
                "vmpack-grant.timer runs stop it before, for it grants again within a minute"
            )
        return tuple(refusals)

    def _known_vm_mads(self) -> frozenset[str]:
        """The names of oned.conf's VM_MADs; none where this user may not ask."""
        try:
            told = self._client.text("system.config")
        except CloudAccessError:
            return frozenset()
        return read_driver_names(told, "VM_MAD")

    def _switch(self, plan: ConversionPlan, drivers: Drivers) -> None:
        """Without OFFLINE between them the old client would run on and the new one would never start."""
        host_id, was = plan.host.id, plan.host.state
        self._tell(f"{plan.host.name} goes offline for some {PAUSE_S:g} s; its VMs run on")
        try:
            self._client.number("host.status", host_id, TAKE_OFFLINE)
            self._clock.wait(PAUSE_S)
            gone = {} if drivers.im_mad == OURS else _gone(self._host(host_id))
            self._client.number("host.update", host_id, _update(drivers, plan, gone), 1)
            found = self._host(host_id)
            if Drivers(found.im_mad, found.vm_mad) != drivers:
                raise CloudError(
                    f"oned shows {found.im_mad}/{found.vm_mad} on {found.name}, not {drivers}",
                    "does somebody else change this host?",
                )
        finally:
            if was != OFFLINE:
                self._client.number("host.status", host_id, ENABLE)

    def _monitored(self, plan: ConversionPlan, timeout_s: float) -> str | None:
        """None: it is monitored, or was not to be. Else what came instead."""
        if plan.host.state == OFFLINE:
            return None
        end_s = self._clock.time_s() + timeout_s
        self._tell(f"waiting until {plan.host.name} is monitored, at most {timeout_s:g} s")
        while True:
            host = self._host(plan.host.id)
            if host.state == MONITORED:
                if plan.host.state == DISABLED:
                    self._client.number("host.status", plan.host.id, DISABLE)
                return None
            if host.state == ERROR:
                reason = host.template.values.get("ERROR", "no reason given")
                return f"OpenNebula cannot monitor it: {reason[:400]}"
            if self._clock.time_s() >= end_s:
                return f"it was not monitored within {timeout_s:g} s"
            if self._clock.wait(LOOK_EVERY_S):
                return "the wait was ended"


def _gone(host: HostXml) -> Mapping[str, str | None]:
    """What is taken back with our drivers: a grant, made since it was looked for, and what our probes told.

    Names are somebody else's where our probes never spoke.
    """
    told = {*host.template.values, *host.template.vectors}
    names = [name for name in UNTOLD if name in told] if "VMPACK_VERSION" in told else []
    return {**dict.fromkeys(names), **reserve.put_back(host.template)}


def _update(drivers: Drivers, plan: ConversionPlan, gone: Mapping[str, str | None]) -> str:
    """Attributes to append."""
    values: dict[str, str | None] = {"IM_MAD": drivers.im_mad, "VM_MAD": drivers.vm_mad}
    values |= zip(BEFORE, _before(drivers, plan), strict=True)
    return template_text({**values, **gone})


def _before(drivers: Drivers, plan: ConversionPlan) -> tuple[str, str] | tuple[None, None]:
    """What is kept for the way back, once the host has `drivers`."""
    if not drivers.ours:
        return None, None
    return _kept(plan.host) if plan.now.ours else (plan.now.im_mad, plan.now.vm_mad)


def _kept(host: HostXml) -> tuple[str, str]:
    im_mad, vm_mad = (_name(host.template.values.get(key, "")) or STOCK for key in BEFORE)
    return im_mad, vm_mad


def _name(text: str) -> str:
    """A driver's name, or nothing where it is none."""
    return text if re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", text) else ""


def checked_name(text: str) -> str:
    """A driver's name as a person gave it. Raises UsageError."""
    if not _name(text):
        raise UsageError(f"{text!r:.80} is no driver's name", "letters, digits, _ . -: kvm, qemu, vmpack")
    return text


def _driver_of(vm: VmXml) -> str:
    return vm.history[-1].vm_mad if vm.history else ""


def _state_words(state: int) -> str:
    return {OFFLINE: "it stays offline, as it was", DISABLED: "monitored, and disabled as it was"}.get(
        state, "monitored"
    )


def failure(conversion: Conversion) -> VmpackError:
    """What is raised for a conversion that was taken back."""
    return CloudError(
        f"{conversion.host} was not converted: {conversion.detail}",
        f"it has the drivers {conversion.now} again; /var/log/one/monitor.log on the front-end tells more",
    )
