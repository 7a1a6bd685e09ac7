"""What rarely changes about VMs: read from their XML when they start, when libvirt says so, now and then.

Called by domains.py and vcpus.py, each with its own reading of the XML. Promises that a VM whose XML cannot
be read costs the others nothing.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from vmpack.errors import GuestBusyError, GuestGoneError
from vmpack.hypervisor import Hypervisor, translated
from vmpack.observe.bulk import RunningDomain

T = TypeVar("T")

FRESH_S = 60.0

_Texts = tuple[str, str | None]
"""XML as it runs, and of its next start where it has one."""


@dataclass(frozen=True, slots=True)
class _Known(Generic[T]):
    run: int
    read_s: float
    facts: T


class Definitions(Generic[T]):
    """The facts of all running VMs of one libvirt. Not for use by two threads at once."""

    def __init__(
        self,
        hypervisor: Hypervisor,
        deadline_s: float,
        read: Callable[[str, str | None], T],
        events: Sequence[str],
    ) -> None:
        """`read(xml, lasting_xml)` may raise ParseError or ValueError; `events` make it read a VM anew."""
        self._hypervisor = hypervisor
        self._deadline_s = deadline_s
        self._read = read
        self._known: dict[str, _Known[T]] = {}
        self._changed: set[str] = set()
        # Where libvirt sends no events, facts age out.
        for event in events:
            hypervisor.watch(event, self._changed.add)

    def read_again(self, uuid: str) -> None:
        """This VM has changed: read its XML anew at the next look. May come from any thread."""
        self._changed.add(uuid)

    def look(
        self, domains: Sequence[RunningDomain], time_s: float
    ) -> tuple[dict[str, T], list[RunningDomain]]:
        """Facts by uuid, and the VMs whose facts could not be read; one that is gone is in neither."""
        stale = [d for d in domains if self._is_stale(d, time_s)]
        self._changed.difference_update(d.uuid for d in stale)
        texts: dict[str, _Texts | None] = {}
        if stale:
            try:
                self._hypervisor.call(
                    "read the XML of VMs", lambda _: _describe(stale, texts), deadline_s=self._deadline_s
                )
            except GuestBusyError:
                self._changed.update(d.uuid for d in stale)
        for domain in stale:
            definition = texts.get(domain.uuid)
            if definition is None:
                continue
            try:
                self._known[domain.uuid] = _Known(domain.run, time_s, self._read(*definition))
            except (ElementTree.ParseError, ValueError):
                self._known.pop(domain.uuid, None)
        current = {d.uuid: d for d in domains if d.uuid not in texts or texts[d.uuid] is not None}
        self._known = {uuid: known for uuid, known in self._known.items() if uuid in current}
        # A VM that arrives gets its lasting definition at the very end.
        self._changed.update(d.uuid for d in domains if d.waits_for_migration)
        facts = {uuid: known.facts for uuid, known in self._known.items() if known.run == current[uuid].run}
        return facts, [d for uuid, d in current.items() if uuid not in facts]

    def _is_stale(self, domain: RunningDomain, time_s: float) -> bool:
        known = self._known.get(domain.uuid)
        if known is None or known.run != domain.run or domain.uuid in self._changed:
            return True
        return time_s - known.read_s >= FRESH_S


def _describe(domains: Sequence[RunningDomain], texts: dict[str, _Texts | None]) -> None:
    """Put each VM's XML into `texts`, None for a VM that is gone."""
    import libvirt

    for domain in domains:
        try:
            with translated(f"read the XML of {domain.name}"):
                handle = domain.handle
                lasting = handle.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE) if handle.isPersistent() else None
                texts[domain.uuid] = handle.XMLDesc(0), lasting
        except GuestGoneError:
            texts[domain.uuid] = None
