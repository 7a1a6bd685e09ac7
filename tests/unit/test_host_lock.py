"""The lock: one agent per libvirt."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vmpack.errors import AccessError, AlreadyRunningError
from vmpack.host.lock import HostLock, host_locks

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
        if not taken_away:
            taken_away.append(next(tmp_path.iterdir()))
            taken_away[0].unlink()
        real_flock(handle, mode)

    monkeypatch.setattr(fcntl, "flock", flock)
    with HostLock("qemu/system/1234", tmp_path), pytest.raises(AlreadyRunningError):
        HostLock("qemu/system/1234", tmp_path).take()


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
