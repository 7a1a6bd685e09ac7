"""vmpack's code where every user may read it: a checkout below /root, say, is closed to them."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import sys
import tempfile
from pathlib import Path

import vmpack

NEEDED = ("rich", "markdown_it", "mdurl", "pygments", "prometheus_client")


@functools.cache
def code_for_everyone() -> Path:
    """A folder for PYTHONPATH; it goes away with this process."""
    folder = Path(tempfile.mkdtemp(prefix="vmpack-code-", dir="/tmp"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    folder.chmod(0o755)
    shutil.copytree(Path(vmpack.__file__).parent, folder / "vmpack")
    sites = [Path(path) for path in sys.path if path.endswith("site-packages")]
    for name in NEEDED:
        shutil.copytree(next(site / name for site in sites if (site / name).is_dir()), folder / name)
    return folder


def environment_for_everyone(**more: str) -> dict[str, str]:
    """An environment in which another user finds that code, and nothing of this one's."""
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(code_for_everyone()), **more}
