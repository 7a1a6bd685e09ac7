"""What breaks while a VM is on its way: it is never lost, and only what both hosts showed is said of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.real.agent_process import balloon_bytes
from tests.real.conftest import BootOn
from tests.real.migrants import ONE_VCPU, SLOW, Underway, migrate
from tests.waiting import PATIENCE_S, eventually
from vmpack.act import migration
from vmpack.act.driver import LibvirtDriver
from vmpack.lab.guest_spec import GuestSpec
from vmpack.lab.lab import Lab, LabGuest
from vmpack.lab.pair import Pair
from vmpack.model.migration import MigrationOutcome
from vmpack.units import MIB

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(os.geteuid() != 0, reason="a pair of hosts needs root"),
]

SIZE = 128 * MIB


@pytest.fixture
def guest(pair: Pair, boot_on: BootOn) -> LabGuest:
    (guest,) = boot_on(pair.a, GuestSpec("faulty", memory_bytes=SIZE, stats_period_s=1, vcpus=ONE_VCPU))
    return guest


@pytest.fixture
def journey(pair: Pair, guest: LabGuest) -> Underway:
    """A slow migration to host b."""
    return Underway(pair.a, migrate(guest, pair.b, bandwidth=SLOW)).moving()


def stayed(pair: Pair, guest: LabGuest, outcome: MigrationOutcome) -> None:
    """It runs where it was, its balloon obeys, and nothing of it is at the destination."""
    assert (outcome.status, outcome.source, outcome.destination) == ("failed", "running", "absent"), outcome
    assert outcome.detail
    assert pair.b.guests() == []
    works(pair.a, guest)


def works(host: Lab, guest: LabGuest) -> None:
    assert guest.control.ping() > 0
    driver = LibvirtDriver(host.hypervisor)
    driver.set_memory(guest.uuid, SIZE - 24 * MIB)
    eventually("its balloon obeys", lambda: balloon_bytes(guest) == SIZE - 24 * MIB)


def qemu_pid(host: Lab, guest: LabGuest) -> int:
    return int((host.pid_folder / f"{guest.name}.pid").read_text())


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process that hangs."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_the_destinations_libvirt_dies_and_comes_back(pair: Pair, guest: LabGuest, journey: Underway) -> None:
    """The most usual fault: a host that is restarted, just as a VM was sent to it."""
    pair.b.kill_libvirt()
    pair.b.restart_libvirt()

    stayed(pair, guest, journey.outcome())


def test_the_destinations_libvirt_dies_for_good(
    pair: Pair, guest: LabGuest, journey: Underway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody may be told that all is well at a host that nobody could ask."""
    monkeypatch.setattr(migration, "SETTLE_S", 5.0)
    pair.b.kill_libvirt()
    outcome = journey.outcome()

    assert (outcome.status, outcome.source, outcome.destination) == ("unclear", "running", "unreachable")
    assert "cannot be seen" in outcome.detail and "it runs at the source" in outcome.hint
    pair.b.restart_libvirt()
    eventually("libvirt clears up", lambda: pair.b.guests() == [])
    works(pair.a, guest)


def test_the_sources_libvirt_dies_and_comes_back(pair: Pair, guest: LabGuest, journey: Underway) -> None:
    """The VM's own host loses its libvirt, and with it the one that knew where the VM was going."""
    pair.a.kill_libvirt()
    pair.a.restart_libvirt()

    stayed(pair, guest, journey.outcome())


def test_the_qemu_at_the_destination_dies(pair: Pair, guest: LabGuest, journey: Underway) -> None:
    """A destination without memory kills what arrives: the VM must not be gone with it."""
    os.kill(qemu_pid(pair.b, guest), signal.SIGKILL)

    stayed(pair, guest, journey.outcome())


def test_the_vm_itself_dies_on_its_way(pair: Pair, guest: LabGuest, journey: Underway) -> None:
    """A VM that is nowhere must not be reported as moved, nor as still here."""
    os.kill(qemu_pid(pair.a, guest), signal.SIGKILL)
    outcome = journey.outcome()

    assert outcome.status == "unclear", outcome
    assert (outcome.source, outcome.destination) == ("absent", "absent")
    assert "may have ended" in outcome.hint


def test_a_destination_that_hangs_costs_the_time_budget(
    pair: Pair, guest: LabGuest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that answers nothing must not hold the VM for ever."""
    journey = Underway(pair.a, migrate(guest, pair.b, bandwidth=SLOW)).moving()
    with stopped(qemu_pid(pair.b, guest)):
        journey.stop()
        outcome = journey.outcome()

    assert outcome.status in ("aborted", "unclear") and outcome.source == "running", outcome
    eventually("the destination clears up", lambda: pair.b.guests() == [])
    works(pair.a, guest)


def test_who_asked_for_it_is_killed(pair: Pair, guest: LabGuest, tmp_path: Path) -> None:
    """The VM is on exactly one host afterwards, and another command is told that it is on its way."""
    argv = [sys.executable, "-m", "vmpack.cli.main", "migrate", guest.name, pair.b.uri]
    argv += ["--connect", pair.a.uri, "--bandwidth", "6MiB/s"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and "faulty: " in process.stdout.readline()
        process.kill()
        assert process.wait(PATIENCE_S) == -signal.SIGKILL

    second = Underway(pair.a, migrate(guest, pair.b)).outcome()
    assert second.status == "skipped" and "migration out" in second.detail, second
    eventually("it is on one host", lambda: len(pair.a.guests()) + len(pair.b.guests()) == 1)
    (survivor,) = pair.a.guests() or pair.b.guests()
    assert survivor.control.ping() > 0


def test_who_loses_the_race_to_migrate_has_begun_nothing(
    pair: Pair, guest: LabGuest, journey: Underway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told that it is unclear where the VM is, its owner might end the copy that the first one is sending."""
    # As if the second one had looked just before the first one began.
    for look in ("source_refusals", "destination_refusals"):
        monkeypatch.setattr(migration, look, lambda *_: ())
    second = Underway(pair.a, migrate(guest, pair.b)).outcome()

    assert (second.status, second.hint) == ("skipped", ""), second
    assert "another migration has it" in second.detail
    assert journey.hurry().outcome().status == "done"
    assert pair.b.guest(guest.name).control.ping() > 0
