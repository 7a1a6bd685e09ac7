"""The VMs as libvirt knows them: one bulk call per interval, plus what it does not carry (jobs, XML).

Called by source.py. Promises that a hung VM (its QEMU stopped) costs the others what bulk.py says.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from vmpack.errors import GuestBusyError, GuestGoneError, HypervisorError, HypervisorLostError
from vmpack.hypervisor import MIGRATION_IN, UNTOLD_JOB, Hypervisor, job_name, translated
from vmpack.model.host import UnreadableGuest
from vmpack.observe.balloon_stats import LARGEST_KIB
from vmpack.observe.bulk import RunningDomain, all_running, running_domain
from vmpack.observe.definitions import Definitions
from vmpack.observe.domain_facts import DomainFacts, read_facts
from vmpack.units import KIB

BALLOON_LAG_S = 2.0
"""The bulk statistics follow a balloon by up to a second, and pause on the way."""

_BUSY_TRIES = 5
_BUSY_PAUSE_S = 0.05
"""How often, and how far apart, a VM is asked again that another program is asking just now."""

_ANSWERS = ("balloon.rss", "balloon.last-update", "balloon.available")
_RUNNING_OR_PAUSED = (1, 3)
_CHANGES = ("METADATA_CHANGE", "DEVICE_ADDED", "DEVICE_REMOVED", "REBOOT", "AGENT_LIFECYCLE")


@dataclass(frozen=True, slots=True)
class DomainReading:
    """One VM in one interval, still in libvirt's terms."""

    uuid: str
    name: str
    run: int
    """libvirt's number of this run of the VM; another one after a restart."""
    stats: Mapping[str, Any]
    facts: DomainFacts
    live: LiveFacts


@dataclass(frozen=True, slots=True)
class LiveFacts:
    """What has to be asked of each VM by itself."""

    job: str | None
    balloon_kib: int | None = None
    """Asked only while the bulk statistics may be wrong: see BALLOON_LAG_S and _SeenBalloon."""

    @property
    def is_incoming(self) -> bool:
        """True for a VM on its way in, at its destination."""
        return self.job == MIGRATION_IN


_UNKNOWN = LiveFacts(job=UNTOLD_JOB)


@dataclass(frozen=True, slots=True)
class _SeenBalloon:
    """What the bulk statistics said last, and since when they say so.

    They stay wrong after a VM was saved or moved while its balloon moved: libvirt then waits for a change
    that came before. So they are believed only where the VM itself said the same.
    """

    run: int
    kib: int | None
    since_s: float
    is_confirmed: bool = False

    def may_be_wrong(self, time_s: float) -> bool:
        return self.kib is not None and (not self.is_confirmed or time_s - self.since_s < BALLOON_LAG_S)


