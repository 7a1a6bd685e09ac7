"""A libvirt made of captured answers, for tests of observe/: domains that answer, lie, hang or vanish."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import libvirt

from vmpack.errors import GuestBusyError
from vmpack.hypervisor import translated

T = TypeVar("T")

XML = (Path(__file__).parent / "vectors/observe/domain.xml").read_text()
UUID = "1d5ae572-11fd-45bb-9a4f-dbfb62edcd5c"
WALL_S = 1795174569.0

# As libvirt 9.0 gave it for a real guest.
STATS = {
    "state.state": 1, "state.reason": 1, "balloon.current": 262144, "balloon.maximum": 262144,
    "balloon.swap_in": 0, "balloon.swap_out": 0, "balloon.major_fault": 0, "balloon.minor_fault": 7513,
    "balloon.unused": 192164, "balloon.available": 223632, "balloon.usable": 195412,
    "balloon.last-update": 1795174568, "balloon.disk_caches": 2872, "balloon.rss": 234540,
    "vcpu.current": 1, "vcpu.maximum": 2, "vcpu.0.state": 1, "vcpu.0.time": 3480000000,
    "vcpu.0.wait": 0, "vcpu.0.delay": 152469890,
}  # fmt: skip
SILENT = {"state.state": 1, "balloon.current": 262144, "balloon.maximum": 262144}
"""What libvirt gives for a VM whose job is taken."""


def error(code: int) -> libvirt.libvirtError:
    """A libvirtError as libvirt would raise it."""
    made = libvirt.libvirtError("x")
    made.err = (code, 10, "what libvirt says", 2, None, None, None, 0, 0)
    return made


ARRIVING = {"state.state": 3, "state.reason": 2, "balloon.current": 131072, "balloon.maximum": 262144}
"""What libvirt gives for a VM that is on its way in, at its destination."""


class NoAnswerError(Exception):
    """Instead of a call that never ends."""


class FakeDomain:
    """One virDomain. `vanishes` makes it end right after the bulk statistics were taken."""

    def __init__(self, name: str = "g1", uuid: str = UUID, **changes: Any) -> None:
        self._name = name
        self._uuid = uuid
        self.stats: dict[str, Any] = STATS | changes
        self.xml = XML
        self.lasting_xml: str | None = None
        self.run = 1
        self.job: dict[str, int] = {"type": 0}
        self.job_refused = False
        self.arrives = False
        self.vanishes = False
        self.busy_looks = 0
        self.actual_kib: int | None = None
        self.xml_reads = 0
        self.masks: dict[int, tuple[int, ...]] = {0: (0, 1, 2, 3)}
        """By vCPU that is on, as the kernel has it; of four CPUs."""
        self.seat = 1
        self.busy_ms = 0
        self.hangs = False
        """Whoever asks for its job gets no answer."""

    def look(self) -> dict[str, Any]:
        """Its bulk statistics; the next `busy_looks` find it busy with another program's question."""
        if self.busy_looks:
            self.busy_looks -= 1
            return SILENT
        return self.stats

    def name(self) -> str:
        return self._name

    def UUIDString(self) -> str:
        return self._uuid

    def ID(self) -> int:
        return self.run

    def isPersistent(self) -> bool:
        return self.lasting_xml is not None

    def XMLDesc(self, flags: int) -> str:
        if flags == libvirt.VIR_DOMAIN_XML_INACTIVE:
            assert self.lasting_xml is not None
            return self.lasting_xml
        self.xml_reads += 1
        return self.xml

    def vcpus(self) -> tuple[list[tuple[int, int, int, int]], list[tuple[bool, ...]]]:
        if self.vanishes:
            raise error(libvirt.VIR_ERR_NO_DOMAIN)
        maps = [tuple(cpu in cpus for cpu in range(4)) for cpus in self.masks.values()]
        return [(number, 1, 0, self.seat) for number in self.masks], maps

    def controlInfo(self) -> list[int]:
        return [libvirt.VIR_DOMAIN_CONTROL_OCCUPIED if self.busy_ms else 0, 0, self.busy_ms]

    def jobStats(self) -> dict[str, int]:
        if self.hangs:
            raise NoAnswerError
        if self.vanishes:
            raise error(libvirt.VIR_ERR_NO_DOMAIN)
        if self.arrives:
            raise error(libvirt.VIR_ERR_OPERATION_UNSUPPORTED)
        if self.job_refused:
            raise error(libvirt.VIR_ERR_OPERATION_INVALID)
        return self.job

    def memoryStats(self) -> dict[str, int]:
        kib = self.stats["balloon.current"] if self.actual_kib is None else self.actual_kib
        return {"actual": kib}


class FakeHypervisor:
    """The Hypervisor over FakeDomains; the next `silent_calls`, and all for `silent_for`, never answer."""

    def __init__(self, *domains: FakeDomain) -> None:
        self.domains = list(domains)
        self.silent_calls = 0
        self.silent_for = "nothing"
        self.notes: dict[str, Callable[[str], None]] = {}

    def watch(self, event: str, note: Callable[[str], None]) -> None:
        self.notes[event] = note

    def call(
        self, what: str, function: Callable[[Any], T], *, deadline_s: float = 5.0, **_options: object
    ) -> T:
        if self.silent_calls or self.silent_for in what:
            self.silent_calls -= bool(self.silent_calls)
            raise GuestBusyError(f"could not {what}: no answer within {deadline_s:g} s")
        try:
            with translated(what):
                return function(self)
        except NoAnswerError:
            raise GuestBusyError(f"could not {what}: no answer within {deadline_s:g} s") from None

    def getAllDomainStats(self, _groups: int, _flags: int) -> list[tuple[FakeDomain, dict[str, Any]]]:
        return [(domain, domain.look()) for domain in self.domains]

    def domainListGetStats(
        self, domains: list[FakeDomain], _groups: int, _flags: int
    ) -> list[tuple[FakeDomain, dict[str, Any]]]:
        return [(domain, domain.look()) for domain in domains if domain in self.domains]
