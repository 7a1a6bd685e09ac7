"""What the kernel says of the threads of a real guest's QEMU: where they may run, and how long they ran.

Read from /proc and not through libvirt or vmpack.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from vmpack.lab.lab import LabGuest

_VCPU_THREAD = re.compile(r"CPU (\d+)/")


class CpuTime(NamedTuple):
    """Counters of one thread since it began, from schedstat."""

    run_ns: int
    delay_ns: int
    """It was ready to run and did not."""


def allowed_cpus(guest: LabGuest) -> dict[int, str]:
    """By thread: the CPUs that the kernel lets it run on. Of all threads of the QEMU."""
    found = {}
    for task in _tasks(guest):
        try:
            status = (task / "status").read_text()
        except (FileNotFoundError, ProcessLookupError):  # helper threads come and go
            continue
        line = re.search(r"^Cpus_allowed_list:\s+(\S+)$", status, re.MULTILINE)
        assert line is not None, status
        found[int(task.name)] = line[1]
    return found


def vcpu_task(guest: LabGuest, number: int = 0) -> Path:
    """The folder in /proc of a vCPU's thread."""
    for task in _tasks(guest):
        name = _VCPU_THREAD.match((task / "comm").read_text())
        if name is not None and int(name[1]) == number:
            return task
    raise AssertionError(f"{guest.name} has no thread of vCPU {number}")


def cpu_time(task: Path) -> CpuTime:
    """What one thread ran and waited until now."""
    run_ns, delay_ns, _slices = (task / "schedstat").read_text().split()
    return CpuTime(int(run_ns), int(delay_ns))


def _tasks(guest: LabGuest) -> list[Path]:
    return sorted(Path(f"/proc/{guest.pid}/task").iterdir(), key=lambda task: int(task.name))
