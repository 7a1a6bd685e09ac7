"""One agent per libvirt: a second one refuses to start.

Taken by the agent for as long as it runs, and by a release without an agent; who pins vCPUs has a second one
for these alone. The lock's file is named after the libvirt's identity in a fixed directory of the user, so
neither another --run-dir nor another spelling of the URI gets around it; it ends with the process, however
that ends. Nobody but the owner can open the file: flock needs no more than that, so who could open it could
keep the agent out. Users obey root's lock; root obeys nobody's.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from vmpack.config_keys import LOCKS_FOLDER, default_run_dir
from vmpack.errors import AlreadyRunningError
from vmpack.host.directory import own_directory
from vmpack.publish.atomic import disk_error

ROOT_DIRECTORY = Path("/run/vmpack")


class HostLock:
    """An exclusive right to one thing; a context manager."""

    def __init__(
        self,
        thing: str,
        directory: Path | None = None,
        what: str = "this libvirt",
        holder: str = "an agent",
        instead: str = "use that one (`vmpack status`), or stop it first",
    ) -> None:
        """`thing` names it exactly; `directory` is for tests.

        For people: `what` it is, who its `holder` can be, and what to do `instead` where there is one.
        """
        name = f"agent-{hashlib.sha256(thing.encode()).hexdigest()[:16]}.lock"
        self._what, self._holder, self._instead = what, holder, instead
        self._run_dir = directory or default_run_dir()
        self._own = (directory or self._run_dir / LOCKS_FOLDER) / name
        self._of_root = ROOT_DIRECTORY / LOCKS_FOLDER / name
        self._handle: int | None = None

    def __enter__(self) -> HostLock:
        self.take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.drop()

    def take(self) -> None:
        """Take the lock. Raises AlreadyRunningError that names the holder's pid, and VmpackError."""
        if os.geteuid() != 0 and (holder := _holder(self._of_root)) is not None:
            raise self._taken(self._of_root, holder)
        own_directory(self._run_dir)
        own_directory(self._own.parent, 0o711)
        with self._alone_in_directory():
            handle = self._locked()
            while not _is_at(self._own, handle):
                os.close(handle)
                handle = self._locked()
            self._sweep()
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        self._handle = handle

    def drop(self) -> None:
        """Give the lock up and take its file away."""
        if self._handle is not None:
            with suppress(OSError):
                self._own.unlink()
            os.close(self._handle)
            self._handle = None

    @contextmanager
    def _alone_in_directory(self) -> Iterator[None]:
        """Locks are taken one at a time: who starts must not meet a sweep that tries the same file."""
        try:
            handle = os.open(self._own.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise disk_error("open", self._own.parent, error) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _sweep(self) -> None:
        """Take away what dead agents left: files that nobody holds."""
        for path in self._own.parent.glob("agent-*.lock"):
            with suppress(OSError):
                handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()
                finally:
                    os.close(handle)

    def _locked(self) -> int:
        try:
            handle = os.open(self._own, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise disk_error("open", self._own, error) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(handle)
            raise self._taken(self._own, self._written_pid()) from error
        return handle

    def _written_pid(self) -> str:
        try:
            return self._own.read_text(encoding="ascii", errors="replace")[:20].strip()
        except OSError:
            return ""

    def _taken(self, path: Path, pid: str) -> AlreadyRunningError:
        process, kill = (f"process {pid}", f": kill {pid}") if pid.isdigit() else ("another process", "")
        return AlreadyRunningError(
            f"{self._holder} already works on {self._what}: {process} holds {path}", self._instead + kill
        )


@contextmanager
def host_locks(identity: str, state_dir: Path) -> Iterator[None]:
    """The right to change the VMs of the libvirt with this Hypervisor.identity(), and to keep state there.

    Raises AlreadyRunningError that names the holder's pid, and VmpackError.
    """
    state = str(state_dir.resolve())
    with HostLock(identity), HostLock(state, what=f"the state directory {state}"):
        yield


def _is_at(path: Path, handle: int) -> bool:
    """False when the last holder took the file away after we had opened it."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(handle))
    except FileNotFoundError:
        return False


def _holder(path: Path) -> str | None:
    """The pid that holds a lock whose file we may not open, as the kernel tells it; None when nobody does."""
    try:
        file = path.lstat()
        held = Path("/proc/locks").read_text(encoding="ascii")
    except OSError:
        return None
    here = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}:{file.st_ino}"
    found = re.search(rf"FLOCK +\S+ +WRITE +(\d+) +{here} ", held)
    return found[1] if found else None
