"""Who sits where: every vCPU with its demand, its pCPU, and whether it may be moved. From one snapshot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from vmpack.model.vcpu import MaskOwner, VcpuSnapshot, VcpuState, VcpuUse, VmVcpus

COOL_DOWN_S = 60.0
"""A vCPU that was moved stays so long, and twice as long each further time."""
COOL_DOWN_MAX_S = 7200.0
RESTED_S = 3600.0
"""So long after its cool-down a vCPU counts as never moved."""
SETTLED_SAMPLES = 3
"""So many samples make an average that can be judged."""
STEADY_NOISE = 0.08
"""What is left of the samples' variance in an average over a minute."""
WAITS_RATIO = 0.05
"""vCPUs that float and wait so much of the time on average are badly served by the kernel's own spreading."""


class Seat(NamedTuple):
    """One vCPU that may be moved, or one that counts all the same."""

    vm: int
    """Index in the snapshot."""
    vcpu: VcpuState
    demand_ratio: float
    cpu: int | None
    """Where it sits; None: on no usable pCPU, so it has to get one."""
    is_pinned: bool
    """To that one pCPU."""
    stays: bool
    """It was moved a moment ago."""
    wait_ratio: float


class Seating(NamedTuple):
    """All vCPUs of a host."""

    movable: list[Seat]
    fixed: dict[int, float]
    """By pCPU: the demand of those that may not be moved, spread over the pCPUs that they may use."""
    fixed_counts: dict[int, int]
    """How many of them each pCPU has that are on it alone."""
    floats_wait: bool
    """Those that may run anywhere wait too much: they are counted where they sit, and may be pinned."""
    is_fresh: bool
    """A load is seen for the first time, or has just changed."""
    is_settled: bool
    """A load was seen SETTLED_SAMPLES times, for the first time."""
    noise_squares: float
    """Variance of the pCPUs' levels that comes of loads which are never quite the same."""


def cool_down_s(moves: int) -> float:
    """After that many moves without a long rest in between."""
    return min(COOL_DOWN_S * 2.0 ** min(max(0, moves - 1), 16), COOL_DOWN_MAX_S)


def is_touchable(vm: VmVcpus, masks: Sequence[MaskOwner]) -> bool:
    """May its pins be changed, if only such masks may be?"""
    return vm.left_alone is None and all(vcpu.mask_of in masks for vcpu in vm.vcpus)


def seating(
    snapshot: VcpuSnapshot, uses: Mapping[str, Sequence[VcpuUse]], masks: Sequence[MaskOwner]
) -> Seating:
    """Seat every vCPU of which something is known."""
    usable = frozenset(pcpu.number for pcpu in snapshot.pcpus)
    nodes = frozenset(pcpu.node for pcpu in snapshot.pcpus)
    movable: list[Seat] = []
    fixed = dict.fromkeys((pcpu.number for pcpu in snapshot.pcpus), 0.0)
    fixed_counts: dict[int, int] = {}
    adrift: list[Seat] = []
    still: list[float] = []
    fresh = settled = False
    noise = 0.0
    for number, vm in enumerate(snapshot.vms):
        touchable = is_touchable(vm, masks)
        # Who has lost its pCPU, and has none left near its memory, is better off where it is.
        is_cut_off = bool(vm.nodes) and nodes.isdisjoint(vm.nodes)
        for vcpu, use in zip(vm.vcpus, uses[vm.uuid], strict=True):
            if use.samples == 0:
                continue
            fresh = fresh or use.samples == 1
            settled = settled or use.samples == SETTLED_SAMPLES
            noise += use.noise_squares * max(1 / use.samples, STEADY_NOISE)
            demand, cpus = use.demand_ratio, vcpu.cpus
            if not touchable:
                _spread_over(fixed, still, cpus, usable, demand)
                if len(cpus) == 1 and cpus[0] in usable:
                    fixed_counts[cpus[0]] = fixed_counts.get(cpus[0], 0) + 1
                continue
            stays = use.moved_s is not None and snapshot.time_s - use.moved_s < cool_down_s(use.moves)
            if len(cpus) == 1:
                cpu = cpus[0] if cpus[0] in usable else None
                if cpu is not None or not (stays or is_cut_off):
                    movable.append(Seat(number, vcpu, demand, cpu, True, stays, use.wait_ratio))
            elif cpus and usable.isdisjoint(cpus):
                if not (stays or is_cut_off):
                    movable.append(Seat(number, vcpu, demand, None, True, False, use.wait_ratio))
            else:
                adrift.append(Seat(number, vcpu, demand, vcpu.seat, False, stays, use.wait_ratio))
    waits = _they_wait(adrift)
    if waits:
        movable += [seat for seat in adrift if seat.cpu in usable]
        still += [seat.demand_ratio for seat in adrift if seat.cpu not in usable]
    else:
        still += [seat.demand_ratio for seat in adrift]
    _pour(fixed, movable, snapshot, sum(still))
    noise_squares = noise / max(1, len(snapshot.pcpus))
    return Seating(movable, fixed, fixed_counts, waits, fresh, settled, noise_squares)


def others_stay(seating: Seating) -> Seating:
    """The same, but nobody may be moved who has a pCPU."""
    return seating._replace(
        movable=[seat if seat.cpu is None else seat._replace(stays=True) for seat in seating.movable]
    )


def _spread_over(
    fixed: dict[int, float], still: list[float], cpus: Sequence[int], usable: frozenset[int], demand: float
) -> None:
    if not cpus:
        still.append(demand)
        return
    # What it does on reserved pCPUs is no load of these.
    for cpu in usable.intersection(cpus):
        fixed[cpu] += demand / len(cpus)


def _they_wait(adrift: Sequence[Seat]) -> bool:
    """Do they wait more than WAITS_RATIO, weighted by what they want?"""
    waited = wanted = 0.0
    for seat in adrift:
        waited += seat.wait_ratio * seat.demand_ratio
        wanted += seat.demand_ratio
    return waited > WAITS_RATIO * wanted


def _pour(fixed: dict[int, float], movable: Sequence[Seat], snapshot: VcpuSnapshot, amount: float) -> None:
    """What may run anywhere and does not wait goes where least is, as the kernel has it go."""
    if amount <= 0.0:
        return
    loads = fixed.copy()
    for seat in movable:
        if seat.cpu is not None:
            loads[seat.cpu] += seat.demand_ratio
    rooms = {pcpu.number: pcpu.capacity_ratio for pcpu in snapshot.pcpus}
    order = sorted(rooms, key=lambda cpu: loads[cpu] / rooms[cpu])
    room = load = 0.0
    surface = 0.0
    filled: list[int] = []
    for cpu in order:
        if filled and loads[cpu] / rooms[cpu] >= surface:
            break
        filled.append(cpu)
        room += rooms[cpu]
        load += loads[cpu]
        surface = (load + amount) / room
    for cpu in filled:
        fixed[cpu] += surface * rooms[cpu] - loads[cpu]