class DomainReader:
    """Reads all running VMs of one libvirt. Remembers the rarely changing part of each."""

    def __init__(self, hypervisor: Hypervisor, deadline_s: float) -> None:
        self._hypervisor = hypervisor
        self._deadline_s = deadline_s
        self._facts: Definitions[DomainFacts] = Definitions(hypervisor, deadline_s, read_facts, _CHANGES)
        self._balloons: dict[str, _SeenBalloon] = {}
        self._silent: set[tuple[str, int]] = set()
        self.host_devices: Mapping[str, tuple[str, ...]] = {}
        """By VM uuid, also of VMs that did not answer this time; a VM of which nothing is known is absent."""

    def read_again(self, uuid: str) -> None:
        """This VM's facts have changed: read them anew at the next look. May come from any thread."""
        self._facts.read_again(uuid)

    def read(self, time_s: float) -> tuple[tuple[DomainReading, ...], tuple[UnreadableGuest, ...]]:
        """All VMs that answered, and those that exist but did not.

        Raises HypervisorLostError when libvirt itself does not answer, and what Hypervisor.call raises.
        """
        running = all_running(self._hypervisor, _wanted(), self._deadline_s)
        domains = self._ask_busy_again(running)
        facts, silent = self._facts.look(domains, time_s)
        self.host_devices = {uuid: known.host_devices for uuid, known in facts.items()}
        answering = [d for d in domains if d.uuid in facts and _answered(d, facts[d.uuid])]
        silent += [d for d in domains if d.uuid in facts and not _answered(d, facts[d.uuid])]
        live = self._ask_each(answering, time_s)
        readings = []
        for domain in answering:
            answer = live.get(domain.uuid, _UNKNOWN)
            if answer is not None:
                readings.append(
                    DomainReading(
                        domain.uuid, domain.name, domain.run, domain.stats, facts[domain.uuid], answer
                    )
                )
        unreadable = tuple(UnreadableGuest(d.uuid, d.name, _size_bytes(d)) for d in silent)
        return tuple(readings), tuple(sorted(unreadable, key=lambda guest: (guest.name, guest.uuid)))

    def _ask_busy_again(self, domains: list[RunningDomain]) -> list[RunningDomain]:
        """Most likely another program is asking a VM that was not silent the last time: that ends soon.

        One that stays silent is hung, and is not asked twice the next time.
        """
        found = {(d.uuid, d.run): d for d in domains}
        for _ in range(_BUSY_TRIES):
            busy = [d for vm, d in found.items() if vm not in self._silent and not _has_answer(d)]
            if not busy:
                break
            for domain in self._ask_some(busy):
                found[domain.uuid, domain.run] = domain
        self._silent = {vm for vm, d in found.items() if not _has_answer(d)}
        return list(found.values())

    def _ask_some(self, domains: list[RunningDomain]) -> list[RunningDomain]:
        """What these say now; those that are gone, or all where one hangs, are left out."""
        try:
            return self._hypervisor.call(
                "read the statistics of busy VMs",
                lambda connection: _some_domains(connection, domains),
                deadline_s=self._deadline_s,
            )
        except GuestBusyError:
            return []

    def _ask_each(self, domains: list[RunningDomain], time_s: float) -> dict[str, LiveFacts | None]:
        """By uuid; None for a VM that is gone, no entry for one that did not answer in time."""
        self._balloons = {d.uuid: self._seen_balloon(d, time_s) for d in domains}
        doubted = {uuid for uuid, seen in self._balloons.items() if seen.may_be_wrong(time_s)}
        answers: dict[str, LiveFacts | None] = {}
        try:
            self._hypervisor.call(
                "ask each VM for its job",
                lambda _: _ask(domains, doubted, answers),
                deadline_s=self._deadline_s,
            )
        except GuestBusyError:
            self._balloons = {}
        answers = dict(answers)
        for uuid, answer in answers.items():
            seen = self._balloons.get(uuid)
            if uuid in doubted and seen is not None and answer is not None and answer.job is None:
                same = answer.balloon_kib in (None, seen.kib)
                self._balloons[uuid] = replace(seen, is_confirmed=same)
        return answers

    def _seen_balloon(self, domain: RunningDomain, time_s: float) -> _SeenBalloon:
        kib, before = domain.stats.get("balloon.current"), self._balloons.get(domain.uuid)
        if before is not None and (before.run, before.kib) == (domain.run, kib):
            return before
        return _SeenBalloon(domain.run, kib, time_s)


def _some_domains(connection: Any, domains: list[RunningDomain]) -> list[RunningDomain]:
    import libvirt

    time.sleep(_BUSY_PAUSE_S)
    handles = [domain.handle for domain in domains]
    flags = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
    return [running_domain(*found) for found in connection.domainListGetStats(handles, _wanted(), flags)]


def _wanted() -> int:
    import libvirt

    state, balloon = libvirt.VIR_DOMAIN_STATS_STATE, libvirt.VIR_DOMAIN_STATS_BALLOON
    return int(state | balloon | libvirt.VIR_DOMAIN_STATS_VCPU)


def _ask(domains: list[RunningDomain], doubted: set[str], answers: dict[str, LiveFacts | None]) -> None:
    """Put what each VM says into `answers`."""
    for domain in domains:
        try:
            job = job_name(domain.handle)
            actual_kib = None
            if domain.uuid in doubted and job is None:
                with translated(f"read the balloon of {domain.name}"):
                    actual_kib = domain.handle.memoryStats().get("actual")
            answers[domain.uuid] = LiveFacts(job, actual_kib)
        except GuestGoneError:
            answers[domain.uuid] = None
        except HypervisorLostError:
            raise
        except HypervisorError:
            answers[domain.uuid] = _UNKNOWN


def _size_bytes(domain: RunningDomain) -> int:
    """What libvirt itself knows of a VM that does not answer."""
    sizes = (domain.stats.get("balloon.current"), domain.stats.get("balloon.maximum"))
    return min((size * KIB for size in sizes if type(size) is int and 0 < size <= LARGEST_KIB), default=0)


def _answered(domain: RunningDomain, facts: DomainFacts) -> bool:
    if not facts.has_balloon or domain.stats.get("state.state") not in _RUNNING_OR_PAUSED:
        return True
    if domain.waits_for_migration:  # libvirt keeps its QEMU from answering until it has arrived
        return True
    return _has_answer(domain)


def _has_answer(domain: RunningDomain) -> bool:
    return any(key in domain.stats for key in _ANSWERS)
