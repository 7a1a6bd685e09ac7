"""The whole host in one immutable snapshot. The loop calls `HostSource.observe()` once per interval.

Promises that what could not be read is missing, never guessed; that one broken VM never costs the others
their interval; and that every value a guest sent has been checked.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vmpack.clock import Clock
from vmpack.hypervisor import Hypervisor
from vmpack.model.gpu import Gpu
from vmpack.model.guest import GuestSnapshot, RunState, VcpuTime
from vmpack.model.host import Claim, HostSnapshot, UnreadableGuest
from vmpack.model.learned import Learned
from vmpack.observe.balloon_stats import LARGEST_KIB, Sighting, date_report, read_stats
from vmpack.observe.domains import DomainReader, DomainReading
from vmpack.observe.gpu_users import GpuUsers
from vmpack.observe.guest_kernels import KernelReading
from vmpack.observe.host import read_host
from vmpack.observe.process import Measured, OverheadMeter
from vmpack.units import KIB

_log = logging.getLogger(__name__)
NEW_S = 60.0
"""A VM is new for so long: whoever decides has met it by then."""
_STATES: dict[int, RunState] = {1: "running", 2: "running", 3: "paused"}


class HostSource:
    """Observes one host. Not for use by two threads at once."""

    def __init__(
        self,
        hypervisor: Hypervisor,
        clock: Clock,
        *,
        pretended_bytes: int | None,
        frozen: Callable[[], bool],
        claims: Callable[[], tuple[Claim, ...]],
        kernels: Callable[[Sequence[str]], Mapping[str, KernelReading]] = lambda _uuids: {},
        gpus: Callable[[GpuUsers], tuple[Gpu, ...]] = lambda _users: (),
        proc: Path = Path("/proc"),
        sys: Path = Path("/sys"),
        deadline_s: float = 2.0,
    ) -> None:
        self._clock = clock
        self.pretended_bytes = pretended_bytes
        """Of the next snapshots; a new configuration may change it."""
        self._kernels = kernels
        self._gpus = gpus
        self._frozen = frozen
        self._claims = claims
        self._proc = proc
        self._sys = sys
        self._domains = DomainReader(hypervisor, deadline_s)
        self._overhead = OverheadMeter(proc)
        self._sightings: dict[str, Sighting] = {}
        self._policy_faults: dict[str, tuple[str, ...]] = {}
        self._met_s: dict[str, float] = {}

    def observe(self) -> HostSnapshot:
        """One snapshot of now.

        Takes at most a few deadlines. Raises HypervisorLostError, UnavailableError or AccessError when
        libvirt or /proc cannot be read at all; a single VM's trouble is in the snapshot instead.
        """
        readings, unreadable = self._domains.read(self._clock.time_s())
        # After the call: a VM's report is then never newer than the snapshot.
        time_s, wall_s = self._clock.time_s(), self._clock.wall_s()
        host = read_host(self._proc, self._sys)
        measured = self._overhead.measure(
            {(r.uuid, r.run): _built_bytes(r) for r in readings if not r.live.is_incoming}
        )
        kernels = self._kernels(_by_urgency(readings))
        guests = tuple(
            self._guest(
                reading, measured.get((reading.uuid, reading.run)), kernels.get(reading.uuid), time_s, wall_s
            )
            for reading in sorted(readings, key=lambda r: (r.name, r.uuid))
        )
        self._forget_all_but({reading.uuid for reading in readings})
        return HostSnapshot(
            time_s=time_s,
            wall_s=wall_s,
            memory_total_bytes=host.memory_total_bytes,
            memory_available_bytes=host.memory_available_bytes,
            pretended_bytes=self.pretended_bytes,
            swap_total_bytes=host.swap_total_bytes,
            swap_free_bytes=host.swap_free_bytes,
            pressure=host.pressure,
            pcpus=host.pcpus,
            nodes=host.nodes,
            guests=guests,
            unreadable=unreadable,
            claims=self._claims(),
            frozen=self._frozen(),
            gpus=self._gpus(self._gpu_users(unreadable)),
        )

    def read_again(self, uuid: str) -> None:
        """This VM was changed in a way of which libvirt tells nobody. May come from any thread."""
        self._domains.read_again(uuid)

    def _gpu_users(self, unreadable: Sequence[UnreadableGuest]) -> GpuUsers:
        devices = self._domains.host_devices
        return GpuUsers(
            self._overhead.vm_of_pid(), devices, all(guest.uuid in devices for guest in unreadable)
        )

    def _guest(
        self,
        reading: DomainReading,
        measured: Measured | None,
        kernel: KernelReading | None,
        time_s: float,
        wall_s: float,
    ) -> GuestSnapshot:
        stats, facts = reading.stats, reading.facts
        # What has arrived of an incoming VM must not count as the host's own use beside its balloon.
        incoming = reading.live.is_incoming
        rss_bytes = self._overhead.rss_bytes(reading.uuid) if incoming else _kib(stats, "balloon.rss")
        built_bytes = _built_bytes(reading)
        nominal_bytes = min(built_bytes, facts.policy.nominal_bytes or built_bytes)
        balloon_bytes, balloon_fault = _balloon_bytes(reading, built_bytes)
        sighting, fault = date_report(stats, self._sightings.get(reading.uuid), time_s, wall_s)
        report = None
        if sighting is not None:
            self._sightings[reading.uuid] = sighting
            report, fault = read_stats(stats, built_bytes, sighting.sampled_s)
        if balloon_fault is not None:
            report, fault = None, balloon_fault
        self._tell_policy_faults(reading)
        return GuestSnapshot(
            uuid=reading.uuid,
            name=reading.name,
            state=_STATES.get(stats.get("state.state", 0), "other"),
            nominal_bytes=nominal_bytes,
            balloon_bytes=balloon_bytes,
            autodeflate=facts.autodeflate,
            stats_period_s=facts.stats_period_s,
            stats=report,
            stats_fault=fault,
            rss_bytes=rss_bytes,
            ram_rss_bytes=None if measured is None else _ram_rss_bytes(rss_bytes, measured.overhead_bytes),
            vcpus=_vcpus(stats),
            job=reading.live.job,
            exclusions=facts.exclusions,
            configured_bytes=facts.configured_bytes,
            configured_period_s=facts.configured_period_s,
            policy=facts.policy,
            oom_kills=None if kernel is None else kernel.oom_kills,
            policy_faults=facts.policy_faults,
            maximum_bytes=built_bytes if built_bytes > nominal_bytes else None,
            learned=self._learned(reading, time_s, wall_s),
            kernel=None if kernel is None else kernel.counts,
            nodes=facts.nodes,
            huge_pages_ratio=None if measured is None else measured.huge_ratio,
        )

    def _learned(self, reading: DomainReading, time_s: float, wall_s: float) -> Learned | None:
        """What was learned of a new VM before. What lies ahead of this host's clock was written just now."""
        met_s = self._met_s.setdefault(reading.uuid, time_s)
        learned, fault = reading.facts.learned, reading.facts.learned_fault
        if fault and met_s == time_s:
            _log.warning("VM %r: what was learned of it before is not used: %s", reading.name, fault)
        if learned is None or time_s - met_s >= NEW_S:
            return None
        return learned._replace(written_s=time_s - max(0.0, wall_s - learned.written_s))

    def _tell_policy_faults(self, reading: DomainReading) -> None:
        faults = reading.facts.policy_faults
        if faults != self._policy_faults.get(reading.uuid, ()):
            for fault in faults:
                _log.warning("VM %r: its policy is not used in part: %s", reading.name, fault)
        self._policy_faults[reading.uuid] = faults

    def _forget_all_but(self, uuids: set[str]) -> None:
        self._sightings = {uuid: seen for uuid, seen in self._sightings.items() if uuid in uuids}
        self._policy_faults = {uuid: told for uuid, told in self._policy_faults.items() if uuid in uuids}
        self._met_s = {uuid: met_s for uuid, met_s in self._met_s.items() if uuid in uuids}


