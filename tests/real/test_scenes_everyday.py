"""Who gets a full host's memory, on real guests: short enough for every day."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scenes.scene import HURRIED, Scene, play
from tests.scenes.stage import GUEST_BYTES, Stage, made_ready, used_before
from tests.scenes.steps import Consume, Done, Release, Settle
from tests.waiting import eventually
from vmpack.lab.guest_spec import GuestSpec
from vmpack.lab.lab import Lab, LabGuest
from vmpack.units import MIB

ONE_CONSUMES = Scene(
    room_bytes=480 * MIB,
    steps=(Consume("A", 160 * MIB, 20 * MIB), Done("A"), Release("A"), Settle(2)),
    idle="BC",
    pace=HURRIED,
)
STARVING_ROOM_BYTES = 540 * MIB
"""Two of the guests are to get 220 MiB on average, the third its floor of 100 MiB."""
MORE_THAN_NOMINAL_BYTES = 300 * MIB


@pytest.fixture(scope="module")
def three(lab: Lab) -> Iterator[list[LabGuest]]:
    """Three guests for the whole file."""
    guests = lab.start(*(GuestSpec(name, GUEST_BYTES, vcpus=1) for name in "ABC"))
    lab.wait_ready()
    used_before(guests)
    yield guests
    for guest in guests:
        guest.destroy()


def test_one_consumes_and_the_others_keep_what_they_need(
    lab: Lab, three: list[LabGuest], tmp_path: Path
) -> None:
    """The product's first promise: a guest in need gets the idle ones' memory, and gives it back later."""
    made_ready(three)

    ended = play(ONE_CONSUMES, tmp_path, lab, three)

    assert ended.balloons["A"] < GUEST_BYTES * 0.6, ended.table


@pytest.mark.long
def test_shares_say_who_starves_how_much(lab: Lab, three: list[LabGuest], tmp_path: Path) -> None:
    """An owner who paid for twice the shares goes short of half as much, when both want all they can get."""
    made_ready(three)
    poor, rich, _ = three
    with Stage(tmp_path, lab, three, STARVING_ROOM_BYTES, HURRIED) as stage:
        for guest, shares in ((poor, 1000), (rich, 2000)):
            stage.agent.client.set_policy(guest.name, {"shares": shares})
        stage.settle(1)
        stage.mark("both want more than their nominal")
        for guest in (poor, rich):
            guest.control.load_tmpfs(MORE_THAN_NOMINAL_BYTES, 20 * MIB)

        def fair() -> bool:
            balloons = stage.sampler.samples[-1].balloons
            unmet = [GUEST_BYTES - balloons[guest.name] for guest in (poor, rich)]
            return abs(unmet[0] - 2 * unmet[1]) <= 0.05 * unmet[0]

        try:
            eventually("unmet need is 2:1", fair, deadline_s=60)
            stage.settle(4)
            assert fair()
        except AssertionError as error:
            raise AssertionError(stage.table()) from error
