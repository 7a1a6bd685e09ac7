"""CPU of one run of our OpenNebula probes with 50 VMs on the host, and of a loop that asks virsh per VM.

The VMs are started paused on a private libvirt. The fresh figure is that of the dearer of our two probes
while an agent runs, the fallback figure the same with none; the rival is the loop that a person would write.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.calibration import report
from tests.opennebula.probe_node import HOST_SYSTEM, VM_SNAPSHOT, ProbeNode
from tests.real.agent_process import AgentProcess
from tests.real.paused import start_paused
from vmpack.lab.lab import Lab

DOMAINS = 50

VIRSH_PROBE = """
for vm in $(virsh -r -c "$LIBVIRT_DEFAULT_URI" list --name); do
    max=$(virsh -r -c "$LIBVIRT_DEFAULT_URI" dominfo "$vm" | awk '/Max memory/ { print $3 }')
    real=$(virsh -r -c "$LIBVIRT_DEFAULT_URI" dommemstat "$vm" | awk '$1 == "actual" { print $2 }')
    monitor=$(printf 'REALMEMORY="%s"\\nMAXMEMORY="%s"\\nPACKEDMEMORY="%s"\\n' "$real" "$max" \\
        $((max - real)) | base64 -w 0)
    printf 'VM=[ ID="%s", MONITOR="%s" ]\\n' "${vm#one-}" "$monitor"
done
"""


def cpu_ms(argv: Sequence[str], environment: dict[str, str], runs: int, batches: int) -> float:
    """CPU of one run with all its children: the median of so many batches."""
    found = []
    for _ in range(batches):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        for _ in range(runs):
            subprocess.run(argv, env=environment, stdout=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        found.append(1000 * used_s / runs)
    return round(statistics.median(found), 2)


def probe_cpu_ms(node: ProbeNode, state: str, runs: int, batches: int) -> dict[str, float]:
    """CPU by category, after a look that the probes print what they should."""
    assert f'VMPACK_STATE="{state}"' in node.print(HOST_SYSTEM)
    assert node.print(VM_SNAPSHOT).count("VM=[") == DOMAINS
    return {
        category: cpu_ms(
            [str(node.probe(category)), "vmpack", "0", "node-1"], node.environment, runs, batches
        )
        for category in (HOST_SYSTEM, VM_SNAPSHOT)
    }


def measure() -> dict[str, Any]:
    """Milliseconds of CPU for one run of each."""
    with tempfile.TemporaryDirectory(prefix="vmpack-bench-") as name, Lab.private() as lab:
        for number in range(DOMAINS):
            start_paused(lab, f"one-{number}", memory_mib=64)
        node = ProbeNode(Path(name), lab.uri)
        with AgentProcess(Path(name), lab.uri, config="") as agent:
            agent.ready()
            agent.pass_turns(2)
            fresh = probe_cpu_ms(node, "ACTIVE", runs=20, batches=9)
            agent.stop()
        fallback = probe_cpu_ms(node, "NO_AGENT", runs=3, batches=9)
        virsh_ms = cpu_ms(
            ["/bin/sh", "-c", VIRSH_PROBE], {**os.environ, **node.environment}, runs=1, batches=5
        )
    fresh_ms = max(fresh.values())
    return {
        "domains": DOMAINS,
        "fresh_cpu_ms": fresh_ms,
        "fallback_cpu_ms": max(fallback.values()),
        "virsh_cpu_ms": virsh_ms,
        "virsh_per_fresh_ratio": round(virsh_ms / fresh_ms, 1),
        **{f"fresh_{category}_cpu_ms": value for category, value in fresh.items()},
        **{f"fallback_{category}_cpu_ms": value for category, value in fallback.items()},
    }


if __name__ == "__main__":
    report(__doc__ or "", measure)