def _by_urgency(readings: Sequence[DomainReading]) -> list[str]:
    """VMs whose guest agent can be asked, those with the least free memory first."""
    running = [r for r in readings if r.facts.has_guest_agent and r.stats.get("state.state") in (1, 2)]
    return [r.uuid for r in sorted(running, key=lambda r: (_kib(r.stats, "balloon.usable") or 0, r.uuid))]


def _built_bytes(reading: DomainReading) -> int:
    return _kib(reading.stats, "balloon.maximum") or reading.facts.memory_bytes


def _balloon_bytes(reading: DomainReading, built_bytes: int) -> tuple[int, str | None]:
    """The balloon's size and no fault; the whole VM and the fault where the guest claims what cannot be."""
    live_kib = reading.live.balloon_kib
    told = reading.stats.get("balloon.current") if live_kib is None else live_kib
    if told is None or not reading.facts.has_balloon:
        return built_bytes, None
    if type(told) is not int or not 0 < told * KIB <= built_bytes:
        return built_bytes, f"the size of the balloon is {told!r:.40} KiB; no balloon is assumed"
    return told * KIB, None


def _ram_rss_bytes(rss_bytes: int | None, overhead_bytes: int) -> int | None:
    return None if rss_bytes is None else max(0, rss_bytes - overhead_bytes)


def _kib(stats: Mapping[str, Any], key: str) -> int | None:
    value = stats.get(key)
    return value * KIB if type(value) is int and 0 <= value <= LARGEST_KIB else None


def _vcpus(stats: Mapping[str, Any]) -> tuple[VcpuTime, ...]:
    """Counters of the vCPUs that are there; an unplugged one has no time."""
    maximum = stats.get("vcpu.maximum", 0)
    times = []
    for number in range(maximum):
        run_ns = stats.get(f"vcpu.{number}.time")
        if run_ns is not None:
            times.append(VcpuTime(number, run_ns, stats.get(f"vcpu.{number}.delay")))
    return tuple(times)
