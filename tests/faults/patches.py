"""Puts an Injector around the calls through which an agent touches the world."""

from __future__ import annotations

import builtins
import errno
import io
import os
import re
import socket
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.faults.injector import Injector

Patch = Callable[[Any, str, Any], None]
"""setattr, or pytest's monkeypatch.setattr."""

CONNECTION_CALLS = ("getAllDomainStats", "lookupByUUIDString")
DOMAIN_CALLS = (
    "XMLDesc",
    "isPersistent",
    "jobStats",
    "maxMemory",
    "memoryStats",
    "metadata",
    "setMemoryFlags",
    "setMemoryStatsPeriod",
    "state",
)
CHANGING_CALLS = ("setMemoryFlags", "setMemoryStatsPeriod")

_TEMPORARY = re.compile(r"\.(.+)\.[a-z0-9_]{8}")
_PATH_CALLS = ("replace", "rename", "unlink", "mkdir", "chmod")
_HANDLE_CALLS = ("fchmod", "fsync", "ftruncate")


def disk_full() -> OSError:
    """What a write gets from a full disk."""
    return OSError(errno.ENOSPC, "No space left on device")


class Files:
    """Names the files of an agent's directories, and knows which open handle is which."""

    def __init__(self, directories: Mapping[str, Path]) -> None:
        self._directories = directories
        self._handles: dict[int, str] = {}

    def name(self, path: Any) -> str | None:
        """ "state/remembered.json", with ~ for a file on its way to that place; None for other files."""
        if isinstance(path, int):
            return self._handles.get(path)
        found = Path(os.fsdecode(path))
        for label, directory in self._directories.items():
            if found.is_relative_to(directory):
                whole = _TEMPORARY.sub(r"\1~", found.name)
                inner = found.relative_to(directory)
                return label if found == directory else str(label / inner.with_name(whole))
        return None

    def opened(self, handle: int, name: str | None) -> None:
        """A handle belongs to this file from now on."""
        if name is None:
            self._handles.pop(handle, None)
        else:
            self._handles[handle] = name


