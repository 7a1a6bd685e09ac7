"""On which of the host's CPUs the threads of a VM may run: as its XML says, and as the kernel has it.

Called by observe/ and act/, so that both see the same. Pure but for `vcpu_masks`, which asks libvirt.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import compress, count, islice
from typing import Any, NamedTuple
from xml.etree.ElementTree import Element

from vmpack.model.pins import parse_cpus
from vmpack.model.thread import ThreadKey

_MOST_IOTHREADS = 4096


class DefinedMasks(NamedTuple):
    """The masks in one domain's XML."""

    pinned: Mapping[ThreadKey, tuple[int, ...]]
    others: tuple[int, ...]
    """Of threads without a pin of their own; empty: any CPU."""

    def of(self, key: ThreadKey) -> tuple[int, ...]:
        """Of this thread; empty: any CPU."""
        return self.pinned.get(key, self.others)


def defined_masks(domain: Element) -> DefinedMasks:
    """The masks that the XML of a domain names. Raises ValueError for what libvirt never writes."""
    pinned: dict[ThreadKey, tuple[int, ...]] = {}
    for pin in domain.iterfind("cputune/vcpupin"):
        pinned["vcpu", int(pin.get("vcpu", ""))] = parse_cpus(pin.get("cpuset", ""))
    for pin in domain.iterfind("cputune/iothreadpin"):
        pinned["iothread", int(pin.get("iothread", ""))] = parse_cpus(pin.get("cpuset", ""))
    for pin in domain.iterfind("cputune/emulatorpin"):
        pinned["emulator", 0] = parse_cpus(pin.get("cpuset", ""))
    vcpu = domain.find("vcpu")
    cpuset = None if vcpu is None else vcpu.get("cpuset")
    return DefinedMasks(pinned, () if cpuset is None else parse_cpus(cpuset))


def iothread_numbers(domain: Element) -> tuple[int, ...]:
    """The numbers of a domain's I/O threads; those that its XML only counts have the lowest that are free.

    Raises ValueError for what libvirt never writes.
    """
    numbers = {int(thread.get("id", "")) for thread in domain.iterfind("iothreadids/iothread")}
    missing = min(int(domain.findtext("iothreads", default="0")), _MOST_IOTHREADS) - len(numbers)
    free = (number for number in count(1) if number not in numbers)
    return tuple(sorted(numbers.union(islice(free, max(0, missing)))))


def vcpu_masks(domain: Any) -> dict[int, tuple[tuple[int, ...], int | None]]:
    """By number of each vCPU that is on: its mask as the kernel has it, and the CPU that it ran on last.

    Raises libvirtError.
    """
    infos, maps = domain.vcpus()
    found = {}
    for (number, _state, _time, cpu), allowed in zip(infos, maps, strict=True):
        cpus = tuple(compress(range(len(allowed)), allowed))
        found[number] = cpus, cpu if 0 <= cpu < len(allowed) else None
    return found


def any_or(cpus: Iterable[int], everywhere: Iterable[int]) -> tuple[int, ...]:
    """The mask, ascending; empty where it has all CPUs that a VM may run on whom nobody pinned."""
    mask = frozenset(cpus)
    return () if mask.issuperset(everywhere) else tuple(sorted(mask))
