"""What a stance keeps for guests, and who gives way when comfort does not fit."""

from __future__ import annotations

import dataclasses

import pytest
from tests.builders import EAGER, NOW_S, guest, host

from vmpack.decide.demand import demand
from vmpack.decide.learn import learn
from vmpack.decide.memory import plan
from vmpack.decide.sizes import size_table
from vmpack.decide.stance import STANCES, stance
from vmpack.model.guest import GuestPolicy, GuestSnapshot
from vmpack.model.plan import Plan, Remembered, RememberedGuest, Rises
from vmpack.model.settings import MemorySettings, Settings
from vmpack.units import MIB


def with_stance(name: str, **memory: object) -> Settings:
    return dataclasses.replace(
        EAGER, memory=dataclasses.replace(EAGER.memory, stance=name, headroom_min_bytes=0, **memory)
    )


def known_to_rise(seen: GuestSnapshot, usual: int, kept: int | None = None) -> RememberedGuest:
    """This guest, known for rises of so many MiB."""
    known = learn(seen, None, NOW_S, size_table(EAGER.memory)[seen.nominal_bytes], EAGER.memory)
    rises = Rises((), NOW_S, NOW_S, NOW_S, usual * MIB, (usual if kept is None else kept) * MIB)
    assert known.use is not None
    return known._replace(use=known.use._replace(rises=rises))


def wanted(plan_: Plan, name: str = "g1") -> int:
    return next(entry.wanted_bytes for entry in plan_.guests if entry.name == name) // MIB


@pytest.mark.parametrize("name", ["safe", "balanced", "dense"])
def test_an_administrators_own_headroom_beats_the_stance(name):
    """Whoever set memory.headroom_ratio years ago would find it ignored after an update."""
    chosen = stance(MemorySettings(stance=name, headroom_ratio=0.5, headroom_min_bytes=7 * MIB))

    assert (chosen.headroom_ratio, chosen.headroom_min_bytes) == (0.5, 7 * MIB)
    assert stance(MemorySettings(stance=name, headroom_ratio=0.0)).headroom_ratio == 0.0
    assert stance(MemorySettings(stance=name)) == STANCES[name]


def test_stances_keep_their_order():
    """`safe` would pack more than `dense`."""
    seen = guest(nominal=2048, balloon=2048, used=600)
    remembered = Remembered({seen.uuid: known_to_rise(seen, usual=100, kept=100)})
    dense, balanced, safe = (
        wanted(plan(host(seen), remembered, with_stance(name))) for name in ("dense", "balanced", "safe")
    )

    assert dense < balanced < safe


def test_what_a_stance_keeps_worked_by_hand():
    """The documented formula and the one that runs would be two."""
    seen = guest(nominal=2048, balloon=2048, used=600)
    remembered = Remembered({seen.uuid: known_to_rise(seen, usual=100, kept=100)})

    # used 600, kernel 38, fixed headroom 16 (at least), 10 % of use 60, 1.2 times the rise 120; whole 2 MiB.
    assert wanted(plan(host(seen), remembered, with_stance("balanced"))) == 600 + 38 + 16 + 60 + 120
    # 2.5 % and the rise itself.
    assert wanted(plan(host(seen), remembered, with_stance("dense"))) == 600 + 38 + 16 + 16 + 100
    # 15 % and 1.5 times the rise is more than 10 % of nominal.
    assert wanted(plan(host(seen), remembered, with_stance("safe"))) == 600 + 38 + 16 + 90 + 150


def test_safe_keeps_a_share_of_nominal():
    """A large idle VM that was never seen to rise would be taken down to its use, stance `safe` or not."""
    seen = guest(nominal=4096, balloon=4096, used=100)
    rules = with_stance("safe", fixed_headroom_ratio=0.0)

    # 100 + 38 + 16 + 409.6, up to whole 2 MiB.
    assert wanted(plan(host(seen), Remembered(), rules)) == 564


@pytest.mark.parametrize("name", ["safe", "balanced", "dense"])
def test_an_owner_only_raises_what_the_stance_has(name):
    """An owner's tag of 0 would pack his VM below what the administrator's stance keeps for everybody."""

    def with_policy(ratio: float, of_owner: tuple[str, ...]) -> int:
        policy = GuestPolicy(headroom_ratio=ratio, of_owner=of_owner)
        seen = guest(nominal=1200, balloon=1200, used=900, policy=policy)
        return wanted(plan(host(seen), Remembered(), with_stance(name)))

    own = wanted(plan(host(guest(nominal=1200, balloon=1200, used=900)), Remembered(), with_stance(name)))
    assert with_policy(0.0, ("headroom_ratio",)) == own
    assert with_policy(0.5, ("headroom_ratio",)) > own
    assert with_policy(0.0, ()) < own


def test_room_for_usual_rises_gives_way_last():
    """A VM that jumps twice a day would lose its room to others' comfort, and swap at its next jump."""
    jumpy = guest("jumpy", nominal=1024, balloon=400, used=200)
    idle = guest("idle", nominal=1024, balloon=400, used=200)
    remembered = Remembered({jumpy.uuid: known_to_rise(jumpy, usual=80), idle.uuid: known_to_rise(idle, 0)})
    settings = with_stance("balanced", headroom_ratio=0.3)
    # Each needs 254 at least; jumpy is ready at 254 + 80, and both want 60 and more of comfort beside.
    targets = {
        budget: {
            entry.name: entry.target_bytes // MIB
            for entry in plan(host(jumpy, idle, budget=budget), remembered, settings).guests
        }
        for budget in (560, 588, 620)
    }

    assert targets[560]["idle"] == 254 and targets[560]["jumpy"] > 300
    assert targets[588]["jumpy"] == 334 and targets[588]["idle"] == 254
    assert targets[620]["jumpy"] > 334 and targets[620]["idle"] > 254


def test_ready_lies_between_minimum_and_wanted():
    """Room that a stance does not want would be kept before others' comfort."""
    seen = guest(nominal=1024, balloon=400, used=200)
    limits = size_table(EAGER.memory)[seen.nominal_bytes]
    for usual in (0, 20, 200, 5000):
        known = known_to_rise(seen, usual)
        rules = with_stance("dense").memory
        need = demand(seen, known, host(seen), limits, rules, stance(rules))
        assert need.minimum_bytes <= need.ready_bytes <= need.wanted_bytes <= seen.nominal_bytes
        assert need.ready_bytes == min(need.wanted_bytes, need.minimum_bytes + usual * MIB)
