"""Memory scenes in which the host and its VMs change: another size, VMs that come, end and crash."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scenes.scene import Scene, play
from tests.scenes.stage import GUEST_BYTES, made_ready, used_before
from tests.scenes.steps import Consume, Crash, Done, End, Pass, Release, Resize, Settle, Start
from vmpack.lab.guest_spec import GuestSpec
from vmpack.lab.lab import Lab, LabGuest
from vmpack.units import MIB

pytestmark = pytest.mark.long

HOST_SHRINKS_AND_GROWS = Scene(
    room_bytes=560 * MIB,
    steps=(
        Consume("A", 80 * MIB, 10 * MIB),
        Done("A"),
        Settle(),
        Resize(430 * MIB),
        Pass(4),
        Consume("A", 30 * MIB, 10 * MIB),
        Done("A"),
        Resize(560 * MIB),
        Settle(),
        Release("A"),
        Settle(),
    ),
    idle="BC",
)
ONE_COMES_AND_ONE_ENDS = Scene(
    # It comes with all its memory and a QEMU of its own, and cannot be packed while it boots.
    room_bytes=800 * MIB,
    steps=(
        Consume("AB", 70 * MIB, 5 * MIB),
        Pass(5),
        Start("D"),
        Done("AB"),
        Pass(3),
        End("B"),
        Consume("A", 60 * MIB, 10 * MIB),
        Done("A"),
        Settle(),
        End("D"),
        Release("A"),
        Settle(),
    ),
    idle="C",
)
ONE_CRASHES = Scene(
    room_bytes=560 * MIB,
    steps=(
        Consume("AB", 70 * MIB, 5 * MIB),
        Pass(5),
        Crash("B"),
        Done("A"),
        Consume("A", 40 * MIB, 10 * MIB),
        Done("A"),
        Pass(10),
        End("B"),
        Release("A"),
        Settle(),
    ),
    idle="C",
)


@pytest.fixture
def three(lab: Lab) -> Iterator[list[LabGuest]]:
    """Three guests; what a scene adds or ends is its own business."""
    guests = lab.start(*(GuestSpec(name, GUEST_BYTES, vcpus=1) for name in "ABC"))
    lab.wait_ready()
    used_before(guests)
    made_ready(guests)
    yield guests
    for guest in lab.guests():
        guest.destroy()


@pytest.mark.parametrize(
    "scene",
    [
        pytest.param(HOST_SHRINKS_AND_GROWS, id="host-shrinks-and-grows"),
        pytest.param(ONE_COMES_AND_ONE_ENDS, id="one-comes-and-one-ends"),
        pytest.param(ONE_CRASHES, id="one-crashes"),
    ],
)
def test_scene_with_events(scene: Scene, lab: Lab, three: list[LabGuest], tmp_path: Path) -> None:
    """Hosts and VMs change in the middle of a squeeze: nobody who stays may lose a process to that."""
    ended = play(scene, tmp_path, lab, three)

    assert all(size < GUEST_BYTES * 0.6 for size in ended.balloons.values()), ended.table
