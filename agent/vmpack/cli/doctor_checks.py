"""What `doctor` looks at: one function per subject, each giving findings with what to do.

Called by doctor.py. Promises: nothing is changed or created; what a check cannot see is a finding, not an
exception.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vmpack.decide.explain import words
from vmpack.errors import VmpackError
from vmpack.model.guest import GuestSnapshot
from vmpack.model.host import HostSnapshot
from vmpack.model.plan import GuestPlan, Plan, Reason
from vmpack.units import format_bytes, format_ratio, format_seconds

if TYPE_CHECKING:
    from vmpack.hypervisor import Hypervisor
    from vmpack.model.interval import AgentStatus

Level = Literal["ok", "warn", "fail"]

SWAP_USED_RATIO = 0.10
PRESSED_RATIO = 0.05
SILENT_S = 30.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    subject: str
    level: Level
    text: str
    todo: str = ""
    """What to do next; empty when all is well."""


def software() -> Iterator[Finding]:
    """The Python that runs this and its libvirt module."""
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("python", "ok", f"Python {version} ({sys.executable})")
    try:
        import libvirt
    except ModuleNotFoundError:
        todo = "install python3-libvirt of your distribution, and use its own python3"
        yield Finding("libvirt-python", "fail", "Python's libvirt module is missing", todo)
        return
    yield Finding("libvirt-python", "ok", f"libvirt-python {dotted(libvirt.getVersion())}")


def connection(hypervisor: Hypervisor) -> Finding:
    """Does libvirt answer, may we change VMs, and which versions run there."""
    try:
        libvirt_version, qemu_version, vms = hypervisor.call(
            "ask libvirt for its version", lambda c: (c.getLibVersion(), c.getVersion(), c.numOfDomains())
        )
    except VmpackError as error:
        return failed("libvirt", error)
    text = f"{hypervisor.uri}: libvirt {dotted(libvirt_version)}, QEMU {dotted(qemu_version)}, {vms} VMs run"
    return Finding("libvirt", "ok", f"{text}, with the right to change them")


def accelerator() -> Finding:
    """Can VMs run with KVM on this machine."""
    from vmpack.lab.accelerator import detect_accelerator

    found = detect_accelerator()
    if found.kind == "kvm":
        return Finding("kvm", "ok", found.reason)
    todo = "enable virtualization in the firmware (or nested virtualization), load kvm_intel or kvm_amd"
    return Finding("kvm", "warn", f"VMs run without KVM, slowly: {found.reason}", todo)


def machine(host: HostSnapshot) -> Iterator[Finding]:
    """Pressure and swap of the host."""
    pressure = host.pressure
    if pressure is None:
        todo = "boot the kernel with psi=1; without it vmpack cannot see the host's own distress"
        yield Finding("pressure", "warn", "the kernel reports no memory pressure (PSI)", todo)
    elif pressure.some_avg10_ratio >= PRESSED_RATIO:
        text = f"memory stalls {format_ratio(pressure.some_avg10_ratio)} of the time"
        yield Finding(
            "pressure", "warn", text, "the host is short of memory now: `vmpack status` shows where it is"
        )
    else:
        yield Finding(
            "pressure", "ok", f"memory stalls {format_ratio(pressure.some_avg10_ratio)} of the time"
        )
    used = host.swap_total_bytes - host.swap_free_bytes
    if host.swap_total_bytes and used > SWAP_USED_RATIO * host.swap_total_bytes:
        text = f"{format_bytes(used)} of {format_bytes(host.swap_total_bytes)} swap is used"
        yield Finding(
            "swap", "warn", text, "the host has swapped: raise host.reserve_ratio, or see who did it"
        )
    elif host.swap_total_bytes:
        yield Finding("swap", "ok", f"{format_bytes(host.swap_total_bytes)}, hardly used")
    else:
        yield Finding("swap", "ok", "none: the host's reserve alone absorbs surprises")


def agent(status: AgentStatus, stale: bool) -> Iterator[Finding]:
    """How the running agent is."""
    running = f"vmpack {status.version}, process {status.pid}, every {format_seconds(status.interval_s)}"
    log = "see its log: journalctl -u vmpack-agent"
    if status.last_error:
        yield Finding("agent", "fail", f"{running}; its newest interval failed: {status.last_error}", log)
    elif stale:
        yield Finding("agent", "fail", f"{running}; its data is old: it hangs", log)
    else:
        yield Finding("agent", "ok", running)
    if status.frozen:
        yield Finding("agent", "warn", "the host is frozen: nothing changes", "vmpack freeze --off")
    elif status.observe_only:
        yield Finding("agent", "warn", "it only observes", "start it without --observe to pack")


def directory(subject: str, path: Path) -> Finding:
    """Can an agent of this user write here; the folder may be missing while its parent lets it be made."""
    existing = path
    while not os.path.exists(existing) and existing != existing.parent:
        existing = existing.parent
    if os.path.isdir(existing) and os.access(existing, os.W_OK | os.X_OK):
        missing = "" if existing == path else " (made at the agent's start)"
        return Finding(subject, "ok", f"{path}{missing}")
    todo = "run as root or as the agent's user, or name another one"
    return Finding(subject, "warn", f"{path} cannot be written by this user", todo)


def guests(host: HostSnapshot, plan: Plan) -> Iterator[Finding]:
    """One finding per VM: can it take part, and does it report."""
    plans = {entry.uuid: entry for entry in plan.guests}
    for guest in sorted(host.guests, key=lambda guest: (guest.name, guest.uuid)):
        yield _guest(guest, plans[guest.uuid], host.time_s)
    for silent in host.unreadable:
        todo = "is its QEMU stopped or hung? ps -o pid,stat,args -C qemu-system-x86_64"
        yield Finding(f"VM {silent.name}", "fail", "gives no answer", todo)


def _guest(guest: GuestSnapshot, plan: GuestPlan, now_s: float) -> Finding:
    subject = f"VM {guest.name}"
    if guest.exclusions:
        told = [words(Reason("excluded", {}, exclusion)) for exclusion in guest.exclusions]
        text = "left alone: " + "; ".join(what for what, _ in told)
        return Finding(
            subject, "ok" if guest.exclusions != ("no_balloon_device",) else "warn", text, told[0][1]
        )
    if plan.verdict == "excluded":
        return Finding(subject, "ok", f"left alone: {words(plan.reasons[-1])[0]}", words(plan.reasons[-1])[1])
    if guest.policy_faults:
        text = "a part of its own policy is not used: " + "; ".join(guest.policy_faults)
        return Finding(subject, "warn", text, "set it again with vmpack policy VM, or --reset it")
    if guest.stats_fault is not None:
        todo = "the guest's balloon driver reports nonsense: update the guest's kernel or driver"
        return Finding(subject, "warn", f"its report cannot be true: {guest.stats_fault}", todo)
    if guest.stats is None:
        return Finding(subject, "warn", "has never reported its memory", _silence_todo(guest))
    age_s = max(0.0, now_s - guest.stats.sampled_s)
    period = (
        f"every {format_seconds(guest.stats_period_s)}"
        if guest.stats_period_s
        else "once, an agent asks for more"
    )
    if age_s > max(SILENT_S, 3 * (guest.stats_period_s or 0)):
        text = f"its newest report is {format_seconds(age_s)} old"
        return Finding(subject, "warn", text, _silence_todo(guest))
    usable = format_bytes(guest.stats.usable_bytes)
    return Finding(
        subject, "ok", f"reports {period}; {format_bytes(guest.nominal_bytes)} promised, {usable} usable"
    )


def _silence_todo(guest: GuestSnapshot) -> str:
    if not guest.stats_period_s:
        return "the agent switches its statistics on (`vmpack agent`); nothing else to do"
    return "does the guest's kernel have virtio_balloon, and is it up? `lsmod | grep balloon` inside it"


def packable(host: HostSnapshot, plan: Plan) -> Finding:
    """How much of the promised memory could be lent, and where the rest is."""
    plans = {entry.uuid: entry for entry in plan.guests}
    promised = sum(guest.nominal_bytes for guest in host.guests)
    if promised == 0:
        return Finding("packable", "ok", "no VM runs: there is nothing to pack")
    lendable = excluded = unknown = used = kept = 0
    for guest in host.guests:
        entry = plans[guest.uuid]
        if entry.verdict == "excluded":
            excluded += guest.nominal_bytes
        elif entry.used_bytes is None:
            unknown += guest.nominal_bytes
        else:
            lendable += max(0, guest.nominal_bytes - entry.wanted_bytes)
            used += min(entry.used_bytes, guest.nominal_bytes)
            kept += max(0, min(entry.wanted_bytes, guest.nominal_bytes) - entry.used_bytes)
    text = (
        f"{format_bytes(lendable)} of the {format_bytes(promised)} that VMs were promised"
        f" ({format_ratio(lendable / promised)}) could be lent"
    )
    rest = _rest(
        {
            "used": used,
            "guest kernels, headroom and floors": kept,
            "left alone": excluded,
            "not known yet": unknown,
        }
    )
    return Finding("packable", "ok", f"{text}; the rest: {rest}" if rest else text)


def _rest(amounts: dict[str, int]) -> str:
    return ", ".join(f"{format_bytes(amount)} {name}" for name, amount in amounts.items() if amount > 0)


def failed(subject: str, error: VmpackError, level: Level = "fail") -> Finding:
    """An error as a finding."""
    return Finding(subject, level, error.message, error.hint)


def dotted(number: int) -> str:
    """libvirt's version number 9000000 as 9.0.0."""
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"


def worst(findings: Sequence[Finding]) -> Level:
    """The gravest level among them."""
    levels: tuple[Level, ...] = ("fail", "warn")
    return next((level for level in levels if any(finding.level == level for finding in findings)), "ok")
