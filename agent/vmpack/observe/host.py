"""The machine itself: memory, pressure, CPU times, NUMA nodes, from /proc and /sys.

`read_host` is called by source.py once per interval; the parsers take texts and are pure. What a kernel
does not have (PSI, NUMA) is None or empty.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from vmpack.errors import UnavailableError
from vmpack.model.host import NumaNode, PcpuTime, Pressure
from vmpack.units import KIB

_NS_PER_TICK = 10**9 // os.sysconf("SC_CLK_TCK")
_CPU_LINE = re.compile(r"cpu(\d+)\s+(.*)")
_NODE_LINE = re.compile(r"Node\s+\d+\s+([\w()]+):\s+(\d+)")
_NODE_CACHES = ("Active(file)", "Inactive(file)", "SReclaimable")


@dataclass(frozen=True, slots=True)
class HostReading:
    """What the machine says of itself at one moment."""

    memory_total_bytes: int
    memory_available_bytes: int
    swap_total_bytes: int
    swap_free_bytes: int
    pressure: Pressure | None
    pcpus: tuple[PcpuTime, ...]
    nodes: tuple[NumaNode, ...]


def read_host(proc: Path, sys: Path) -> HostReading:
    """Read the machine. Raises UnavailableError when not even its memory can be read."""
    memory = parse_meminfo(_text(proc / "meminfo"))
    if "MemTotal" not in memory or "MemAvailable" not in memory:
        raise UnavailableError(
            f"cannot read this machine's memory from {proc}/meminfo", "vmpack needs Linux with /proc mounted"
        )
    node_of, nodes = _read_nodes(sys / "devices/system/node")
    return HostReading(
        memory_total_bytes=memory["MemTotal"],
        memory_available_bytes=memory["MemAvailable"],
        swap_total_bytes=memory.get("SwapTotal", 0),
        swap_free_bytes=memory.get("SwapFree", 0),
        pressure=parse_pressure(_text(proc / "pressure/memory")),
        pcpus=parse_cpu_times(_text(proc / "stat"), node_of),
        nodes=nodes,
    )


def parse_meminfo(text: str) -> dict[str, int]:
    """/proc/meminfo as bytes by name; lines without kB are left out."""
    found = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        parts = rest.split()
        if len(parts) == 2 and parts[1] == "kB" and parts[0].isdecimal():
            found[name] = int(parts[0]) * KIB
    return found


def parse_pressure(text: str) -> Pressure | None:
    """/proc/pressure/memory; None when the kernel has none."""
    lines: dict[str, dict[str, str]] = {}
    for line in text.splitlines():
        kind, *pairs = line.split()
        lines[kind] = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    try:
        some, full = lines["some"], lines["full"]
        return Pressure(
            some_avg10_ratio=float(some["avg10"]) / 100,
            full_avg10_ratio=float(full["avg10"]) / 100,
            some_total_us=int(some["total"]),
            full_total_us=int(full["total"]),
        )
    except (KeyError, ValueError):
        return None


def parse_cpu_times(text: str, node_of: dict[int, int]) -> tuple[PcpuTime, ...]:
    """The cpuN lines of /proc/stat; time waiting for a disk counts as idle, a VM's own time as busy."""
    found = []
    for line in text.splitlines():
        match = _CPU_LINE.fullmatch(line.strip())
        if match is None:
            continue
        ticks = [int(part) for part in match[2].split()] + [0] * 8
        user, nice, system, idle, iowait, irq, softirq, steal = ticks[:8]
        number = int(match[1])
        busy_ns = (user + nice + system + irq + softirq + steal) * _NS_PER_TICK
        found.append(PcpuTime(number, node_of.get(number, 0), busy_ns, (idle + iowait) * _NS_PER_TICK))
    return tuple(found)


def parse_cpu_list(text: str) -> tuple[int, ...]:
    """ "0-2,5" as (0, 1, 2, 5)."""
    numbers: list[int] = []
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first.isdecimal():
            numbers.extend(range(int(first), int(last or first) + 1))
    return tuple(numbers)


def parse_node(number: int, text: str) -> NumaNode | None:
    """One node's own meminfo."""
    memory = {match[1]: int(match[2]) * KIB for match in _NODE_LINE.finditer(text)}
    if "MemTotal" not in memory or "MemFree" not in memory:
        return None
    caches = sum(memory.get(name, 0) for name in _NODE_CACHES)
    return NumaNode(number, memory["MemTotal"], memory["MemFree"], caches)


def _read_nodes(folder: Path) -> tuple[dict[int, int], tuple[NumaNode, ...]]:
    node_of: dict[int, int] = {}
    nodes = []
    for number in parse_cpu_list(_text(folder / "online")):
        node = parse_node(number, _text(folder / f"node{number}/meminfo"))
        if node is not None:
            nodes.append(node)
        for cpu in parse_cpu_list(_text(folder / f"node{number}/cpulist")):
            node_of[cpu] = number
    return node_of, tuple(nodes)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
