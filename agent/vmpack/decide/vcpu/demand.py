"""What each vCPU wants: more than it gets, where it has to wait.

In a time T a vCPU runs for r T, is ready but waits for w T, and rests for the remainder. Who rests rests of
his own accord, so without waiting the same work and the same rest would have taken (1 - w) T: it wants
r / (1 - w) of a pCPU. For one that never rests that is 1, for one that never waits it is what it uses. Where
the kernel does not count waiting, use has to do.

On a slow pCPU, of capacity c, the same work takes 1 / c as long and the rest is as long as ever: who wants d
of the fastest pCPU is seen to want u = (d / c) / (d / c + 1 - d) of this one, so d = u c / (1 - u + u c).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import exp

from vmpack.model.vcpu import VcpuState, VcpuUse, VmVcpus

SMOOTHED_S = 60.0
"""Time constant of the averages."""
STRAY_RATIO = 0.2
STRAY_NOISES = 4.0
"""Farther from its average than this, and than so many standard deviations, a sample strays; two on the same
side, and the load has changed.
"""
_NO_REST_RATIO = 0.02


def demand_ratio(run_ratio: float, wait_ratio: float, capacity_ratio: float = 1.0) -> float:
    """Share of the fastest pCPU, 0 to 1, that a vCPU would use if it never had to wait.

    It ran and waited on a pCPU of this capacity.
    """
    rest_of_time = 1.0 - wait_ratio
    if rest_of_time <= _NO_REST_RATIO:
        return 1.0
    seen = min(1.0, run_ratio / rest_of_time)
    return seen if capacity_ratio == 1.0 else seen * capacity_ratio / (1.0 - seen + seen * capacity_ratio)


def first_use(vcpu: VcpuState, time_s: float) -> VcpuUse:
    """Of a vCPU that was never seen before: nothing is known."""
    return VcpuUse(time_s, vcpu.run_ns, vcpu.delay_ns)


def next_use(known: VcpuUse, vcpu: VcpuState, time_s: float, capacity_ratio: float = 1.0) -> VcpuUse:
    """What is known after another look. Counters that ran backwards are a new thread's: all begins anew."""
    elapsed_ns = (time_s - known.time_s) * 1e9
    ran_ns = vcpu.run_ns - known.run_ns
    waited_ns = 0 if vcpu.delay_ns is None or known.delay_ns is None else vcpu.delay_ns - known.delay_ns
    if elapsed_ns <= 0:
        return known
    if ran_ns < 0 or waited_ns < 0:
        return first_use(vcpu, time_s)
    run = min(1.0, ran_ns / elapsed_ns)
    wait = min(1.0 - run, waited_ns / elapsed_ns)
    demand = demand_ratio(run, wait, capacity_ratio)
    samples, stray, noise = known.samples, demand - known.demand_ratio, known.noise_squares
    if samples == 0:
        samples = 1
    elif abs(stray) <= STRAY_RATIO or stray * stray <= STRAY_NOISES**2 * noise:
        weight = max(1.0 / (samples + 1), 1.0 - exp((known.time_s - time_s) / SMOOTHED_S))
        demand = known.demand_ratio + weight * stray
        noise += max(weight, 1.0 / samples) * (stray * stray - noise)
        wait = known.wait_ratio + weight * (wait - known.wait_ratio)
        samples += 1
    elif known.stray_ratio is not None and known.stray_ratio * stray > 0:
        demand = known.demand_ratio + (stray + known.stray_ratio) / 2
        samples = 1
    else:
        return known._replace(time_s=time_s, run_ns=vcpu.run_ns, delay_ns=vcpu.delay_ns, stray_ratio=stray)
    return VcpuUse(time_s, vcpu.run_ns, vcpu.delay_ns, demand, wait, samples, None, known.moved_s, noise)


def uses_of(
    known: Mapping[str, VcpuUse], vm: VmVcpus, time_s: float, capacities: Mapping[int | None, float]
) -> dict[str, VcpuUse]:
    """Of one VM's vCPUs, by number as text; those that are gone are forgotten.

    `capacities` has the pCPUs that are not as fast as the fastest.
    """
    uses = {}
    for vcpu in vm.vcpus:
        key = str(vcpu.number)
        before = known.get(key)
        if before is None:
            uses[key] = first_use(vcpu, time_s)
        else:
            uses[key] = next_use(before, vcpu, time_s, capacities.get(vcpu.seat, 1.0))
    return uses
