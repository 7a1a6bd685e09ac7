"""Files that are whole or not there: written beside their place, then renamed; broken ones set aside.

Called by everything that keeps a file (probe texts, metrics, state). A reader never sees half a file,
and a failed write leaves the old one as it was and no leftover beside it.
"""

from __future__ import annotations

import errno
import os
import re
import tempfile
from contextlib import suppress
from pathlib import Path

from vmpack.errors import AccessError, UnavailableError, VmpackError

_RIGHTS = "this user has no right to that: give it the right, or choose another place"
_IN_THE_WAY = "a file is where that directory belongs: move it away, or choose another place"
_HINTS = {
    errno.ENOSPC: "free some space on that file system",
    errno.EDQUOT: "free some space: the disk quota is used up",
    errno.EROFS: "that file system is mounted read-only: mount it read-write, or choose another directory",
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EISDIR: "a directory is where that file belongs: move it away",
    errno.EEXIST: _IN_THE_WAY,
    errno.ENOTDIR: _IN_THE_WAY,
    errno.ENOENT: "create the directory, or choose another one",
}

_READING_HINTS = {
    errno.EACCES: "this user has no right to read it: give it the right",
    errno.EPERM: "this user has no right to read it: give it the right",
    errno.ENOTDIR: "see that its path is right",
    errno.ENOENT: "see that its path is right",
}


def disk_error(verb: str, path: Path, error: OSError) -> VmpackError:
    """Turn an OSError into an error for people; `verb` completes "cannot ... PATH"."""
    hints = _HINTS | _READING_HINTS if verb == "read" else _HINTS
    hint = hints.get(error.errno or 0, "see `dmesg` for disk faults")
    kind = AccessError if error.errno in (errno.EACCES, errno.EPERM) else UnavailableError
    return kind(f"cannot {verb} {path}: {error.strerror or error}", hint)


def make_directory(path: Path, mode: int = 0o755) -> None:
    """Create `path` and its parents where missing; `mode` is for `path` itself. Raises VmpackError."""
    try:
        path.mkdir(mode, parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error("create", path, error) from error


def write_atomically(path: Path, content: str | bytes, mode: int = 0o644, durable: bool = False) -> None:
    """Replace `path` with `content` in one step. `durable` waits until it is on the disk.

    Raises VmpackError with the path and a hint; then `path` is as it was.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise disk_error("write", path, error) from error
    try:
        with open(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(handle, mode)
            if durable:
                os.fsync(handle)
        os.replace(temporary, path)
    except OSError as error:
        Path(temporary).unlink(missing_ok=True)
        raise disk_error("write", path, error) from error
    if durable:
        _sync_directory(path.parent)


def sweep_leftovers(path: Path) -> None:
    """Take away what writers of `path` left beside it when they were killed; only while nobody writes it."""
    leftover = re.compile(rf"\.{re.escape(path.name)}\.[a-z0-9_]{{8}}")
    with suppress(OSError):
        for beside in path.parent.iterdir():
            if leftover.fullmatch(beside.name):
                beside.unlink(missing_ok=True)


def _sync_directory(path: Path) -> None:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise disk_error("sync", path, error) from error
    try:
        os.fsync(handle)
    except OSError as error:
        raise disk_error("sync", path, error) from error
    finally:
        os.close(handle)


def set_aside(path: Path) -> Path:
    """Rename a broken file to the first free `NAME.broken-N` and say which. Raises VmpackError."""
    number = 1
    while (target := path.with_name(f"{path.name}.broken-{number}")).exists():
        number += 1
    try:
        path.rename(target)
    except OSError as error:
        raise disk_error("set aside", path, error) from error
    return target
