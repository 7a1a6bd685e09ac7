"""The kernel's call when the host runs short of memory: heard once a window, and never missed for good."""

from __future__ import annotations

import errno
import logging
import os
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.waiting import PATIENCE_S, eventually

from vmpack.host import pressure_trigger
from vmpack.host.pressure_trigger import PressureTrigger

PSI = Path("/proc/pressure/memory")
LIMIT_BYTES = 16 * 2**20
READERS = 4
READ_FOR_EVER = 'echo $$ > "$0/cgroup.procs" && while :; do cat "$1" > /dev/null; done'


class Kernel:
    """The kernel's side of a trigger: out-of-band data is what poll shows as POLLPRI."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._ours, self._theirs = socket.socketpair()
        self.asked: list[tuple[int, int]] = []
        monkeypatch.setattr(pressure_trigger, "register", self._register)

    def _register(self, _path: Path, stall_us: int, window_us: int) -> int:
        self.asked.append((stall_us, window_us))
        return os.dup(self._theirs.fileno())

    def call(self) -> None:
        self._ours.send(b"!", socket.MSG_OOB)

    def heard(self) -> None:
        """As PSI does it: a call that was heard is over."""
        self._theirs.recv(1, socket.MSG_OOB)

    def close(self) -> None:
        self._ours.close()
        self._theirs.close()


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    made = Kernel(monkeypatch)
    try:
        made.call()
        made.heard()
    except OSError as error:
        pytest.skip(f"this kernel has no out-of-band data on Unix sockets: {error}")
    yield made
    made.close()


def test_each_call_wakes_once(kernel: Kernel) -> None:
    """A call that is lost leaves guests on a host that starves; one heard twice burns CPU just then."""
    woken = threading.Semaphore(0)

    def wake() -> None:
        kernel.heard()
        woken.release()

    trigger = PressureTrigger(wake, window_us=1000)
    for _ in range(3):
        kernel.call()
        assert woken.acquire(timeout=PATIENCE_S)
    trigger.stop()

    assert kernel.asked == [(150_000, 1000)]
    assert not woken.acquire(blocking=False)


def test_calls_without_end_wake_once_a_window(kernel: Kernel) -> None:
    """A host under lasting pressure would be turned over and over, and get no work done."""
    woken: list[int] = []
    done = threading.Event()

    def wake() -> None:
        woken.append(1)
        done.set()

    trigger = PressureTrigger(wake, window_us=3_600_000_000)
    kernel.call()
    assert done.wait(PATIENCE_S)
    kernel.call()
    trigger.stop()

    assert woken == [1]


def test_a_stopped_trigger_has_no_thread_and_no_descriptor_left(kernel: Kernel) -> None:
    """An agent that is stopped would hang, or be woken in the middle of giving memory back."""
    before = len(os.listdir("/proc/self/fd"))
    trigger = PressureTrigger(lambda: None)
    assert trigger.is_watching

    trigger.stop()
    trigger.stop()

    assert not trigger.is_watching
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES, errno.EPERM, errno.EOPNOTSUPP, errno.EINVAL])
def test_a_kernel_that_refuses_costs_one_line(monkeypatch, caplog, number):
    """Hosts without PSI, and agents without the right to it, must work as they did before."""
    monkeypatch.setattr(pressure_trigger, "register", _refuse(number))

    with caplog.at_level(logging.DEBUG):
        trigger = PressureTrigger(lambda: None)

    assert not trigger.is_watching
    assert len(caplog.records) == 1 and os.strerror(number) in caplog.text
    trigger.stop()


def _refuse(number: int):
    def register(_path: Path, _stall_us: int, _window_us: int) -> int:
        raise OSError(number, os.strerror(number))

    return register


def test_users_without_privileges_get_the_window_that_they_may_have(monkeypatch):
    """Newer kernels refuse them other windows: their agents would never be called."""
    asked = []

    def register(_path: Path, stall_us: int, window_us: int) -> int:
        asked.append((stall_us, window_us))
        raise OSError(errno.EINVAL, "no")

    monkeypatch.setattr(pressure_trigger, "register", register)
    PressureTrigger(lambda: None).stop()

    assert asked == [(150_000, 1_000_000), (150_000, 2_000_000)]


@pytest.fixture
def thrashing() -> Iterator[None]:
    """Processes that may not keep what they read, and so wait for memory all the time."""
    controller = Path("/sys/fs/cgroup/memory")
    limit, root = "memory.limit_in_bytes", controller
    if not controller.is_dir():
        limit, root = "memory.max", Path("/sys/fs/cgroup")
    group = root / f"vmpack-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / limit).write_text(str(LIMIT_BYTES))
    except OSError as error:
        if group.is_dir():
            group.rmdir()
        pytest.skip(f"no memory cgroup can be made here: {error}")
    # Not in /tmp, which may be memory: what lies there is not read anew.
    with tempfile.NamedTemporaryFile(dir="/var/tmp") as file:
        for _ in range(6):
            file.write(os.urandom(LIMIT_BYTES))
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        argv = ["sh", "-c", READ_FOR_EVER, str(group), file.name]
        readers = [subprocess.Popen(argv) for _ in range(READERS)]
        yield
        for reader in readers:
            reader.kill()
            reader.wait()
    eventually("the group is empty", lambda: not (group / "cgroup.procs").read_text())
    group.rmdir()


@pytest.mark.skipif(not PSI.exists(), reason="this kernel has no PSI")
@pytest.mark.usefixtures("thrashing")
def test_the_real_kernel_calls_when_processes_wait_for_memory() -> None:
    """All the rest is a double: a registration that the kernel takes otherwise would be silence."""
    called = threading.Event()
    trigger = PressureTrigger(called.set, stall_us=5_000)
    if not trigger.is_watching:
        pytest.skip("this user may not watch the host's memory pressure")
    try:
        assert called.wait(PATIENCE_S)
    finally:
        trigger.stop()
