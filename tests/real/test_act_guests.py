"""Plans carried out on real guests: memory moves, the host gets it back, and trouble is an outcome."""

from __future__ import annotations

import dataclasses
import os
import signal
import uuid
from collections.abc import Iterator

import pytest

from tests.waiting import eventually
from vmpack.act.driver import LibvirtDriver
from vmpack.act.executor import Executor
from vmpack.clock import SystemClock
from vmpack.errors import GuestGoneError
from vmpack.hypervisor import Hypervisor
from vmpack.lab.guest_spec import GuestSpec
from vmpack.lab.lab import Lab, LabGuest
from vmpack.model.action import Action, SetMemory, SetStatsPeriod
from vmpack.model.plan import Budget, Offer, Plan, Remembered
from vmpack.units import MIB

SIZE = 160


@pytest.fixture
def driver(lab: Lab):
    hypervisor = Hypervisor(lab.uri)
    yield LibvirtDriver(hypervisor)
    hypervisor.close()


@pytest.fixture
def executor(driver: LibvirtDriver) -> Executor:
    # Ten times what a quiet machine needs.
    return Executor(driver, SystemClock(), settle_s=20.0)


@pytest.fixture(scope="module")
def pair(lab: Lab) -> Iterator[list[LabGuest]]:
    specs = [GuestSpec(name, memory_bytes=SIZE * MIB, free_page_reporting=False) for name in ("one", "two")]
    guests = lab.start(*specs)
    lab.wait_ready()
    yield guests
    for guest in guests:
        guest.destroy()


@pytest.fixture
def one(pair: list[LabGuest], driver: LibvirtDriver) -> LabGuest:
    """A guest with all its memory."""
    return whole(pair[0], driver)


@pytest.fixture
def two(pair: list[LabGuest], driver: LibvirtDriver) -> LabGuest:
    """Another guest with all its memory."""
    return whole(pair[1], driver)


def whole(guest: LabGuest, driver: LibvirtDriver) -> LabGuest:
    driver.set_memory(guest.uuid, SIZE * MIB)
    eventually("it has it all", lambda: driver.look(guest.uuid).balloon_bytes == SIZE * MIB)
    return guest


def move(guest: LabGuest, from_mib: int, to_mib: int) -> SetMemory:
    return SetMemory(guest.uuid, guest.name, from_mib * MIB, to_mib * MIB, SIZE * MIB)


def plan(*actions: Action, room_mib: int = 0) -> Plan:
    nothing = Budget(0, 0, 0, 0, 0)
    return Plan(actions, room_mib * MIB, (), nothing, Offer(0, 0, 0, 0, None, ()), (), None, Remembered())


def test_memory_moves_from_one_guest_to_another(
    one: LabGuest, two: LabGuest, executor: Executor, driver: LibvirtDriver
) -> None:
    """What vmpack is for: one guest's unused memory becomes another's, and the host never pays twice."""
    giver, taker = one, two
    shrunk = executor.carry_out(plan(move(taker, SIZE, 110)))
    assert shrunk[0].status == "done", shrunk

    outcomes = executor.carry_out(plan(move(giver, SIZE, 120), move(taker, 110, 150)))

    assert [outcome.status for outcome in outcomes] == ["done", "done"], outcomes
    assert driver.look(giver.uuid).balloon_bytes == 120 * MIB
    assert driver.look(taker.uuid).balloon_bytes == 150 * MIB


def test_a_grow_that_nothing_pays_for_is_not_made(one: LabGuest, executor: Executor) -> None:
    """The host's own death is the worst outcome: no guest may grow on memory that is not there."""
    guest = one
    executor.carry_out(plan(move(guest, SIZE, 120)))

    (outcome,) = executor.carry_out(plan(move(guest, 120, SIZE), room_mib=0))

    assert outcome.status == "skipped"
    assert outcome.reached_bytes == 120 * MIB


