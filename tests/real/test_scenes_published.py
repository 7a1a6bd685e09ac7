"""The published memory scenes on real guests: one, all, or two of them consume, and give back again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scenes.scene import Scene, play
from tests.scenes.stage import GUEST_BYTES, made_ready, used_before
from tests.scenes.steps import Consume, Done, Pass, Release, Settle, Starve
from vmpack.lab.guest_spec import GuestSpec
from vmpack.lab.lab import Lab, LabGuest
from vmpack.units import MIB

pytestmark = pytest.mark.long

ONE_CONSUMES = Scene(
    room_bytes=620 * MIB,
    steps=(Consume("A", 170 * MIB, 10 * MIB), Done("A"), Settle(), Release("A"), Settle()),
    idle="BCD",
)
ALL_CONSUME = Scene(
    room_bytes=640 * MIB,
    steps=(Consume("ABCD", 70 * MIB, 5 * MIB), Done("ABCD"), Settle(), Release("ABCD"), Settle()),
    alike="ABCD",
)
ALL_CONSUME_MORE_THAN_THERE_IS = Scene(
    room_bytes=640 * MIB,
    steps=(Consume("ABCD", 150 * MIB, 5 * MIB), Starve("ABCD"), Pass(5), Release("ABCD"), Settle()),
    alike="ABCD",
)
ONE_HOLDS_ONE_GROWS = Scene(
    room_bytes=640 * MIB,
    steps=(
        Consume("AB", 60 * MIB, 10 * MIB),
        Done("AB"),
        Consume("B", 80 * MIB, 10 * MIB),
        Done("B"),
        Settle(),
        Release("AB"),
        Settle(),
    ),
    idle="CD",
)


@pytest.fixture(scope="module")
def four(lab: Lab) -> Iterator[list[LabGuest]]:
    """Four guests for the whole file."""
    guests = lab.start(*(GuestSpec(name, GUEST_BYTES, vcpus=1) for name in "ABCD"))
    lab.wait_ready()
    used_before(guests)
    yield guests
    for guest in guests:
        guest.destroy()


@pytest.mark.parametrize(
    "scene",
    [
        pytest.param(ONE_CONSUMES, id="one-consumes"),
        pytest.param(ALL_CONSUME, id="all-consume"),
        pytest.param(ALL_CONSUME_MORE_THAN_THERE_IS, id="more-than-there-is"),
        pytest.param(ONE_HOLDS_ONE_GROWS, id="one-holds-one-grows"),
    ],
)
def test_published_scene(scene: Scene, lab: Lab, four: list[LabGuest], tmp_path: Path) -> None:
    """What every memory coordinator is judged by: who needs gets, who idles is safe, the host never dries."""
    made_ready(four)

    ended = play(scene, tmp_path, lab, four)

    assert all(size < GUEST_BYTES * 0.6 for size in ended.balloons.values()), ended.table
