"""A directory that is ours: for lock, socket and state, which nobody else may replace."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from vmpack.errors import AccessError
from vmpack.publish.atomic import disk_error, make_directory


def own_directory(path: Path, mode: int = 0o755) -> None:
    """Create it with `mode` where it is missing. Raises VmpackError when somebody else could write in it."""
    make_directory(path, mode)
    try:
        found = path.lstat()
    except OSError as error:
        raise disk_error("look at", path, error) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o022:
        raise AccessError(
            f"{path} is not a directory that only its owner, this user, can write in",
            "remove it, or name another one (--run-dir, --state-dir)",
        )
