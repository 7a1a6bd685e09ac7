"""The checks of the memory scenes: each finds the trouble that it is there for, and is quiet without it."""

from __future__ import annotations

import dataclasses

from tests.builders import guest, host
from tests.scenes.checks import Promises
from tests.scenes.sampler import Sample

from vmpack.decide.memory import plan
from vmpack.model.action import SetMemory
from vmpack.model.guest import GuestPolicy
from vmpack.model.plan import Remembered
from vmpack.model.settings import MemorySettings, Settings
from vmpack.publish.journal import JournalLine
from vmpack.units import MIB

NOMINAL = 256
PROMISES = Promises(MemorySettings(), NOMINAL * MIB)
ROOM, BUDGET = 10, 400


def line(
    number: int,
    *,
    a: tuple[int, int, int] = (120, 100, 120),
    b: tuple[int, int, int] = (120, 100, 120),
    room: int = ROOM,
    budget: int = BUDGET,
    moves: tuple[SetMemory, ...] = (),
    b_policy: GuestPolicy | None = None,
) -> JournalLine:
    """Two VMs as (balloon, minimum, target), in MiB; they want 20 MiB more than their minimum."""
    seen = host(guest("a", balloon=a[0]), guest("b", balloon=b[0], policy=b_policy), now_s=1000.0 + number)
    decided = plan(seen, Remembered(), Settings())
    guests = tuple(
        entry._replace(
            minimum_bytes=minimum * MIB,
            wanted_bytes=(minimum + 20) * MIB,
            target_bytes=target * MIB,
            floor_bytes=100 * MIB,
            verdict="hold",
        )
        for entry, (_, minimum, target) in zip(decided.guests, (a, b), strict=True)
    )
    money = dataclasses.replace(decided.budget, budget_bytes=budget * MIB)
    decided = dataclasses.replace(
        decided, room_bytes=room * MIB, guests=guests, budget=money, actions=moves, remembered=Remembered()
    )
    return JournalLine(number, seen, decided, (), None, "", "")


def move(name: str, from_mib: int, to_mib: int) -> SetMemory:
    return SetMemory(f"uuid-{name}", name, from_mib * MIB, to_mib * MIB, NOMINAL * MIB)


def test_a_quiet_host_breaks_nothing():
    """A check that always finds something would be switched off."""
    lines = [line(1), line(2), line(3)]
    samples = [Sample(1001.5, {"a": 120 * MIB, "b": 120 * MIB})] * 2

    assert PROMISES.broken(lines, samples) == []
    assert not list(PROMISES.apart(lines, "ab")) + list(PROMISES.without_headroom(lines, "ab"))
    assert not list(PROMISES.reserve_not_restored(lines))


def test_a_broken_reserve_is_found_unless_the_host_has_just_lost_memory():
    """The host's own death is the worst outcome; a smaller host is given two intervals."""
    assert len(list(PROMISES.reserve_broken([line(1), line(2, room=-50)]))) == 1

    shrunk = [line(1), line(2, room=-50, budget=340), line(3, room=-50, budget=340), line(4, budget=340)]
    assert not list(PROMISES.reserve_broken(shrunk))
    late = [*shrunk[:3], line(4, room=-50, budget=340)]
    assert len(list(PROMISES.reserve_broken(late))) == 1


def test_a_balloon_that_grew_by_itself_must_be_paid_in_two_intervals():
    """With autodeflate guests take what they want, and the host must get it back from others."""
    over = [line(second, room=-50) for second in (1, 2, 3, 6, 11)]

    assert not list(PROMISES.reserve_not_restored([*over[:4], line(11)]))
    assert len(list(PROMISES.reserve_not_restored(over))) == 1


def test_balloons_over_budget_between_intervals_are_found():
    """The journal alone would not show what happens while balloons move."""
    full = Sample(1001.5, {"a": 220 * MIB, "b": 220 * MIB})
    moved = Sample(1001.7, {"a": 120 * MIB, "b": 220 * MIB})

    assert len(list(PROMISES.samples_over_budget([line(1)], [full, full]))) == 1
    assert not list(PROMISES.samples_over_budget([line(1)], [full, moved]))


def test_need_beside_spare_is_found_after_one_interval():
    """Memory that sits idle beside a guest in need is what vmpack is there to prevent."""
    starving, rich = (120, 160, 160), (200, 100, 120)
    before = line(1, a=starving, b=rich)

    assert len(list(PROMISES.needs_not_served([before, line(2, a=starving, b=rich)]))) == 1
    assert not list(PROMISES.needs_not_served([before, line(2, a=(160, 160, 160), b=rich)]))
    buried = Promises(MemorySettings(), NOMINAL * MIB, {"a"})
    assert not list(buried.needs_not_served([before, line(2, a=starving, b=rich)]))
    poor = [line(number, a=starving, b=(120, 120, 120), room=0) for number in (1, 2)]
    assert not list(PROMISES.needs_not_served(poor))


def test_unequal_targets_for_equal_need_are_found():
    """Two equal customers would be treated differently, by luck or by name."""
    unequal = {"a": (120, 150, 150), "b": (120, 150, 120)}

    assert len(list(PROMISES.unequal([line(1, **unequal)]))) == 1
    assert not list(PROMISES.unequal([line(1, b_policy=GuestPolicy(shares=500), **unequal)]))
    assert len(list(PROMISES.apart([line(1, **unequal)], "ab"))) == 1


def test_a_hasty_shrink_is_found_unless_it_pays():
    """A guest that is squeezed in one go has no time to show what it needs."""
    hasty = move("a", 220, 120)

    assert len(list(PROMISES.shrunk_too_fast([line(1, moves=(hasty,))]))) == 1
    assert not list(PROMISES.shrunk_too_fast([line(1, moves=(hasty, move("b", 100, 200)))]))
    assert not list(PROMISES.shrunk_too_fast([line(1, moves=(hasty,), room=-100)]))
    assert not list(PROMISES.shrunk_too_fast([line(1, moves=(move("a", 145, 120),))]))


def test_a_balloon_below_its_floor_and_an_idle_guest_without_headroom_are_found():
    """The owner's floor and room to work are promises, whoever else starves."""
    assert len(list(PROMISES.below_floor([line(1, a=(90, 100, 100))]))) == 1
    assert len(list(PROMISES.without_headroom([line(1, a=(80, 100, 100))], "a"))) == 1
