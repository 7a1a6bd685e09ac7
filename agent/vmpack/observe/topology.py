"""The host's CPUs as a scheduler of vCPUs needs them: node, last-level cache, core, speed; from /sys.

Called by vcpus.py once per look. What a machine does not tell (caches, speeds) is as on a machine where all
CPUs are alike. CPUs that are off, that the kernel keeps apart (isolcpus) or that the administrator reserved
are not there.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from vmpack.model.vcpu import Pcpu
from vmpack.observe.host import parse_cpu_list

_SHARED_CACHES = ("Unified", "Data")


class CpuFacts(NamedTuple):
    """The texts of one CPU's folder in /sys."""

    siblings: str = ""
    """List of the CPUs of its core."""
    package: str = ""
    """List of the CPUs of its socket."""
    caches: tuple[tuple[str, str, str], ...] = ()
    """Level, type and list of the CPUs that share it, of each cache."""
    capacity: str = ""


class TopologyReader:
    """Reads the CPUs of one machine; what never changes of a CPU that stays on is read once."""

    def __init__(self, sys: Path) -> None:
        self._cpus = sys / "devices/system/cpu"
        self._nodes = sys / "devices/system/node"
        self._key: tuple[str, str] | None = None
        self._pcpus: tuple[Pcpu, ...] = ()

    def read(self) -> tuple[Pcpu, ...]:
        """All CPUs that are on and not kept apart by the kernel, by number."""
        key = _text(self._cpus / "online"), _text(self._cpus / "isolated")
        if key != self._key:
            numbers = sorted(set(parse_cpu_list(key[0])) - set(parse_cpu_list(key[1])))
            facts = {number: _read_facts(self._cpus / f"cpu{number}") for number in numbers}
            self._pcpus = pcpus_of(facts, _node_of_cpu(self._nodes))
            self._key = key
        return self._pcpus

    def everywhere(self) -> frozenset[int]:
        """The numbers of `read`: what a VM may run on whom nobody pinned."""
        return frozenset(pcpu.number for pcpu in self.read())

    def online(self) -> frozenset[int]:
        """The numbers of all CPUs that are on."""
        return frozenset(parse_cpu_list(_text(self._cpus / "online")))


def pcpus_of(facts: Mapping[int, CpuFacts], node_of: Mapping[int, int]) -> tuple[Pcpu, ...]:
    """The CPUs, by number. Cores and caches have the number of their first CPU."""
    capacities = {
        number: int(cpu.capacity) for number, cpu in facts.items() if cpu.capacity.strip().isdecimal()
    }
    largest = max(capacities.values(), default=0)
    found = []
    for number in sorted(facts):
        cpu = facts[number]
        capacity = capacities.get(number, largest)
        found.append(
            Pcpu(
                number,
                node_of.get(number, 0),
                _first(last_cache(cpu.caches) or cpu.package, number),
                _first(cpu.siblings, number),
                capacity / largest if capacity > 0 else 1.0,
            )
        )
    return tuple(found)


def without(pcpus: tuple[Pcpu, ...], reserved: Collection[int]) -> tuple[Pcpu, ...]:
    """Those that VMs may use."""
    return tuple(pcpu for pcpu in pcpus if pcpu.number not in reserved)


def last_cache(caches: Collection[tuple[str, str, str]]) -> str:
    """The list of the CPUs that share the cache of the last level; empty where there is none."""
    known = [
        (int(level), shared)
        for level, kind, shared in caches
        if kind.strip() in _SHARED_CACHES and level.strip().isdecimal()
    ]
    return max(known, default=(0, ""))[1]


def _first(cpu_list: str, number: int) -> int:
    return min(parse_cpu_list(cpu_list), default=number)


def _read_facts(folder: Path) -> CpuFacts:
    caches = tuple(
        (_text(index / "level"), _text(index / "type"), _text(index / "shared_cpu_list"))
        for index in sorted(folder.glob("cache/index*"))
    )
    topology = folder / "topology"
    return CpuFacts(
        _text(topology / "thread_siblings_list") or _text(topology / "core_cpus_list"),
        _text(topology / "core_siblings_list") or _text(topology / "package_cpus_list"),
        caches,
        _text(folder / "cpu_capacity"),
    )


def _node_of_cpu(folder: Path) -> dict[int, int]:
    return {
        cpu: number
        for number in parse_cpu_list(_text(folder / "online"))
        for cpu in parse_cpu_list(_text(folder / f"node{number}/cpulist"))
    }


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
