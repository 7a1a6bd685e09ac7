"""Where the vCPUs of a simulated host sit and may sit, in numbers for an exact search (vcpu_exact.py).

What holds for whatever is changed, as for vmpack itself: a vCPU of a VM that is left alone stays; one that is
moved goes to its VM's NUMA nodes, and to no pCPU where a sibling is, unless the VM has more vCPUs than pCPUs
it may use; a VM that fits into one node spreads over no more nodes than before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from vmpack.replay.vcpu_host import SimulatedHost, uuid_of


class Item(NamedTuple):
    """One vCPU that may be moved. pCPUs are counted from 0 here."""

    key: tuple[str, int]
    """Its VM's UUID, and its number."""
    size: float
    """What it wants."""
    seat: int
    allowed: frozenset[int]
    vm: int
    floating: frozenset[int]
    """Where the kernel may put it; empty when it may not."""


class Board(NamedTuple):
    """All that a search knows."""

    numbers: tuple[int, ...]
    """The pCPUs' own numbers; so are the next three by pCPU."""
    capacities: tuple[float, ...]
    nodes: tuple[int, ...]
    fixed: tuple[float, ...]
    """Load that cannot be moved."""
    fixed_count: tuple[int, ...]
    """How many vCPUs that is."""
    items: tuple[Item, ...]
    apart: frozenset[int]
    """VMs whose vCPUs are to sit on pCPUs of their own."""
    together: dict[int, int]
    """By VM that fits into a node: over how many it may spread."""
    squares_now: float
    """As all sit now, and as the kernel pours the others."""
    is_poured: bool
    """Does it pour any?"""
    odd: bool
    """Somebody sits where he could not be moved to: his pCPU is like no other."""

    def squares(self, loads: Sequence[float]) -> float:
        """Sum of the squared distances of the pCPUs' levels from their mean."""
        return squared([load / room for load, room in zip(loads, self.capacities, strict=True)])

    def loads(self, seats: Sequence[int]) -> list[float]:
        """By pCPU."""
        loads = list(self.fixed)
        for item, seat in zip(self.items, seats, strict=True):
            loads[seat] += item.size
        return loads

    def may(self, place: int, to: int, seats: Sequence[int | None]) -> bool:
        """May this item sit there, beside those that have a seat? Siblings that sat together may stay so."""
        item = self.items[place]
        if to != item.seat and to not in item.allowed:
            return False
        return item.vm not in self.apart or not any(
            seat == to and other.vm == item.vm and other is not item and (item.seat, other.seat) != (to, to)
            for other, seat in zip(self.items, seats, strict=True)
        )

    def near(self, seats: Sequence[int]) -> bool:
        """Does no VM spread over more nodes than it may?"""
        used: dict[int, set[int]] = {}
        for item, seat in zip(self.items, seats, strict=True):
            if item.vm in self.together:
                used.setdefault(item.vm, set()).add(self.nodes[seat])
        return all(len(nodes) <= self.together[vm] for vm, nodes in used.items())

    def restless(self, seats: Sequence[int]) -> list[int]:
        """The items which the kernel would move away, though they need not be moved: they must be pinned."""
        counts = Counter(dict(enumerate(self.fixed_count)))
        counts.update(seats)
        return [
            place
            for place, (item, seat) in enumerate(zip(self.items, seats, strict=True))
            if seat == item.seat
            and any(
                counts[number] + 2 <= counts[seat]
                or (not counts[number] and self.capacities[number] > self.capacities[seat])
                for number in item.floating
            )
        ]


def squared(levels: Sequence[float]) -> float:
    """Sum of squared distances from the mean."""
    mean = sum(levels) / len(levels)
    return sum((level - mean) ** 2 for level in levels)


def board_of(host: SimulatedHost) -> Board:
    """The host as it is now; by what vCPUs want on average."""
    places = {number: place for place, number in enumerate(host.pcpus)}
    nodes = tuple(pcpu.node for pcpu in host.pcpus.values())
    fixed, fixed_count = [0.0] * len(places), [0] * len(places)
    items: list[Item] = []
    vms = {vm.name: number for number, vm in enumerate(host.scene.vms)}
    for thread in host.threads:
        seat = places[thread.seat]
        if thread.vm.left_alone is not None:
            fixed[seat] += thread.mean_ratio
            fixed_count[seat] += 1
            continue
        allowed = frozenset(
            place for place in places.values() if not thread.vm.nodes or nodes[place] in thread.vm.nodes
        )
        masked = frozenset(places[cpu] for cpu in thread.cpus or host.pcpus)
        floating = masked if thread.floats else frozenset[int]()
        key = uuid_of(thread.vm.name), thread.number
        items.append(Item(key, thread.mean_ratio, seat, allowed, vms[thread.vm.name], floating))
    largest = max(Counter(nodes).values())
    by_vm: dict[int, list[Item]] = {}
    for item in items:
        by_vm.setdefault(item.vm, []).append(item)
    several = {vm: own for vm, own in by_vm.items() if len(own) > 1}
    return Board(
        tuple(host.pcpus),
        tuple(pcpu.capacity_ratio for pcpu in host.pcpus.values()),
        nodes,
        tuple(fixed),
        tuple(fixed_count),
        tuple(items),
        frozenset(vm for vm, own in several.items() if len(own) <= len(own[0].allowed)),
        {vm: len({nodes[item.seat] for item in own}) for vm, own in several.items() if len(own) <= largest},
        squared(host.levels()),
        any(thread.poured for thread in host.threads),
        any(item.seat not in item.allowed for item in items)
        or any(len({item.seat for item in own}) < len(own) for own in several.values()),
    )