def test_memory_that_was_used_and_freed_comes_back_to_the_host(one: LabGuest, executor: Executor) -> None:
    """A balloon that moves figures but frees no page would sell room that does not exist."""
    guest = one
    guest.control.load_tmpfs(70 * MIB)
    eventually("the load is held", lambda: guest.control.progress()[0].state == "done")
    guest.control.free()
    before = guest.rss_bytes()

    (outcome,) = executor.carry_out(plan(move(guest, SIZE, 100)))

    assert outcome.status == "done", outcome
    assert before - guest.rss_bytes() > 40 * MIB


def test_a_balloon_that_does_not_move_is_partial_and_the_order_can_be_withdrawn(
    lab: Lab, driver: LibvirtDriver
) -> None:
    """A guest would be squeezed by a forgotten order the moment that its driver comes up."""
    (booting,) = lab.start(GuestSpec("booting", memory_bytes=SIZE * MIB))
    try:
        (outcome,) = Executor(driver, SystemClock(), settle_s=0.1).carry_out(plan(move(booting, SIZE, 100)))
        asked_before_its_driver = not booting.is_ready()
        (stopped,) = Executor(driver, SystemClock(), settle_s=0.1).carry_out(plan(move(booting, SIZE, SIZE)))
        lab.wait_ready()
        eventually("the driver is up", lambda: booting.control.ping() > 0)

        assert asked_before_its_driver
        assert (outcome.status, outcome.reached_bytes) == ("partial", SIZE * MIB)
        assert stopped.status == "done", stopped
        assert driver.look(booting.uuid).balloon_bytes == SIZE * MIB
    finally:
        booting.destroy()


@pytest.mark.long
def test_a_squeeze_below_what_a_guest_can_give_is_partial_and_can_be_stopped(
    lab: Lab, driver: LibvirtDriver
) -> None:
    """A balloon that stops short is a state: left squeezing, the guest would die of it."""
    (guest,) = lab.start(GuestSpec("squeezed", memory_bytes=SIZE * MIB))
    lab.wait_ready()
    try:
        executor = Executor(driver, SystemClock(), settle_s=2.0)
        (outcome,) = executor.carry_out(plan(move(guest, SIZE, 24)))
        stood_at = driver.look(guest.uuid).balloon_bytes
        (stopped,) = executor.carry_out(
            plan(SetMemory(guest.uuid, guest.name, stood_at, stood_at, SIZE * MIB))
        )

        assert outcome.status == "partial", outcome
        assert outcome.reached_bytes is not None and outcome.reached_bytes > 30 * MIB
        assert stopped.status == "done", stopped
    finally:
        guest.destroy()


def test_the_statistics_period_is_set(one: LabGuest, executor: Executor, driver: LibvirtDriver) -> None:
    """Without reports a guest is silent, and silence is need: nothing would be packed."""
    guest = one

    (outcome,) = executor.carry_out(plan(SetStatsPeriod(guest.uuid, guest.name, 1)))

    assert outcome.status == "done"
    assert "<stats period='1'/>" in guest.domain.XMLDesc(0)


def test_gone_and_paused_guests_are_outcomes(
    one: LabGuest, two: LabGuest, executor: Executor, driver: LibvirtDriver
) -> None:
    """One VM in trouble would keep all the others from their memory."""
    gone = dataclasses.replace(move(one, SIZE, 120), uuid=str(uuid.uuid4()))
    one.domain.suspend()
    try:
        outcomes = executor.carry_out(plan(gone, move(one, SIZE, 120), move(two, SIZE, 120)))
    finally:
        one.domain.resume()

    assert [outcome.status for outcome in outcomes] == ["skipped", "skipped", "done"], outcomes
    with pytest.raises(GuestGoneError):
        driver.look(gone.uuid)


def test_a_stopped_qemu_is_an_outcome_too(one: LabGuest, two: LabGuest, executor: Executor) -> None:
    """A hung VM would take the executor with it, and with it every guest on the host."""
    pid = one.pid
    actions = (move(one, SIZE, 120), move(two, SIZE, 120))

    os.kill(pid, signal.SIGSTOP)
    try:
        outcomes = executor.carry_out(plan(*actions))
    finally:
        os.kill(pid, signal.SIGCONT)

    assert [outcome.status for outcome in outcomes] == ["skipped", "done"], outcomes
    assert "no answer" in outcomes[0].detail
