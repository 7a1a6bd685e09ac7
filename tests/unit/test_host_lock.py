"""The lock: one agent per libvirt."""

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.everyone import environment_for_everyone
from tests.waiting import eventually

from vmpack.errors import AccessError, AlreadyRunningError
from vmpack.host.lock import HostLock, host_locks
from vmpack.host.vcpus import vcpu_lock

HOLDER = """
import sys
from pathlib import Path
from vmpack.host.lock import HostLock
lock = HostLock("qemu/system/1234", Path(sys.argv[1]))
lock.take()
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_agent_is_refused_and_told_who_is_first(tmp_path: Path) -> None:
    """Promise 3: two agents would fight over the same guests."""
    with HostLock("qemu/system/1234", tmp_path), pytest.raises(AlreadyRunningError) as caught:
        HostLock("qemu/system/1234", tmp_path).take()

    assert f"process {os.getpid()} holds" in caught.value.message
    assert caught.value.exit_code == 75 and caught.value.hint


def test_who_pins_vcpus_beside_another_is_told_what_that_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who starts a second `vcpu_scheduler` would look for an agent that is not there, and ask it in vain."""
    monkeypatch.setattr("vmpack.host.lock.default_run_dir", lambda: tmp_path)

    with vcpu_lock("qemu/system/1234"), pytest.raises(AlreadyRunningError) as caught:
        vcpu_lock("qemu/system/1234").take()

    assert caught.value.message.startswith(
        f"an agent or vcpu_scheduler already works on the vCPUs of this libvirt: process {os.getpid()} holds "
    )
    assert caught.value.hint == (
        f"use it where it is an agent (`vmpack status`), or stop it first: kill {os.getpid()}"
    )


def test_another_libvirt_is_another_lock(tmp_path: Path) -> None:
    """A lab beside the system's libvirt needs its own agent."""
    with HostLock("qemu/system/1234", tmp_path), HostLock("qemu/session:1000/1234", tmp_path):
        assert len(list(tmp_path.iterdir())) == 2


def test_the_lock_ends_with_its_holder(tmp_path: Path) -> None:
    """After kill -9 the next start must not need a hand to remove a stale file."""
    argv = [sys.executable, "-c", HOLDER, str(tmp_path)]
    holder = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdin is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(AlreadyRunningError, match=f"process {holder.pid} holds"):
        HostLock("qemu/system/1234", tmp_path).take()

    holder.kill()
    holder.wait()
    holder.stdin.close()
    holder.stdout.close()

    with HostLock("qemu/system/1234", tmp_path):
        pass


def test_the_lock_can_be_taken_again(tmp_path: Path) -> None:
    """A stopped agent's lock must be free for the next one at once."""
    for _ in range(2):
        with HostLock("qemu/system/1234", tmp_path):
            assert len(list(tmp_path.iterdir())) == 1
        assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_taken_away_meanwhile_is_not_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening and locking, the last holder may have removed the file: two would then hold it."""
    real_flock, taken_away = fcntl.flock, []

    def flock(handle: int, mode: int) -> None:
        if mode & fcntl.LOCK_NB and not taken_away:
            taken_away.append(next(tmp_path.iterdir()))
            taken_away[0].unlink()
        real_flock(handle, mode)

    monkeypatch.setattr(fcntl, "flock", flock)
    with HostLock("qemu/system/1234", tmp_path), pytest.raises(AlreadyRunningError):
        HostLock("qemu/system/1234", tmp_path).take()


def test_files_of_dead_agents_are_swept_and_those_of_living_ones_kept(tmp_path: Path) -> None:
    """Each libvirt that ever was would leave a file for ever; a living agent's must stay its own."""
    (tmp_path / "agent-0123456789abcdef.lock").write_text("4711\n")
    (tmp_path / "agent.conf").write_text("not ours")

    with HostLock("one", tmp_path) as one, HostLock("two", tmp_path) as two:
        assert set(tmp_path.iterdir()) == {one._own, two._own, tmp_path / "agent.conf"}
        with pytest.raises(AlreadyRunningError):
            HostLock("one", tmp_path).take()


