"""Loads and commands inside a guest, through the control channel of a private lab."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.real.conftest import Boot
from tests.waiting import eventually
from vmpack.errors import UnavailableError
from vmpack.lab.control import GuestControl
from vmpack.lab.guest_spec import GuestSpec
from vmpack.lab.lab import Lab, LabGuest
from vmpack.units import KIB, MIB


@pytest.fixture(scope="module")
def guest(lab: Lab) -> Iterator[LabGuest]:
    """One guest for all tests here that leave it as they found it."""
    (shared,) = lab.start(GuestSpec("shared"))
    lab.wait_ready()
    yield shared
    shared.destroy()


def _states(guest: LabGuest) -> list[str]:
    return [load.state for load in guest.control.progress()]


def test_a_guest_answers_takes_loads_and_gives_them_back(guest: LabGuest) -> None:
    """Without this no demo, test or benchmark could make a guest need memory, or see that it does."""
    control = guest.control
    before = control.mem()

    assert control.ping() > 0
    assert control.run(["sh", "-c", "echo one; echo .two; exit 7"]).exit_code == 7
    assert control.run(["printf", "%s", "a b\n.c"]).output == "a b\n.c"

    control.load_tmpfs(20 * MIB)
    control.load_anonymous(10 * MIB)
    eventually("both loads done", lambda: _states(guest) == ["done", "done"])
    held = control.mem()
    assert before.available_bytes - held.available_bytes > 28 * MIB
    assert held.shmem_bytes - before.shmem_bytes >= 20 * MIB

    control.free()
    assert control.progress() == ()
    assert before.available_bytes - control.mem().available_bytes < 4 * MIB
    assert control.oom_kills() == 0


def test_a_load_keeps_its_rate(guest: LabGuest) -> None:
    """Ramps are how policies are judged: a load that ran ahead of its rate would make every result wrong."""
    control = guest.control

    started_s = control.ping()
    control.load_tmpfs(40 * MIB, rate_bytes_per_s=4 * MIB)

    def held_bytes() -> int:
        return control.progress()[0].held_bytes

    held = eventually("a part of the load", held_bytes)
    while held < 20 * MIB:
        # the guest's own clock, read after the load: a slow machine only makes the load seem slower
        held = held_bytes()
        assert held <= 4 * MIB * (control.ping() - started_s) + MIB
    control.free()


def test_too_much_anonymous_memory_is_killed_and_counted(boot: Boot) -> None:
    """Tests count OOM kills to prove that none happened: the count and the guest must survive a real one."""
    (guest,) = boot(GuestSpec("oom"))
    control = guest.control

    control.load_anonymous(400 * MIB)
    eventually("the load is killed", lambda: _states(guest) == ["killed"])

    assert control.oom_kills() == 1
    control.free()
    assert control.progress() == ()


def test_tmpfs_waits_where_memory_is_short(guest: LabGuest) -> None:
    """A tmpfs cannot be OOM-killed: were it to fill the guest, the guest would be dead instead of short."""
    control = guest.control

    control.load_tmpfs(400 * MIB)
    eventually("the load waits", lambda: _states(guest) == ["waiting"])

    assert control.oom_kills() == 0
    assert control.mem().available_bytes < 20 * MIB
    control.free()


@pytest.mark.long
def test_a_guest_comes_back_from_a_balloon_below_its_need(boot: Boot) -> None:
    """A policy's mistake must show as OOM kills that can be counted, not as a guest that is gone."""
    (guest,) = boot(GuestSpec("squeezed", stats_period_s=1))

    guest.domain.setMemory(40 * MIB // KIB)
    eventually("the OOM killer in the guest", lambda: "Killed process" in guest.console_text())
    eventually("all memory taken", lambda: guest.domain.memoryStats()["unused"] < 4 * MIB // KIB)
    guest.domain.setMemory(128 * MIB // KIB)

    def answers() -> bool:
        # a request to a service that is killed before it answers is lost
        with suppress(UnavailableError):
            return GuestControl(guest.control.path, timeout_s=2).ping() > 0
        return False

    eventually("the services", answers)
    assert guest.control.oom_kills() >= 1
    assert guest.control.mem().available_bytes > 40 * MIB


def test_busy_loops_burn_and_calm_down(guest: LabGuest) -> None:
    """CPU tests need a guest that is busy on request, and idle again after it."""
    control = guest.control

    control.burn(2)
    assert _states(guest) == ["running", "running"]
    control.calm()
    assert control.progress() == ()
    assert "load" not in control.run(["ps", "-o", "comm"]).output.split()


def test_a_guest_survives_a_client_that_leaves_in_mid_answer(guest: LabGuest) -> None:
    """A test that is interrupted must not spoil the guest for the next one who asks."""
    path = guest.control.path
    with socket.socket(socket.AF_UNIX) as channel:
        channel.connect(str(path))
        channel.sendall(b"nobody mem\nnobody mem\nnobody ping\n")

    assert guest.control.mem().total_bytes < guest.size()[0]


@pytest.mark.long
def test_swap_disk_and_network_are_there_on_request(boot: Boot, lab: Lab) -> None:
    """Swap-in is one of the signs of need, and guests without a disk or a network are not like anybody's."""
    disk = lab.state.root / "disk.raw"
    disk.write_bytes(bytes(4 * MIB))
    (guest,) = boot(GuestSpec("full", zram_swap_bytes=32 * MIB, disks=(disk,), network=True))

    assert guest.control.mem().swap_total_bytes > 31 * MIB
    assert guest.control.run(["cat", "/sys/block/vda/size"]).output.strip() == str(4 * MIB // 512)
    eventually("an address", lambda: "inet 10." in guest.control.run(["ip", "address"]).output)
