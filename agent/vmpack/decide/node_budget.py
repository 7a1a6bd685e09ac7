"""NUMA nodes whose memory only some VMs may use: what these may have there, within the host's budget.

A VM that is bound to nodes cannot grow into memory elsewhere: when its nodes are full, its QEMU is killed
there while the host has room. VMs bound to the same nodes make a pool. Called by decide.memory and by
decide.release. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from vmpack.decide.brake import reserve_bytes
from vmpack.decide.budget import overhead_bytes
from vmpack.decide.seat import Seat
from vmpack.decide.targets import divide
from vmpack.model.guest import GuestSnapshot
from vmpack.model.host import HostSnapshot
from vmpack.model.plan import Reason
from vmpack.model.settings import HostSettings


class OfVm(Protocol):
    """Something about one VM."""

    @property
    def guest(self) -> GuestSnapshot:
        """That VM."""


class NodePool(NamedTuple):
    """Nodes, and the VMs that are bound to just these."""

    nodes: str
    """Their numbers, for people."""
    places: tuple[int, ...]
    """Of the VMs, in their order."""
    budget_bytes: int
    """What their balloons may have in all."""


class Division(NamedTuple):
    """What each VM should have in the end, by seat."""

    targets: list[int]
    scarce: bool
    """Not every minimum fits, on the host or on some nodes."""
    lacking_bytes: int
    """What the minimums are short of on nodes that are scarce."""
    bounds: Mapping[int, Reason]
    """Why a VM gets less than the host has for it, by its place."""


def node_pools(
    vms: Sequence[OfVm], host: HostSnapshot, settings: HostSettings
) -> tuple[tuple[NodePool, ...], tuple[Reason, ...]]:
    """The pools of this host, and what is to be said of VMs whose bounds cannot be kept.

    Sets of nodes that overlap, or that the host does not show, make no pool: the host's budget holds for
    these VMs.
    """
    # One node is the host.
    if len(host.nodes) < 2:
        return (), ()
    bound: dict[frozenset[int], list[int]] = {}
    for place, vm in enumerate(vms):
        if vm.guest.nodes:
            bound.setdefault(frozenset(vm.guest.nodes), []).append(place)
    shown = {node.number for node in host.nodes}
    bound = {nodes: places for nodes, places in bound.items() if not nodes >= shown}
    pools, said = [], []
    for nodes, places in sorted(bound.items(), key=lambda entry: sorted(entry[0])):
        words = ", ".join(str(node) for node in sorted(nodes))
        if not nodes <= shown or any(other & nodes for other in bound if other != nodes):
            said.append(Reason("nodes_not_kept_apart", {}, words))
        else:
            size = _budget(nodes, [vms[place].guest for place in places], host, settings)
            pools.append(NodePool(words, tuple(places), size))
    return tuple(pools), tuple(said)


def _budget(
    nodes: frozenset[int], bound: Sequence[GuestSnapshot], host: HostSnapshot, settings: HostSettings
) -> int:
    """As the host's: total - its part of the reserve - what others use there - the VMs' overhead."""
    there = [node for node in host.nodes if node.number in nodes]
    total = sum(node.memory_total_bytes for node in there)
    used = total - sum(node.memory_free_bytes + node.memory_cache_bytes for node in there)
    others = max(0, used - sum(guest.rss_bytes or 0 for guest in bound))
    overhead = sum(overhead_bytes(guest, settings) for guest in bound)
    whole = max(1, host.memory_total_bytes)
    reserve = reserve_bytes(whole, settings) * total // whole
    return max(0, total - reserve - others - overhead)


def divide_by_node(
    seats: Sequence[Seat], pools: Sequence[NodePool], spendable: int, claimed: int, braked: bool
) -> Division:
    """As targets.divide, but no pool gets more than its budget; others get what that frees."""
    targets, scarce = divide(seats, spendable, claimed, braked)
    if not pools:
        return Division(targets, scarce, 0, {})
    open_pools, open_places = list(pools), list(range(len(seats)))
    lacking, bounds = 0, dict[int, Reason]()
    while over := [pool for pool in open_pools if _movable_sum(pool, seats, targets) > _left(pool, seats)]:
        for pool in over:
            members, left = [seats[place] for place in pool.places], _left(pool, seats)
            sizes, short = divide(members, left, 0, braked)
            minimum = sum(seat.need.minimum_bytes for seat in members if seat.need.movable)
            wanted = sum(seat.need.wanted_bytes for seat in members if seat.need.movable)
            lacking += max(0, minimum - left)
            scarce = scarce or short
            numbers = {"node_budget_bytes": pool.budget_bytes, "wanted_bytes": wanted}
            for place, size in zip(pool.places, sizes, strict=True):
                targets[place] = size
                if seats[place].need.movable and size < seats[place].need.wanted_bytes:
                    bounds[place] = Reason("nodes_are_full", numbers, pool.nodes)
            spendable -= _movable_sum(pool, seats, targets)
            open_pools.remove(pool)
        closed = {place for pool in pools if pool not in open_pools for place in pool.places}
        open_places = [place for place in open_places if place not in closed]
        sizes, short = divide([seats[place] for place in open_places], spendable, claimed, braked)
        for place, size in zip(open_places, sizes, strict=True):
            targets[place] = size
    return Division(targets, scarce, lacking, bounds)


def over_bytes(pool: NodePool, seats: Sequence[Seat]) -> int:
    """By how much the VMs hold more than their pool's budget; negative: what is left of it."""
    return sum(seats[place].held_bytes for place in pool.places) - pool.budget_bytes


def _left(pool: NodePool, seats: Sequence[Seat]) -> int:
    """What the VMs that can be moved may have."""
    fixed = sum(seats[place].held_bytes for place in pool.places if not seats[place].need.movable)
    return pool.budget_bytes - fixed


def _movable_sum(pool: NodePool, seats: Sequence[Seat], sizes: Sequence[int]) -> int:
    return sum(sizes[place] for place in pool.places if seats[place].need.movable)
