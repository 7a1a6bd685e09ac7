"""Guests that suddenly need memory beside an idle neighbour on a full host, with the agent's default pace.

A default interval is 5 s: what happens within it must be seen between intervals.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.scenes.checks import Promises
from tests.scenes.stage import GUEST_BYTES, Stage, made_ready, used_before
from tests.waiting import eventually
from vmpack.lab.guest_spec import GuestSpec
from vmpack.lab.lab import Lab, LabGuest
from vmpack.units import MIB

pytestmark = pytest.mark.long

ROOM_BYTES = 370 * MIB
"""Enough for the ramp and its idle neighbour, not for the neighbour's comfort of before beside it."""
NEIGHBOUR_BYTES = 90 * MIB
RAMP_BYTES = 128 * MIB
ATTEMPTS = 3
"""On a busy machine a ramp may be slow for other reasons: the best of so many counts."""
PACKS_SOON = "calm_s = 5\nshrink_step_ratio = 0.5\n"
"""Only how soon idle guests are packed: how soon need is answered stays as it is delivered."""


@dataclass(frozen=True, slots=True)
class Ramp:
    """How a guest comes to need half of its nominal."""

    rate_bytes_per_s: int
    autodeflate: bool = False


SLOW = Ramp(10 * MIB)
FAST = Ramp(100 * MIB)
SUDDEN = Ramp(0)
"""As fast as the guest can: half of its nominal within a second or so."""


@pytest.fixture(scope="module")
def pair(lab: Lab, request: pytest.FixtureRequest) -> Iterator[list[LabGuest]]:
    """The guest that ramps, with or without autodeflate, and its neighbour."""
    ramping = GuestSpec("ramping", GUEST_BYTES, vcpus=1, autodeflate=request.param)
    guests = lab.start(ramping, GuestSpec("neighbour", GUEST_BYTES, vcpus=1))
    lab.wait_ready()
    used_before(guests)
    yield guests
    for guest in guests:
        guest.destroy()


@contextmanager
def full_host(folder: Path, lab: Lab, pair: list[LabGuest]) -> Iterator[Stage]:
    """A host that is full of a neighbour's memory that it does not use any more."""
    made_ready(pair)
    neighbour = pair[1]
    with Stage(folder, lab, pair, ROOM_BYTES, PACKS_SOON) as stage:
        stage.mark("packing")
        stage.settle()
        neighbour.control.load_tmpfs(NEIGHBOUR_BYTES, 10 * MIB)
        eventually("the neighbour has its memory", lambda: stage.loaded([neighbour.name]))
        stage.settle()
        neighbour.control.free()
        try:
            yield stage
        finally:
            print(stage.table(), stage.agent.log, sep="\n")


def run_ramp(guest: LabGuest, ramp: Ramp) -> tuple[str, float]:
    """Run it to its end: its state, and the seconds it took."""
    began_s = time.monotonic()
    guest.control.load_anonymous(RAMP_BYTES, ramp.rate_bytes_per_s)

    def ended() -> str:
        state = guest.control.progress()[-1].state
        return state if state in ("done", "killed") else ""

    return eventually("the ramp ends", ended), time.monotonic() - began_s


@pytest.mark.parametrize("pair", [False], indirect=True, ids=["plain"])
def test_a_steady_ramp_is_as_fast_as_without_vmpack(lab: Lab, pair: list[LabGuest], tmp_path: Path) -> None:
    """Work that grows by 10 MB/s may be neither killed nor slowed because its host is packed."""
    ramping = pair[0]
    made_ready(pair)
    free_s = min(timed(ramping) for _ in range(2))
    packed_s = []
    for attempt in range(ATTEMPTS):
        folder = tmp_path / f"{attempt}"
        folder.mkdir()
        with full_host(folder, lab, pair) as stage:
            kills, stalled_s = stage.oom_kills(), memory_stall_s(ramping)
            stage.mark("ramp")
            packed_s.append(timed(ramping))

            assert stage.oom_kills() == kills
            assert memory_stall_s(ramping) - stalled_s <= 0.1 * free_s
        if packed_s[-1] <= 1.1 * free_s:
            return
    raise AssertionError(f"{packed_s} s, and {free_s:.1f} s without vmpack")


def timed(guest: LabGuest) -> float:
    """Seconds that the slow ramp takes; its memory is free again afterwards."""
    state, took_s = run_ramp(guest, SLOW)
    assert state == "done"
    guest.control.free()
    return took_s


def memory_stall_s(guest: LabGuest) -> float:
    """How long tasks of the guest have waited for memory since its boot, as its kernel says."""
    told = guest.control.run(["cat", "/proc/pressure/memory"]).output
    return int(told.splitlines()[0].rpartition("total=")[2]) / 1e6


@pytest.mark.parametrize("ramp", [pytest.param(FAST, id="100MBps"), pytest.param(SUDDEN, id="sudden")])
@pytest.mark.parametrize("pair", [True], indirect=True, ids=["autodeflate"])
def test_a_balloon_that_gives_way_by_itself_saves_the_guest_and_the_host(
    ramp: Ramp, lab: Lab, pair: list[LabGuest], tmp_path: Path
) -> None:
    """With autodeflate even the fastest need kills nothing, and the host soon keeps its budget again."""
    ramping = pair[0]
    with full_host(tmp_path, lab, pair) as stage:
        kills, since_s = stage.oom_kills(), time.monotonic()
        stage.mark("ramp")
        state, _ = run_ramp(ramping, ramp)
        stage.mark("ramp ended")
        stage.settle()

        assert state == "done" and stage.oom_kills() == kills
        broken = Promises(stage.settings(), GUEST_BYTES).reserve_not_restored(stage.journal(since_s))
        assert not list(broken)


@pytest.mark.parametrize("ramp", [pytest.param(FAST, id="100MBps"), pytest.param(SUDDEN, id="sudden")])
@pytest.mark.parametrize("pair", [False], indirect=True, ids=["plain"])
def test_a_kill_is_seen_and_does_not_come_twice(
    ramp: Ramp, lab: Lab, pair: list[LabGuest], tmp_path: Path
) -> None:
    """Nothing answers a need of 100 MB/s in time; but who was killed once is not squeezed so far again."""
    ramping = pair[0]
    with full_host(tmp_path, lab, pair) as stage:
        before = ramping.control.oom_kills()
        stage.mark("first ramp")
        state, _ = run_ramp(ramping, ramp)
        killed = ramping.control.oom_kills() > before
        stage.mark(f"first ramp ended: {state}, {ramping.control.oom_kills() - before} kills")
        if killed:
            eventually("it is seen", lambda: "guest_killed_something" in rules_of(stage, ramping.name))
            assert "killed" in stage.agent.log
        ramping.control.free()
        stage.agent.pass_turns(2)
        stage.settle()
        before = ramping.control.oom_kills()
        stage.mark("second ramp")
        state, _ = run_ramp(ramping, ramp)

        assert state == "done" and ramping.control.oom_kills() == before


def rules_of(stage: Stage, name: str) -> set[str]:
    """The rules that decided on this VM in the newest interval."""
    return {reason.rule for reason in stage.agent.client.explain(name).plan.reasons}
