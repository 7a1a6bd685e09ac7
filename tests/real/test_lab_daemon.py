"""Private daemons: as root and as an ordinary user, side by side, up and down, and after a crash."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import vmpack
from tests.waiting import eventually
from vmpack.errors import GuestGoneError, UnavailableError
from vmpack.lab.daemon import leftovers, running_reaper
from vmpack.lab.guest_spec import GuestSpec
from vmpack.lab.lab import Lab, LabGuest, end_lab
from vmpack.lab.state import StateFolder, named_state

_NOBODY = 65534
_ROOT = Path(__file__).parents[2]


def _lab(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vmpack.cli.main", "lab", *arguments],
        capture_output=True,
        text=True,
        check=True,
        **options,  # type: ignore[call-overload]
    )


def test_two_labs_side_by_side_do_not_meet() -> None:
    """Two people, or a demo and a test, use one machine: equal guest names must not clash."""
    with Lab.private() as one, Lab.private() as other:
        (first,) = one.start(GuestSpec("same"))
        (second,) = other.start(GuestSpec("same"))
        assert first.pid != second.pid
        other.wait_ready()
        second.control.load_tmpfs(1)
        one.wait_ready()
        assert first.control.progress() == ()

        other.close()
        assert first.control.ping() > 0


@pytest.mark.long
def test_up_list_down() -> None:
    """This is how people use the lab: up again adds only what is missing, and down leaves nothing."""
    name = f"t{os.getpid()}"
    state = named_state(name)
    try:
        _lab("up", "--guests", "1", "--name", name)
        first = json.loads(_lab("list", "--json", "--name", name).stdout)["guests"]
        again = _lab("up", "--guests", "2", "--name", name)
        assert "starting 1 guest " in again.stderr
        guests = json.loads(_lab("list", "--json", "--name", name).stdout)["guests"]

        assert [guest["name"] for guest in guests] == ["g1", "g2"]
        assert guests[0] == {**first[0], "rss_bytes": guests[0]["rss_bytes"]}
        assert _lab("uri", "--name", name).stdout.strip() == Lab.attach(name).uri
    finally:
        assert "is down" in _lab("down", "--name", name).stdout
    assert not state.root.exists()
    assert leftovers(state) == []
    assert not any(Path(f"/proc/{guest['pid']}").exists() for guest in guests)


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.long
def test_an_ordinary_user_has_a_lab_too(tmp_path: Path) -> None:
    """Most people try things without root first: the whole way, download included, must work for them."""
    home = Path("/tmp") / f"vmpack-test-{os.getpid()}"
    shutil.copytree(Path(vmpack.__file__).parent, home / "code/vmpack")
    os.chown(home, _NOBODY, _NOBODY)
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": str(home / "code")}
    name = f"t{os.getpid()}"

    def as_nobody(*arguments: str) -> str:
        return subprocess.run(
            ["/usr/bin/python3", "-m", "vmpack.cli.main", "lab", *arguments, "--name", name],
            user=_NOBODY,
            group=_NOBODY,
            extra_groups=[],
            env=environment,
            cwd="/",
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    try:
        try:
            as_nobody("up", "--guests", "1")
            (guest,) = json.loads(as_nobody("list", "--json"))["guests"]
            assert Path(f"/proc/{guest['pid']}").stat().st_uid == _NOBODY
        finally:
            as_nobody("down")
        assert not Path(f"/proc/{guest['pid']}").exists()
    finally:
        shutil.rmtree(home)


def test_a_killed_caller_leaves_nothing() -> None:
    """A test run that is killed hard must not leave daemons or guests on the machine."""
    program = (
        "import time\n"
        "from vmpack.lab.lab import Lab, GuestSpec\n"
        "lab = Lab.private()\n"
        "lab.start(GuestSpec('k1'))\n"
        "print(lab.state.root, flush=True)\n"
        "time.sleep(1000)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        state = StateFolder(Path(process.stdout.readline().strip()))
        assert leftovers(state) != []
        process.kill()

        eventually("the reaper ends", lambda: running_reaper(state) is None)
    assert leftovers(state) == []
    state.remove()


def test_down_clears_away_what_a_crash_left() -> None:
    """Even when the reaper itself is killed, one command must bring the machine back."""
    name = f"c{os.getpid()}"
    lab = Lab.up(name)
    lab.start(GuestSpec("k1"))
    reaper = running_reaper(lab.state)
    assert reaper is not None
    os.kill(reaper, signal.SIGKILL)
    eventually("the lock is free", lambda: running_reaper(lab.state) is None)
    assert leftovers(lab.state) != []

    assert end_lab(name)

    assert leftovers(lab.state) == []
    assert not lab.state.root.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user cannot write there anyway")
def test_the_systems_libvirt_is_left_alone() -> None:
    """The lab runs on hosts with real VMs: not a file of their libvirt may come, go or change."""

    def files() -> dict[Path, int]:
        return {
            path: path.stat().st_mtime_ns
            for folder in ("/etc", "/var/lib", "/var/log", "/var/cache", "/run")
            for path in Path(folder, "libvirt").rglob("*")
            if not path.is_dir()
        }

    before = files()
    mounts = Path("/proc/mounts").read_text()
    with Lab.private() as lab:
        (guest,) = lab.start(GuestSpec("alone"))
        assert guest.pid > 0
        assert files() == before
        assert Path("/proc/mounts").read_text() == mounts
    assert files() == before


def test_libvirt_killed_and_back_keeps_the_guests() -> None:
    """Tests of a crashed libvirt stand on this: its guests must run on, and be found again afterwards."""
    with Lab.private() as lab:
        (guest,) = lab.start(GuestSpec("survivor"))
        lab.wait_ready()
        qemu, daemon, up_s = guest.pid, lab.libvirt_pid, guest.control.ping()

        lab.kill_libvirt()
        assert not Path(f"/proc/{daemon}").exists()
        assert Path(f"/proc/{qemu}").exists()
        assert guest.control.ping() > up_s
        lab.restart_libvirt()

        assert lab.libvirt_pid != daemon
        found = eventually("the connection is back", lambda: _found(lab, "survivor"))
        assert found.pid == qemu
        lab.kill_libvirt()
    assert not Path(f"/proc/{qemu}").exists()


def _found(lab: Lab, name: str) -> LabGuest | None:
    try:
        return lab.guest(name)
    except (GuestGoneError, UnavailableError):
        return None