def test_a_start_waits_for_a_sweep(tmp_path: Path) -> None:
    """A sweep tries a dead agent's file; who starts on it meanwhile must not be told that an agent runs."""
    sweeping = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(sweeping, fcntl.LOCK_EX)
    lock = HostLock("one", tmp_path)
    lock._own.touch()
    with lock._own.open() as tried:
        fcntl.flock(tried, fcntl.LOCK_EX)
        starting = threading.Thread(target=lock.take, daemon=True)
        starting.start()
        eventually("it waits", lambda: is_blocked_on(tmp_path))
        lock._own.unlink()
    os.close(sweeping)
    starting.join(60)

    assert lock._own.exists()
    lock.drop()


def is_blocked_on(path: Path) -> bool:
    """Somebody waits for the lock on this file or directory."""
    waiting = [line for line in Path("/proc/locks").read_text().splitlines() if "->" in line]
    return any(f":{path.stat().st_ino} " in line for line in waiting)


AS_NOBODY = """
import fcntl, os, sys
from pathlib import Path
os.setgroups([]), os.setgid(65534), os.setuid(65534)
from vmpack.errors import AlreadyRunningError
from vmpack.host import lock
try:
    fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
    print("locked")
except PermissionError:
    print("no right")
lock.ROOT_DIRECTORY, lock.default_run_dir = Path(sys.argv[2]), lambda: Path(sys.argv[3])
try:
    lock.HostLock("this").take()
    print("taken")
except AlreadyRunningError as error:
    print(error.message)
"""


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that every user can reach, with a run directory for root and one for nobody."""
    with tempfile.TemporaryDirectory(prefix="vmpack-test-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "nobody").mkdir()
        if os.geteuid() == 0:
            os.chown(folder / "nobody", 65534, 65534)
        monkeypatch.setattr("vmpack.host.lock.default_run_dir", lambda: folder / "root")
        yield folder


def as_nobody(*arguments: Path) -> list[str]:
    """What AS_NOBODY prints."""
    argv = [sys.executable, "-c", AS_NOBODY, *map(str, arguments)]
    return subprocess.run(
        argv, env=environment_for_everyone(), cwd="/", capture_output=True, text=True, check=True
    ).stdout.splitlines()


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_no_other_user_can_keep_root_out(shared: Path) -> None:
    """Any local user could end all packing on the host, and tell root to kill a process of his choice."""
    with HostLock("this"):
        (file,) = (shared / "root" / "locks").iterdir()
        refused = f"an agent already works on this libvirt: process {os.getpid()} holds {file}"
        assert as_nobody(file, shared / "root", shared / "nobody") == ["no right", refused]
    file.write_text("")  # left by a dead agent
    file.chmod(0o600)

    assert as_nobody(file, shared / "root", shared / "nobody") == ["no right", "taken"]


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_root_obeys_no_lock_of_another_user(shared: Path) -> None:
    """In /tmp anybody can leave a file by the right name, hold it, and write any pid in it."""
    name = HostLock("this")._own.name
    forged = Path(tempfile.mkdtemp(prefix="vmpack-", dir="/tmp"))
    try:
        with (forged / name).open("w") as file:
            file.write("1\n")
            file.flush()
            os.chown(forged / name, 65534, 65534)
            fcntl.flock(file, fcntl.LOCK_EX)
            with HostLock("this"):
                pass
    finally:
        shutil.rmtree(forged)


def test_one_state_directory_is_for_one_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Agents of two libvirts with one --state-dir would overwrite what the other remembers."""
    monkeypatch.setattr("vmpack.host.lock.default_run_dir", lambda: tmp_path / "run")
    (tmp_path / "same").symlink_to(tmp_path / "state")

    with host_locks("one", tmp_path / "state"):
        with (
            pytest.raises(AlreadyRunningError, match="the state directory"),
            host_locks("two", tmp_path / "same"),
        ):
            pass
        with host_locks("two", tmp_path / "other"):
            pass


def test_a_directory_that_others_can_write_in_is_refused(tmp_path: Path) -> None:
    """In /tmp somebody else could have made the directory, and could replace socket and lock."""
    tmp_path.chmod(0o777)

    with pytest.raises(AccessError) as caught:
        HostLock("qemu/system/1234", tmp_path).take()

    assert str(tmp_path) in caught.value.message and caught.value.hint
