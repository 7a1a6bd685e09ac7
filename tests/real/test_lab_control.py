"""Loads and commands inside a guest, through the control channel of a private lab."""

from __future__ import annotations

from tests.real.conftest import Boot
from tests.waiting import eventually
from vmpack.lab.guest_spec import GuestSpec
from vmpack.lab.lab import LabGuest
from vmpack.units import MIB


def _states(guest: LabGuest) -> list[str]:
    return [load.state for load in guest.control.progress()]


def test_a_guest_answers_takes_loads_and_gives_them_back(boot: Boot) -> None:
    """Without this no demo, test or benchmark could make a guest need memory, or see that it does."""
    (guest,) = boot(GuestSpec("loads"))
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


def test_a_load_keeps_its_rate(boot: Boot) -> None:
    """Ramps are how policies are judged: a load that ran ahead of its rate would make every result wrong."""
    (guest,) = boot(GuestSpec("ramp"))
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


def test_tmpfs_waits_where_memory_is_short(boot: Boot) -> None:
    """A tmpfs cannot be OOM-killed: were it to fill the guest, the guest would be dead instead of short."""
    (guest,) = boot(GuestSpec("short"))
    control = guest.control

    control.load_tmpfs(400 * MIB)
    eventually("the load waits", lambda: _states(guest) == ["waiting"])

    assert control.oom_kills() == 0
    assert control.mem().available_bytes < 20 * MIB
    control.free()


def test_busy_loops_burn_and_calm_down(boot: Boot) -> None:
    """CPU tests need a guest that is busy on request, and idle again after it."""
    (guest,) = boot(GuestSpec("busy"))
    control = guest.control

    control.burn(2)
    assert _states(guest) == ["running", "running"]
    control.calm()
    assert control.progress() == ()
    assert "load" not in control.run(["ps", "-o", "comm"]).output.split()


def test_a_guest_survives_a_client_that_leaves_in_mid_answer(boot: Boot) -> None:
    """A test that is interrupted must not spoil the guest for the next one who asks."""
    import socket

    (guest,) = boot(GuestSpec("rude"))
    path = guest.control.path
    with socket.socket(socket.AF_UNIX) as channel:
        channel.connect(str(path))
        channel.sendall(b"nobody mem\nnobody mem\nnobody ping\n")

    assert guest.control.mem().total_bytes < guest.size()[0]
    assert guest.control.oom_kills() == 0
