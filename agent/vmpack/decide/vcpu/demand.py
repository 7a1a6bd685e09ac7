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
RESTLESS_S = 600.0
"""That of loads that come and go, and of how far samples are from the average."""
STRAY_RATIO = 0.2
STRAY_NOISES = 4.0
"""Farther from its average than this, and than so many standard deviations, a sample strays; two on the same
side, and the load has changed.
"""
STEPS_APART_S = 600.0
"""A load that changed again before counts as one that comes and goes: it is averaged."""
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
    number, then_s, run_before_ns, delay_before_ns, _, _, samples, _, moved_s, noise, moves, stepped_s = known
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
    new = VcpuUse(number, time_s, run_ns, delay_ns, demand, wait, 1, None, moved_s, noise, moves, stepped_s)
    return new if samples == 0 else _taught(known, new)


def _taught(known: VcpuUse, new: VcpuUse) -> VcpuUse:
    """With the new sample. One that strays is held back until the next one tells what it was."""
    average, samples, noise, strayed = (
        known.demand_ratio,
        known.samples,
        known.noise_squares,
        known.stray_ratio,
    )
    stray = new.demand_ratio - average
    strays = abs(stray) > STRAY_RATIO and stray * stray > STRAY_NOISES**2 * noise
    again = strayed is not None and strayed * stray > 0
    stepped_s = known.stepped_s
    if strays and again and (stepped_s is None or new.time_s - stepped_s >= STEPS_APART_S):
        # The first of the two saw a part of the change alone.
        return new._replace(stepped_s=new.time_s)
    aged_s = known.time_s - new.time_s
    smoothed_s = SMOOTHED_S if noise <= STRAY_RATIO * STRAY_RATIO else RESTLESS_S
    weight = max(1.0 / (samples + 1), 1.0 - exp(aged_s / smoothed_s))
    noise_weight = 1.0 - exp(aged_s / RESTLESS_S)
    if stepped_s is None:
        noise_weight = max(noise_weight, 1.0 / samples)
    if strayed is not None:
        average += weight * strayed
        noise += noise_weight * (strayed * strayed - noise)
        samples += 1
        stray = new.demand_ratio - average
    if strays and not again:
        return new._replace(
            demand_ratio=average,
            wait_ratio=known.wait_ratio,
            samples=samples,
            stray_ratio=stray,
            noise_squares=noise,
        )
    return VcpuUse(
        new.number,
        new.time_s,
        new.run_ns,
        new.delay_ns,
        average + weight * stray,
        known.wait_ratio + weight * (new.wait_ratio - known.wait_ratio),
        samples + 1,
        None,
        new.moved_s,
        noise + noise_weight * (stray * stray - noise),
        new.moves,
        stepped_s,
    )


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
