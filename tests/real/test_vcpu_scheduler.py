"""`vcpu_scheduler 2` on real guests that burn CPU on two pCPUs, read back from the kernel."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.real.duty import Duty
from tests.real.guest_threads import allowed_cpus, vcpu_task
from tests.real.scheduler_process import SchedulerProcess
from tests.waiting import eventually
from vmpack.lab.guest_spec import GuestSpec
from vmpack.lab.lab import Lab, LabGuest
from vmpack.units import MIB

PCPUS = sorted(os.sched_getaffinity(0))[:2]
"""The guests of all scenes share these; on a larger machine the others are reserved."""
OTHERS = set(range(os.cpu_count() or 1)) - set(PCPUS)
LIGHT_TURNS = 500
LIGHT_REST_S = 0.05

Scene = Callable[..., list[LabGuest]]
Schedule = Callable[..., SchedulerProcess]
Masks = dict[int, str]


@pytest.fixture(scope="module")
def six(lab: Lab) -> Iterator[list[LabGuest]]:
    """Six small guests for all scenes."""
    specs = [GuestSpec(f"v{n}", memory_bytes=96 * MIB, vcpus=1, guest_agent=False) for n in range(6)]
    guests = lab.start(*specs)
    lab.wait_ready()
    yield guests
    for guest in guests:
        guest.destroy()


@pytest.fixture
def scene(six: list[LabGuest]) -> Iterator[Scene]:
    """`scene([0, 0, 1])` gives three burning guests that stand on the first, first and second of PCPUS.

    The others are paused. With `burning=False` the guests rest.
    """
    assert len(PCPUS) == 2, "these scenes need two CPUs"

    def arrange(places: list[int], *, burning: bool = True) -> list[LabGuest]:
        taken, spare = six[: len(places)], six[len(places) :]
        for guest, place in zip(taken, places, strict=True):
            put(guest, PCPUS[place])
            if burning:
                guest.control.burn()
        for guest in spare:
            guest.domain.suspend()
        return taken

    yield arrange
    for guest in six:
        if guest.is_running():
            guest.control.calm()
        else:
            guest.domain.resume()


@pytest.fixture
def schedule(lab: Lab, tmp_path: Path) -> Iterator[Schedule]:
    """`schedule("--observe")` starts the program; it ends with the test."""
    started: list[SchedulerProcess] = []

    def start(*options: str) -> SchedulerProcess:
        folder = tmp_path / str(len(started))
        folder.mkdir()
        started.append(SchedulerProcess(folder, lab.uri, *options, reserved_cpus=OTHERS))
        return started[-1]

    yield start
    for program in started:
        if program.process.poll() is None:
            program.stop(signal.SIGTERM)


def put(guest: LabGuest, cpu: int) -> None:
    """Pin its vCPU as somebody with virsh does."""
    guest.domain.pinVcpu(0, tuple(number == cpu for number in range(os.cpu_count() or 1)))
    assert place(guest) == str(cpu)


def place(guest: LabGuest) -> str:
    """The CPUs that the kernel lets its vCPU run on."""
    return allowed_cpus(guest)[int(vcpu_task(guest).name)]


def counts(guests: list[LabGuest]) -> list[int]:
    """How many of these guests stand on each of PCPUS alone."""
    places = [place(guest) for guest in guests]
    assert set(places) <= {str(cpu) for cpu in PCPUS}, places
    return [places.count(str(cpu)) for cpu in PCPUS]


def every_mask(guests: list[LabGuest]) -> list[Masks]:
    """The masks of all threads of these guests."""
    return [allowed_cpus(guest) for guest in guests]


def assert_as_before(guests: list[LabGuest], before: list[Masks], said: str) -> None:
    """All threads that were there and are there may run where they might; `said` by who put them back."""
    for guest, was in zip(guests, before, strict=True):
        now = allowed_cpus(guest)
        assert {guest.pid, int(vcpu_task(guest).name)} <= was.keys() & now.keys()
        changed = {task: (was[task], now[task]) for task in was.keys() & now.keys() if was[task] != now[task]}
        assert changed == {}, f"{guest.name}: {said}"


def test_six_guests_on_one_cpu_are_spread_with_three_changes(scene: Scene, schedule: Schedule) -> None:
    """Six VMs would crowd one CPU beside an idle one, be pinned over and over, or stay pinned at the end."""
    guests = scene([0] * 6)
    before = every_mask(guests)
    program = schedule()
    program.await_changes(3)
    assert counts(guests) == [3, 3]
    program.pass_turns(3)
    assert len(program.changes()) == 3, program.log
    assert counts(guests) == [3, 3]
    assert program.stop(signal.SIGINT) == 130
    assert_as_before(guests, before, program.log)


def test_even_guests_are_left_until_one_starts_and_one_stops(scene: Scene, schedule: Schedule) -> None:
    """A balanced host would be churned; or a VM that starts to work would wait beside an idle CPU."""
    guests = scene([0, 0, 1, 1, 0])
    starting, stopping = guests[4], guests[3]
    starting.domain.suspend()
    before = every_mask(guests)
    program = schedule()
    program.pass_turns(3)
    assert program.changes() == [], program.log
    assert every_mask(guests) == before
    starting.domain.resume()
    stopping.control.calm()
    program.await_changes(1)
    assert counts([*guests[:3], starting]) == [2, 2], program.log
    program.pass_turns(2)
    # A guest that came half way through a look seems lighter than it is: one more than the optimum may be.
    assert len(program.changes()) <= 2, program.log
    assert program.stop(signal.SIGTERM) == 0
    assert_as_before(guests, before, program.log)


def test_heavy_and_light_guests_are_mixed_with_two_changes(scene: Scene, schedule: Schedule) -> None:
    """Two busy VMs would share one CPU while two that hardly work have the other."""
    guests = scene([0, 0, 1, 1], burning=False)
    heavy, light = guests[:2], guests[2:]
    duties = [Duty(guest, LIGHT_TURNS, LIGHT_REST_S) for guest in light]
    for guest in heavy:
        guest.control.burn()
    for duty in duties:
        duty.begin()
    before = every_mask(guests)
    program = schedule()
    program.await_changes(2)
    assert counts(heavy) == counts(light) == [1, 1]
    program.pass_turns(2)
    assert len(program.changes()) == 2, program.log
    assert program.stop(signal.SIGTERM) == 0
    assert_as_before(guests, before, program.log)
    for duty in duties:
        duty.end()


def test_observing_says_what_it_would_do_and_does_nothing(scene: Scene, schedule: Schedule) -> None:
    """Who only wants to see what vmpack would do would get his VMs re-pinned."""
    guests = scene([0] * 4)
    before = every_mask(guests)
    program = schedule("--observe")
    eventually("it says what it would do", lambda: "would change 2 pins" in program.log)
    program.pass_turns(1)
    assert every_mask(guests) == before
    assert program.stop(signal.SIGTERM) == 0
    assert program.changes() == [], program.log
    assert_as_before(guests, before, program.log)


def test_pins_of_a_killed_scheduler_are_taken_off(
    lab: Lab, scene: Scene, schedule: Schedule, tmp_path: Path
) -> None:
    """A crash would leave VMs on CPUs for ever that nobody chose for them: also where the next one ends
    before it has changed anything, or `vmpack release --all` is all that is left."""
    guests = scene([0] * 4)
    before = every_mask(guests)
    killed = schedule()
    killed.await_changes(2)
    killed.stop(signal.SIGKILL)
    assert counts(guests) == [2, 2]
    after_it = schedule()
    after_it.ready()
    assert after_it.stop(signal.SIGTERM) == 0
    assert after_it.changes() == [], after_it.log
    assert_as_before(guests, before, after_it.log)
    killed = schedule()
    killed.await_changes(2)
    killed.stop(signal.SIGKILL)
    assert counts(guests) == [2, 2]
    argv = [sys.executable, "-m", "vmpack.cli.main", "release", "--all", "--connect", lab.uri]
    argv += ["--run-dir", str(tmp_path / "run"), "--state-dir", str(tmp_path / "state")]
    released = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert released.returncode == 0, released.stdout + released.stderr
    assert_as_before(guests, before, released.stdout)


@pytest.mark.long
def test_steady_guests_are_not_moved_for_minutes(scene: Scene, schedule: Schedule) -> None:
    """VMs whose load does not change would be moved back and forth, and lose their caches each time."""
    guests = scene([0, 0, 0, 1, 1, 1], burning=False)
    for guest in guests[:5]:
        guest.control.burn()
    duty = Duty(guests[5], LIGHT_TURNS, LIGHT_REST_S)
    duty.begin()
    program = schedule()
    program.pass_turns(60)
    # Three beside two and a light one: nothing is more even.
    assert program.changes() == [], program.log
    assert program.stop(signal.SIGTERM) == 0
    duty.end()


@pytest.mark.long
def test_a_guest_that_vanishes_leaves_the_others_even(lab: Lab, scene: Scene, schedule: Schedule) -> None:
    """The program would end, or go on counting a VM that is gone, when one is destroyed under it."""
    (guest,) = lab.start(GuestSpec("vanishing", memory_bytes=96 * MIB, vcpus=1, guest_agent=False))
    lab.wait_ready()
    others = scene([0, 0, 0, 1, 1])
    put(guest, PCPUS[1])
    guest.control.burn()
    before = every_mask(others)
    program = schedule()
    program.pass_turns(3)
    assert program.changes() == [], program.log
    others[4].control.calm()
    guest.destroy()
    program.await_changes(1)
    assert counts(others[:4]) == [2, 2]
    assert program.stop(signal.SIGTERM) == 0
    assert_as_before(others, before, program.log)
