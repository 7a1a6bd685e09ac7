"""One process at a time reads, merges and writes the note of a VM's pins: libvirt can only replace it whole.

Called by thread_masks.py and affinity.py around just that; not to be nested. Holds for all processes of this
user on this host. Promises never to keep a pin from being set or taken off: where nobody has made the
directory, or somebody does not let go, it goes on without.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from vmpack.config_keys import LOCKS_FOLDER, default_run_dir

PATIENCE_S = 1.0
"""Less than a call to libvirt may take: one that hangs in another process must not make ours late."""
POLL_S = 0.01


@contextmanager
def note_lock(uuid: str) -> Iterator[None]:
    """The right to change the note of the VM with this uuid, where it is to be had."""
    with ExitStack() as at_end:
        with suppress(OSError):
            folder = _folder()
            at_end.callback(os.close, folder)
            name = f"pins-{uuid}.lock"
            at_end.callback(os.close, _locked(name, folder))
            at_end.callback(_remove, name, folder)
        yield


def _folder() -> int:
    """The directory that the agent and the scheduler make. Raises OSError where it is missing or not ours."""
    folder = os.open(default_run_dir() / LOCKS_FOLDER, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    found = os.fstat(folder)
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        os.close(folder)
        raise PermissionError
    return folder


def _locked(name: str, folder: int) -> int:
    """A handle of the file, locked. Raises OSError, BlockingIOError where somebody keeps it."""
    end_s = time.monotonic() + PATIENCE_S
    while True:
        handle = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600, dir_fd=folder)
        try:
            _wait_for(handle, end_s)
            # Who had it before takes the file away.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.stat(name, dir_fd=folder), os.fstat(handle)):
                    return handle
        except OSError:
            os.close(handle)
            raise
        os.close(handle)


def _wait_for(handle: int, end_s: float) -> None:
    while True:
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end_s:
                raise
            time.sleep(POLL_S)


def _remove(name: str, folder: int) -> None:
    with suppress(OSError):
        os.unlink(name, dir_fd=folder)
