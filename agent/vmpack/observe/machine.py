"""What never changes about the machine, from /proc and /sys; read once, at the agent's start.

The figures are those that OpenNebula's own probe prints, because ours takes its place. Never raises: what
cannot be read has its safe value.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from vmpack.model.machine import Machine
from vmpack.observe.host import parse_cpu_list
from vmpack.observe.pci_gpus import has_gpus

_MHZ_LINE = re.compile(r"^(?:cpu MHz|clock)\s*:\s*(\d+(?:\.\d+)?)", re.MULTILINE)
_LARGEST_MHZ = 100_000


def read_machine(proc: Path = Path("/proc"), sys: Path = Path("/sys")) -> Machine:
    """Read the machine."""
    present = parse_cpu_list(_text(sys / "devices/system/cpu/present"))
    top_khz = _text(sys / "devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq")
    return Machine(
        cpus=len(present) or os.cpu_count() or 1,
        cpu_mhz=parse_mhz(_text(proc / "cpuinfo"), top_khz),
        cgroups_version=parse_cgroups_version(_text(proc / "mounts")),
        has_gpus=has_gpus(sys),
    )


def parse_mhz(cpuinfo: str, top_khz: str) -> int:
    """The first CPU's speed in /proc/cpuinfo, else its highest one; 0 where neither is told."""
    match = _MHZ_LINE.search(cpuinfo)
    if match is not None:
        mhz = round(float(match[1]))
    else:
        mhz = int(top_khz) // 1000 if top_khz.strip().isdecimal() else 0
    return mhz if mhz <= _LARGEST_MHZ else 0


def parse_cgroups_version(mounts: str) -> int | None:
    """1 where a version 1 hierarchy is mounted, also beside version 2; None for neither."""
    types = {fields[2] for line in mounts.splitlines() if len(fields := line.split()) > 2}
    if "cgroup" in types:
        return 1
    return 2 if "cgroup2" in types else None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