class WatchedFile:
    """A file open for writing, each write of which is a point and reaches the disk at once."""

    def __init__(self, file: Any, name: str, injector: Injector) -> None:
        self._file = file
        self._name = name
        self._injector = injector

    def write(self, data: Any) -> int:
        """See io.RawIOBase; a kill or a full disk leaves half of it."""
        half = bytes(data)[: len(data) // 2]
        return self._injector.at(
            f"write {self._name}",
            lambda: int(self._file.write(data)),
            disk_full,
            torn=lambda: self._file.write(half),
        )

    def __enter__(self) -> WatchedFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def patch_files(injector: Injector, files: Files, patch: Patch) -> None:
    """Have every change of the watched directories go through the injector."""
    for name in _PATH_CALLS:
        patch(os, name, _path_call(injector, files, f"os.{name}", getattr(os, name)))
    for name in _HANDLE_CALLS:
        patch(os, name, _path_call(injector, files, f"os.{name}", getattr(os, name)))
    patch(os, "open", _os_open(injector, files, os.open))
    opening = _builtin_open(injector, files, builtins.open)
    patch(builtins, "open", opening)
    patch(io, "open", opening)
    patch(sqlite3, "connect", _connect(injector, files, sqlite3.connect))


def _path_call(injector: Injector, files: Files, call: str, real: Callable[..., Any]) -> Any:
    def patched(*arguments: Any, **options: Any) -> Any:
        name = files.name(arguments[-1] if call in ("os.replace", "os.rename") else arguments[0])
        if name is None:
            return real(*arguments, **options)
        return injector.at(f"{call} {name}", lambda: real(*arguments, **options), disk_full)

    return patched


def _os_open(injector: Injector, files: Files, real: Callable[..., int]) -> Any:
    def patched(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        name = files.name(path)
        changes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if name is None or not changes:
            handle = real(path, flags, *arguments, **options)
        else:
            handle = injector.at(
                f"os.open {name}", lambda: real(path, flags, *arguments, **options), disk_full
            )
        files.opened(handle, name)
        return handle

    return patched


def _builtin_open(injector: Injector, files: Files, real: Callable[..., Any]) -> Any:
    def patched(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        name = files.name(file) if isinstance(file, int | str | bytes | os.PathLike) else None
        if name is None or not set(mode) & set("wxa+") or "b" not in mode:
            return real(file, mode, *arguments, **options)
        if isinstance(file, int):
            return WatchedFile(real(file, mode, buffering=0), name, injector)
        opened = injector.at(f"open {name}", lambda: real(file, mode, buffering=0), disk_full)
        return WatchedFile(opened, name, injector)

    return patched


def _connect(injector: Injector, files: Files, real: Callable[..., sqlite3.Connection]) -> Any:
    def failed() -> sqlite3.OperationalError:
        return sqlite3.OperationalError("disk I/O error")

    class Watched(sqlite3.Connection):
        """Each statement and the end of each transaction is a point."""

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            # Processes are killed here, not machines: waiting for the disk would only take time.
            super().execute("PRAGMA synchronous = OFF")

        def execute(self, *arguments: Any) -> sqlite3.Cursor:
            return injector.at("sqlite execute", lambda: super(Watched, self).execute(*arguments), failed)

        def executemany(self, *arguments: Any) -> sqlite3.Cursor:
            return injector.at(
                "sqlite executemany", lambda: super(Watched, self).executemany(*arguments), failed
            )

        def executescript(self, *arguments: Any) -> sqlite3.Cursor:
            return injector.at(
                "sqlite executescript", lambda: super(Watched, self).executescript(*arguments), failed
            )

        def __exit__(self, *arguments: Any) -> Any:
            return injector.at("sqlite commit", lambda: super(Watched, self).__exit__(*arguments), failed)

    def patched(path: Any, *arguments: Any, **options: Any) -> sqlite3.Connection:
        name = files.name(path)
        if name is None:
            return real(path, *arguments, **options)
        return injector.at(
            f"sqlite connect {name}", lambda: real(path, *arguments, factory=Watched, **options), failed
        )

    return patched


def patch_notifier(injector: Injector, patch: Patch) -> None:
    """Have every word to the service manager go through the injector."""
    real = socket.socket.sendto

    def refused() -> OSError:
        return OSError(errno.ECONNREFUSED, "Connection refused")

    def patched(channel: socket.socket, data: Any, *arguments: Any) -> int:
        return injector.at("sendto the service manager", lambda: real(channel, data, *arguments), refused)

    patch(socket.socket, "sendto", patched)


def patch_libvirt(injector: Injector, patch: Patch) -> None:
    """Have every call of an interval that reaches libvirt go through the injector."""
    import libvirt

    for call in CONNECTION_CALLS:
        patch(libvirt.virConnect, call, _libvirt_call(injector, call, getattr(libvirt.virConnect, call)))
    for call in DOMAIN_CALLS:
        patch(libvirt.virDomain, call, _libvirt_call(injector, call, getattr(libvirt.virDomain, call)))


def _libvirt_call(injector: Injector, call: str, real: Callable[..., Any]) -> Any:
    import libvirt

    def refused() -> Exception:
        error = libvirt.libvirtError("injected")
        error.err = (
            libvirt.VIR_ERR_INTERNAL_ERROR,
            libvirt.VIR_FROM_QEMU,
            "injected fault",
            2,
            *[None] * 3,
            0,
            0,
        )
        return error

    def patched(thing: Any, *arguments: Any, **options: Any) -> Any:
        subject = f" {thing.name()}" if isinstance(thing, libvirt.virDomain) else ""
        detail = arguments[0] if call in CHANGING_CALLS else None
        return injector.at(
            f"{call}{subject}", lambda: real(thing, *arguments, **options), refused, detail=detail
        )

    return patched
