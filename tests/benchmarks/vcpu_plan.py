"""How long one vCPU decision takes on large hosts, and how even and how small it is.

Each row: pCPUs pinned at random, one look for the counters, then the decision with all that belongs to it
(demands, plan, order, reasons). `max_ratio` is the most that any NUMA node's fullest pCPU has over the least
that its fullest one could have (the mean of its pCPUs, or its largest vCPU).
"""

from __future__ import annotations

import random
from typing import Any

from tests.benchmarks.calibration import best_s, report
from tests.vcpu_hosts import NOTHING, Vcpu, pcpus, snapshot, vm
from vmpack.decide.vcpu.plan import plan
from vmpack.model.settings import VcpuSettings
from vmpack.model.vcpu import Pcpu, VcpuPlan, VmVcpus

HOSTS = (
    # vCPUs, of one VM, pCPUs, nodes, largest demand, target in points
    (4096, 4, 512, 16, 0.2, 1.0),
    (200, 2, 64, 1, 0.6, 5.0),
    (16, 1, 8, 1, 0.9, 5.0),
)
REPEATS = 15
SEED = 1


def vms(count: int, of_one: int, cpus: tuple[Pcpu, ...], nodes: int, most: float) -> list[VmVcpus]:
    """VMs of so many vCPUs, each VM somewhere in one node."""
    rng = random.Random(SEED)
    width = len(cpus) // nodes
    found = []
    for number in range(count // of_one):
        first = (number % nodes) * width
        places = rng.sample(range(first, first + width), of_one)
        found.append(vm(f"v{number:04}", *(Vcpu(rng.uniform(0, most), (place,)) for place in places)))
    return found


def fullest_ratio(decided: VcpuPlan, cpus: tuple[Pcpu, ...], hosted: list[VmVcpus]) -> float:
    """See `max_ratio` above."""
    place = {(one.uuid, v.number): v.cpus[0] for one in hosted for v in one.vcpus}
    place |= {(a.uuid, a.number): a.to_cpus[0] for a in decided.actions}
    node_of = {cpu.number: cpu.node for cpu in cpus}
    levels: dict[int, list[float]] = {}
    for load in decided.pcpus:
        levels.setdefault(node_of[load.number], []).append(load.after_ratio)
    largest = dict.fromkeys(levels, 0.0)
    for one, planned in zip(hosted, decided.vms, strict=True):
        for v, demand in zip(one.vcpus, planned.demand_ratios, strict=True):
            node = node_of[place[one.uuid, v.number]]
            largest[node] = max(largest[node], demand)
    return max(max(of) / max(sum(of) / len(of), largest[node]) for node, of in levels.items())


def measure() -> dict[str, Any]:
    """One row per host."""
    rows = []
    for count, of_one, number, nodes, most, target in HOSTS:
        cpus = pcpus(number, nodes)
        hosted = vms(count, of_one, cpus, nodes, most)
        settings = VcpuSettings(mode="balance", target_points=target)
        remembered = plan(snapshot(cpus, hosted, 0), NOTHING, settings).remembered
        seen = snapshot(cpus, hosted)
        decided = plan(seen, remembered, settings)
        rows.append(
            {
                "vcpus": count,
                "pcpus": number,
                "nodes": nodes,
                "target_points": target,
                "plan_ms": round(best_s(lambda: plan(seen, remembered, settings), REPEATS) * 1e3, 2),  # noqa: B023
                "changes": len(decided.actions),
                "std_points_before": round(decided.std_points_before, 2),
                "std_points_after": round(decided.std_points_after, 2),
                "max_ratio": round(fullest_ratio(decided, cpus, hosted), 3),
            }
        )
    return {"rows": rows}


if __name__ == "__main__":
    report(__doc__ or "", measure)
