"""VMs that are bound to NUMA nodes of the host: each node's own budget, within the host's."""

from __future__ import annotations

import dataclasses

from hypothesis import HealthCheck, assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tests.builders import EAGER, NOW_S, SETTINGS, carried_out, guest, host
from tests.strategies import hosts

from vmpack.decide import explain
from vmpack.decide.memory import plan, remember
from vmpack.decide.release import plan_release
from vmpack.model.action import Outcome, SetMemory
from vmpack.model.guest import GuestSnapshot
from vmpack.model.host import HostSnapshot, NumaNode
from vmpack.model.plan import Plan, Remembered
from vmpack.units import GIB, MIB

NOTHING = Remembered()
OTHERS_MIB = 500
"""Used on each node by what is bound nowhere."""


def bound(
    name: str, nodes: tuple[int, ...], balloon: int = 256, used: int = 30, **more: int
) -> GuestSnapshot:
    """A VM bound to nodes, all of its balloon touched."""
    return dataclasses.replace(guest(name, balloon=balloon, used=used, **more), nodes=nodes)


def node(number: int, budget: int, guests: tuple[GuestSnapshot, ...], cache: int = 0) -> NumaNode:
    """A node that leaves the balloons of those bound to it alone just so many MiB."""
    there = [entry for entry in guests if entry.nodes == (number,)]
    rss = sum(entry.rss_bytes or 0 for entry in there)
    overhead = rss - sum(entry.ram_rss_bytes or 0 for entry in there)
    total = (budget + OTHERS_MIB) * MIB + overhead
    # The host's reserve of 1 TiB falls on its nodes by their size; here that is a few hundred KiB.
    total += SETTINGS.host.reserve_min_bytes * total // (1024 * GIB) + 1
    return NumaNode(number, total, total - OTHERS_MIB * MIB - rss - cache * MIB, cache * MIB)


def two_nodes(*guests: GuestSnapshot, first: int, second: int = 100_000, **more: float) -> HostSnapshot:
    """A host with room for all, but for what its two nodes leave to those bound there."""
    nodes = (node(0, first, guests), node(1, second, guests))
    return dataclasses.replace(host(*guests, **more), nodes=nodes)


