"""What each vCPU wants: more than it gets, where it has to wait.

In a time T a vCPU runs for r T, is ready but waits for w T, and rests for the remainder. Who rests rests of
his own accord, so without waiting the same work and the same rest would have taken (1 - w) T: it wants
r / (1 - w) of a pCPU. For one that never rests that is 1, for one that never waits it is what it uses. Where
the kernel does not count waiting, use has to do.

On a slow pCPU, of capacity c, the same work takes 1 / c as long and the rest is as long as ever: who wants d
of the fastest pCPU is seen to want u = (d / c) / (d / c + 1 - d) of this one, so d = u c / (1 - u + u c).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    return VcpuUse(vcpu.number, time_s, vcpu.run_ns, vcpu.delay_ns)


def next_use(known: VcpuUse, vcpu: VcpuState, time_s: float, capacity_ratio: float = 1.0) -> VcpuUse:
    """What is known after another look. Counters that ran backwards are a new thread's: all begins anew."""
    (
        number,
        then_s,
        run_before_ns,
        delay_before_ns,
        average,
        wait_average,
        samples,
        strayed,
        moved_s,
        noise,
        moves,
    ) = known
    _, run_ns, delay_ns, *_ = vcpu
    elapsed_ns = (time_s - then_s) * 1e9
    ran_ns = run_ns - run_before_ns
    waited_ns = 0 if delay_ns is None or delay_before_ns is None else delay_ns - delay_before_ns
    if elapsed_ns <= 0:
        return known
    if ran_ns < 0 or waited_ns < 0:
        return first_use(vcpu, time_s)
    run = min(1.0, ran_ns / elapsed_ns)
    wait = min(1.0 - run, waited_ns / elapsed_ns)
    demand = demand_ratio(run, wait, capacity_ratio)
    stray = demand - average
    if samples == 0:
        samples = 1
    elif abs(stray) <= STRAY_RATIO or stray * stray <= STRAY_NOISES**2 * noise:
        weight = max(1.0 / (samples + 1), 1.0 - exp((then_s - time_s) / SMOOTHED_S))
        demand = average + weight * stray
        noise += max(weight, 1.0 / samples) * (stray * stray - noise)
        wait = wait_average + weight * (wait - wait_average)
        samples += 1
    elif strayed is not None and strayed * stray > 0:
        # The first of the two saw a part of the change alone.
        samples = 1
    else:
        return known._replace(time_s=time_s, run_ns=run_ns, delay_ns=delay_ns, stray_ratio=stray)
    return VcpuUse(number, time_s, run_ns, delay_ns, demand, wait, samples, None, moved_s, noise, moves)


def uses_of(
    known: Sequence[VcpuUse], vm: VmVcpus, time_s: float, capacities: Mapping[int | None, float]
) -> tuple[VcpuUse, ...]:
    """Of one VM's vCPUs, in their order; those that are gone are forgotten.

    `capacities` has the pCPUs that are not as fast as the fastest.
    """
    if [use.number for use in known] != [vcpu.number for vcpu in vm.vcpus]:
        of_number = {use.number: use for use in known}
        known = [of_number.get(vcpu.number) or first_use(vcpu, time_s) for vcpu in vm.vcpus]
    if not capacities:
        return tuple([next_use(use, vcpu, time_s) for use, vcpu in zip(known, vm.vcpus, strict=True)])
    return tuple(
        [
            next_use(use, vcpu, time_s, capacities.get(vcpu.seat, 1.0))
            for use, vcpu in zip(known, vm.vcpus, strict=True)
        ]
    )
