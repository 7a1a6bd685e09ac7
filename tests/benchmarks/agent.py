"""What the agent costs a host: its memory and its CPU beside eight real guests on a private libvirt.

The agent runs as administrators run it, with default settings, in a process of its own. It is measured once
it has packed the guests and fallen quiet. libvirt's own work is not the agent's, and is shown beside it.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.calibration import report
from tests.real.agent_process import AgentProcess
from vmpack.lab.guest_spec import GuestSpec
from vmpack.lab.lab import Lab
from vmpack.units import MIB

GUESTS = 8
WARM_UP_INTERVALS = 12
MEASURED_INTERVALS = 24
DEADLINE_S = 1200.0


def cpu_s(pid: int) -> float:
    """CPU seconds of a process so far, its own and the kernel's for it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_bytes(pid: int) -> int:
    """Resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def await_intervals(agent: AgentProcess, count: int) -> None:
    """Wait until so many more intervals have gone through."""
    goal, deadline_s = agent.turns() + count, time.monotonic() + DEADLINE_S
    while agent.turns() < goal:
        if time.monotonic() > deadline_s:
            raise SystemExit(f"the agent made no {count} intervals in {DEADLINE_S:g} s:\n{agent.log}")
        time.sleep(1)


def measure() -> dict[str, Any]:
    """The agent's resident bytes and share of one core, and libvirt's share beside it."""
    with tempfile.TemporaryDirectory(prefix="vmpack-bench-") as folder, Lab.private() as lab:
        lab.start(*(GuestSpec(f"guest{number}", 128 * MIB, vcpus=1) for number in range(GUESTS)))
        lab.wait_ready()
        with AgentProcess(Path(folder), lab.uri, config="") as agent:
            await_intervals(agent, WARM_UP_INTERVALS)
            pid, libvirt_pid = agent.process.pid, int((lab.state.root / "daemon.pid").read_text())
            began_s, agent_s, libvirt_s = time.monotonic(), cpu_s(pid), cpu_s(libvirt_pid)
            await_intervals(agent, MEASURED_INTERVALS)
            passed_s = time.monotonic() - began_s
            result = {
                "guests": GUESTS,
                "interval_s": agent.client.status().interval_s,
                "measured_s": round(passed_s, 1),
                "rss_bytes": rss_bytes(pid),
                "cpu_ratio": round((cpu_s(pid) - agent_s) / passed_s, 5),
                "libvirt_cpu_ratio": round((cpu_s(libvirt_pid) - libvirt_s) / passed_s, 5),
            }
            agent.stop()
    return result


if __name__ == "__main__":
    report(__doc__ or "", measure)
