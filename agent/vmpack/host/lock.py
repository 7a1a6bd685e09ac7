"""One agent per libvirt: a second one refuses to start.

Taken by the agent for as long as it runs, and by a release without an agent. The lock's file is named after
the libvirt's identity in a fixed directory of the user, so neither another --run-dir nor another spelling
of the URI gets around it; it ends with the process, however that ends.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from vmpack.config_keys import default_run_dir
from vmpack.errors import AlreadyRunningError
from vmpack.host.directory import own_directory
from vmpack.publish.atomic import disk_error

ROOT_DIRECTORY = Path("/run/vmpack")


class HostLock:
    """The exclusive right to change the VMs of one libvirt; a context manager."""

    def __init__(self, identity: str, directory: Path | None = None) -> None:
        """`identity` is Hypervisor.identity(); `directory` is for tests."""
        name = f"agent-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.lock"
        self._own = (directory or default_run_dir()) / name
        self._others = () if directory else tuple(_of_others(name, self._own))
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
        for path in self._others:
            if _is_held(path):
                raise _taken(path)
        own_directory(self._own.parent)
        try:
            handle = os.open(self._own, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise disk_error("open", self._own, error) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(handle)
            raise _taken(self._own) from error
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        self._handle = handle

    def drop(self) -> None:
        """Give the lock up. The file stays: removing it would let two agents hold one name."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def _of_others(name: str, own: Path) -> Iterator[Path]:
    """Where agents of other users that can reach the same libvirt keep their lock."""
    candidates = [ROOT_DIRECTORY / name]
    if os.geteuid() == 0:
        candidates += [*Path("/run/user").glob(f"*/vmpack/{name}"), *Path("/tmp").glob(f"vmpack-*/{name}")]
    return (path for path in candidates if path != own)


def _is_held(path: Path) -> bool:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _taken(path: Path) -> AlreadyRunningError:
    try:
        text = path.read_text(encoding="ascii", errors="replace")[:20].strip()
    except OSError:
        text = ""
    holder = f"process {text}" if text.isdigit() else "another process"
    return AlreadyRunningError(
        f"an agent already works on this libvirt: {holder} holds {path}",
        f"use that one (`vmpack status`), or stop it first{f': kill {text}' if text.isdigit() else ''}",
    )