def moves(decided: Plan) -> dict[str, int]:
    return {a.name: a.to_bytes // MIB for a in decided.actions if isinstance(a, SetMemory)}


def test_a_shrink_on_the_same_node_pays_for_a_grow_there() -> None:
    """The host's free memory on another node is none for a QEMU that may not use it: it would be killed."""
    eater = bound("eater", (0,), balloon=180, used=120)
    near, far = bound("near", (0,)), bound("far", (1,))

    alone = plan(two_nodes(eater, near, far, first=1000), NOTHING, SETTINGS)
    full = plan(two_nodes(eater, near, far, first=180 + 256), NOTHING, SETTINGS)

    # 120 used + 38 kernel + 16 fixed + 32 elastic.
    assert moves(alone) == {"eater": 206}
    assert moves(full)["eater"] == 206
    assert set(moves(full)) == {"eater", "near"} and moves(full)["near"] <= 180 + 256 - 206


def test_a_node_that_is_full_bounds_only_those_bound_to_it() -> None:
    """VMs with room on their own node would be squeezed for one that they cannot help."""
    guests = bound("a", (0,), used=150), bound("b", (0,), used=150), bound("far", (1,)), bound("free", ())
    decided = plan(two_nodes(*guests, first=430), NOTHING, SETTINGS)

    assert set(moves(decided)) == {"a", "b"} and 426 <= sum(moves(decided).values()) <= 430
    told = {entry.name: [why.rule for why in entry.reasons] for entry in decided.guests}
    assert [name for name, rules in told.items() if "nodes_are_full" in rules] == ["a", "b"]
    (why,) = [why for why in decided.guests[0].reasons if why.rule == "nodes_are_full"]
    assert "bound to NUMA node 0, where all VMs so bound may have 430 MiB" in explain.words(why)[0]


def test_what_others_use_on_a_node_is_not_for_its_vms_and_cache_is() -> None:
    """A database's memory would be promised twice; or file cache would squeeze VMs for nothing."""
    entry = bound("a", (0,), used=150)
    full = dataclasses.replace(host(entry), nodes=(node(0, 260, (entry,)), NumaNode(1, GIB, GIB)))
    more = dataclasses.replace(full.nodes[0], memory_free_bytes=full.nodes[0].memory_free_bytes - 40 * MIB)
    cached = dataclasses.replace(more, memory_cache_bytes=40 * MIB)

    def size(first: NumaNode) -> int:
        seen = dataclasses.replace(full, nodes=(first, full.nodes[1]))
        return moves(plan(seen, NOTHING, SETTINGS)).get("a", 256)

    assert size(full.nodes[0]) == 256
    assert size(more) <= 220
    assert size(cached) == 256


def test_a_node_that_cannot_hold_every_minimum_is_cause_for_a_migration() -> None:
    """The host as a whole has room, so nobody would ever be moved away from the full node."""
    remembered = NOTHING
    for turn in range(SETTINGS.memory.scarcity_intervals):
        now_s = NOW_S + 5 * turn
        guests = bound("a", (0,), used=150, now_s=now_s), bound("b", (0,), used=150, now_s=now_s)
        decided = plan(two_nodes(*guests, first=300, now_s=now_s), remembered, SETTINGS)
        remembered = decided.remembered

    # Each needs 150 + 38 + 16.
    assert decided.migration is not None
    assert abs(decided.migration.deficit_bytes - 2 * 204 * MIB + 300 * MIB) < 4 * MIB


def test_bounds_that_overlap_are_said_and_the_hosts_budget_holds() -> None:
    """Nobody can tell on which node the balloon of such a VM gives way: a guess would hit the wrong ones."""
    guests = bound("one", (0,)), bound("both", (0, 1))
    nodes = (*two_nodes(*guests, first=50).nodes, NumaNode(2, GIB, GIB))
    decided = plan(dataclasses.replace(host(*guests), nodes=nodes), NOTHING, SETTINGS)

    assert moves(decided) == {}
    assert [(why.rule, why.note) for why in decided.reasons] == [
        ("nodes_not_kept_apart", "0"),
        ("nodes_not_kept_apart", "0, 1"),
    ]


def test_two_nodes_that_are_all_of_one_set_are_one_pool() -> None:
    """A VM with a cell on each of two nodes would have no budget at all there."""
    entry = bound("wide", (0, 1), used=150)
    small = NumaNode(0, 170 * MIB, 0)
    nodes = (small, dataclasses.replace(small, number=1), NumaNode(2, 100 * GIB, 100 * GIB))
    decided = plan(dataclasses.replace(host(entry), nodes=nodes), NOTHING, SETTINGS)

    # 340 MiB, of which 100 are its QEMU's own.
    assert 230 <= moves(decided)["wide"] <= 240


def test_a_release_gives_a_vm_no_more_than_its_node_can_hold() -> None:
    """Stopping the agent would fill the node, and the kernel would kill a QEMU for it."""
    guests = bound("a", (0,), balloon=100), bound("b", (0,), balloon=100), bound("far", (1,), balloon=100)
    decided = plan_release(two_nodes(*guests, first=300), NOTHING, SETTINGS, None)

    sizes = moves(decided)
    assert sizes["far"] == 256
    assert sizes["a"] == sizes["b"] and 296 <= sizes["a"] + sizes["b"] <= 300
    assert decided.guests[0].reasons[0].rule == "release_does_not_fit"


@st.composite
def numa_hosts(draw: st.DrawFn) -> HostSnapshot:
    """Any host of two nodes or three; VMs bound to one, to two, to none; balloons half touched."""
    seen = draw(hosts())
    entries = []
    for entry in seen.guests:
        ram = entry.balloon_bytes // 2
        nodes = draw(st.sampled_from([(), (0,), (0,), (1,), (1,), (2, 3)]))
        entries.append(dataclasses.replace(entry, nodes=nodes, ram_rss_bytes=ram, rss_bytes=ram + 100 * MIB))
    shown = []
    for number in range(4):
        rss = sum((entry.rss_bytes or 0) // len(entry.nodes) for entry in entries if number in entry.nodes)
        held = sum(entry.balloon_bytes for entry in entries if number in entry.nodes)
        free = draw(st.integers(0, held + GIB // 4))
        shown.append(NumaNode(number, OTHERS_MIB * MIB + rss + free, free))
    return dataclasses.replace(seen, guests=tuple(entries), nodes=tuple(shown))


thorough = hypothesis_settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])


def sizes_after(snapshot: HostSnapshot, decided: Plan) -> dict[str, int]:
    sizes = {entry.uuid: entry.balloon_bytes for entry in snapshot.guests}
    return sizes | {a.uuid: a.to_bytes for a in decided.actions if isinstance(a, SetMemory)}


def node_budget(seen: HostSnapshot, nodes: tuple[int, ...], there: list[GuestSnapshot]) -> int:
    """What those bound there may have: free, and what they have touched, less a part of the reserve."""
    own = [entry for entry in seen.nodes if entry.number in nodes]
    total = sum(entry.memory_total_bytes for entry in own)
    used = total - sum(entry.memory_free_bytes for entry in own)
    others = max(0, used - sum(entry.rss_bytes or 0 for entry in there))
    overhead = sum((entry.rss_bytes or 0) - (entry.ram_rss_bytes or 0) for entry in there)
    return total - SETTINGS.host.reserve_min_bytes * total // seen.memory_total_bytes - others - overhead


@thorough
@given(numa_hosts(), st.sampled_from([SETTINGS, EAGER]))
def test_the_budget_of_every_node_is_kept_and_the_hosts_too(seen, rules) -> None:
    """A node runs full and the kernel kills a QEMU there while the host has memory left."""
    decided = plan(seen, NOTHING, rules)
    after, by_uuid = sizes_after(seen, decided), {entry.uuid: entry for entry in decided.guests}
    least = {
        entry.uuid: entry.balloon_bytes
        if by_uuid[entry.uuid].verdict == "excluded"
        else min(entry.balloon_bytes, by_uuid[entry.uuid].bare_bytes)
        for entry in seen.guests
    }
    assert sum(after.values()) <= max(decided.budget.budget_bytes, sum(least.values()))
    for nodes in ((0,), (1,), (2, 3)):
        there = [entry for entry in seen.guests if entry.nodes == nodes]
        held = sum(after[entry.uuid] for entry in there)
        assert held <= max(node_budget(seen, nodes, there), sum(least[entry.uuid] for entry in there))
    for entry in decided.guests:
        before = next(other.balloon_bytes for other in seen.guests if other.uuid == entry.uuid)
        assert after[entry.uuid] >= min(before, max(entry.floor_bytes, entry.bare_bytes))


@thorough
@given(numa_hosts(), st.sampled_from([SETTINGS, EAGER]))
def test_planning_on_the_planned_state_does_nothing(seen, rules) -> None:
    """Balloons on a full node would move to and fro for ever."""
    first = plan(seen, NOTHING, rules)
    done = tuple(
        Outcome(a, "done", "", a.to_bytes if isinstance(a, SetMemory) else None) for a in first.actions
    )
    after = carried_out(seen, first)
    free = {entry.number: entry.memory_free_bytes for entry in after.nodes}
    for old, new in zip(seen.guests, after.guests, strict=True):
        # Linux takes from the node that has most free.
        moved = new.balloon_bytes - old.balloon_bytes
        for number in sorted(new.nodes, key=lambda node: -free[node]):
            part = min(moved, free[number])
            free[number] -= part
            moved -= part
        # A node that cannot give it is not one on which the plan was carried out.
        assume(moved <= 0 or not new.nodes)
    shown = (dataclasses.replace(entry, memory_free_bytes=free[entry.number]) for entry in after.nodes)
    after = dataclasses.replace(after, nodes=tuple(shown))
    second = plan(after, remember(first, done, seen.time_s), rules)

    assert [a for a in second.actions if isinstance(a, SetMemory)] == []
