"""A VM's QEMU process, found and measured in /proc: what it costs beyond the guest's memory; huge pages.

Called by source.py. Measuring walks the page tables of a whole guest, so it is done for one VM per interval.
The overhead is what is remembered, because it moves slowly; the guest's part moves with every balloon.
What cannot be read (another user's process, a process that ended) is None.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from vmpack.units import KIB

NEW_PER_INTERVAL = 4
"""VMs seen for the first time are measured sooner, but not all at once."""
SEARCHES = 5
"""How often a VM's process is looked for: two may claim a VM that has just come from another lab here."""
_MAPPING = re.compile(
    r"^([0-9a-f]+)-([0-9a-f]+) (\S{4}) .*\n(?:\w+: .*\n)*?Rss: +(\d+) kB\n"
    r"(?:(?:\w+: .*\n)*?AnonHugePages: +(\d+) kB\n)?",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Process:
    """One process; the start time tells it from a later one with the same pid."""

    pid: int
    started_ticks: str


class Measured(NamedTuple):
    """What the memory map of one process says."""

    overhead_bytes: int
    """Resident, and not the guest's own memory."""
    huge_ratio: float | None
    """Which part of the guest's resident memory the host maps as huge pages; None where none is resident."""


class OverheadMeter:
    """Measures a new VM soon and then one VM per interval, the one whose figure is the oldest."""

    def __init__(self, proc: Path) -> None:
        self._proc = proc
        self._known: dict[tuple[str, int], Process | None] = {}
        self._searches: dict[tuple[str, int], int] = {}
        self._measured: dict[tuple[str, int], Measured | None] = {}

    def measure(self, nominal_bytes: Mapping[tuple[str, int], int]) -> dict[tuple[str, int], Measured | None]:
        """What was measured last, by VM (uuid and libvirt's number of this run of it)."""
        self._search(nominal_bytes)
        # Never measured ones first, then in the order in which they were last measured.
        self._measured = {vm: figure for vm, figure in self._measured.items() if vm in nominal_bytes}
        new = [vm for vm in nominal_bytes if vm not in self._measured]
        for vm in new[:NEW_PER_INTERVAL] or list(self._measured)[:1]:
            self._measured.pop(vm, None)
            process, size = self._known[vm], nominal_bytes[vm]
            self._measured[vm] = measured(self._proc, process, size) if process is not None else None
        return {vm: self._measured.get(vm) for vm in nominal_bytes}

    def rss_bytes(self, uuid: str) -> int | None:
        """Resident bytes of a VM's process, for a VM of which libvirt does not tell them."""
        process = find_qemus(self._proc).get(uuid)
        pages = _bytes(self._proc / f"{process.pid}/statm").split()[1:2] if process is not None else []
        return int(pages[0]) * os.sysconf("SC_PAGE_SIZE") if pages else None

    def vm_of_pid(self) -> dict[int, str]:
        """VM uuid by process id, of the VMs of the newest `measure`."""
        return {process.pid: uuid for (uuid, _), process in self._known.items() if process is not None}

    def _search(self, vms: Collection[tuple[str, int]]) -> None:
        """Find the processes of VMs that were not found yet."""
        self._known = {vm: self._known.get(vm) for vm in vms}
        self._searches = {vm: self._searches.get(vm, 0) for vm in vms}
        sought = [vm for vm in vms if self._known[vm] is None and self._searches[vm] < SEARCHES]
        if not sought:
            return
        found = find_qemus(self._proc)
        for vm in sought:
            self._searches[vm] += 1
            self._known[vm] = found.get(vm[0])
            if self._known[vm] is not None:
                self._measured.pop(vm, None)


def find_qemus(proc: Path) -> dict[str, Process]:
    """QEMU's processes by VM uuid, leaving out those that two processes claim to be."""
    found: dict[str, list[int]] = {}
    for folder in proc.iterdir():
        if not folder.name.isdecimal():
            continue
        arguments = _bytes(folder / "cmdline").rstrip(b"\0").split(b"\0")
        if b"-uuid" in arguments[:-1]:
            uuid = arguments[arguments.index(b"-uuid") + 1].decode(errors="replace")
            found.setdefault(uuid, []).append(int(folder.name))
    sure = {}
    for uuid, pids in found.items():
        started = _started_ticks(proc, pids[0])
        if len(pids) == 1 and started is not None:
            sure[uuid] = Process(pids[0], started)
    return sure


def is_alive(proc: Path, process: Process) -> bool:
    """True while this very process runs."""
    return _started_ticks(proc, process.pid) == process.started_ticks


def measured(proc: Path, process: Process, nominal_bytes: int) -> Measured | None:
    """What the memory map of this very process says."""
    if not is_alive(proc, process):
        return None
    return parse_smaps(_bytes(proc / f"{process.pid}/smaps").decode(errors="replace"), nominal_bytes)


def parse_smaps(smaps: str, nominal_bytes: int) -> Measured | None:
    """The guest's memory and all other mappings.

    The guest's are the mappings as large as the guest, else the larger ones: the kernel joins neighbours.
    Executable mappings are QEMU's translated code, however large. None when no mapping can be the guest's.
    """
    equal: list[tuple[int, int]] = []
    larger: list[tuple[int, int]] = []
    others = 0
    for start, end, rights, rss_kib, huge_kib in _MAPPING.findall(smaps):
        size_bytes, rss_bytes = int(end, 16) - int(start, 16), int(rss_kib) * KIB
        if size_bytes < nominal_bytes or not rights.startswith("rw-"):
            others += rss_bytes
        elif size_bytes == nominal_bytes:
            equal.append((rss_bytes, int(huge_kib or 0) * KIB))
        else:
            larger.append((rss_bytes, int(huge_kib or 0) * KIB))
    own = equal or larger
    if not own:
        return None
    if equal:
        others += sum(rss_bytes for rss_bytes, _ in larger)
    resident = sum(rss_bytes for rss_bytes, _ in own)
    huge = sum(huge_bytes for _, huge_bytes in own)
    return Measured(others, round(huge / resident, 3) if resident else None)


def _started_ticks(proc: Path, pid: int) -> str | None:
    fields = _bytes(proc / f"{pid}/stat").rpartition(b")")[2].split()
    return fields[19].decode() if len(fields) > 19 else None


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
