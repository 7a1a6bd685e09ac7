"""`vmpack` as it ships, with one fault put in from outside.

VMPACK_FAULT says which, VMPACK_TRACE where calls are noted, VMPACK_FAULT_FOLDER where the agent's files are.
The file clock_step there steps this process's wall clock by as many seconds as it says.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.faults.injector import Fault, Injector
from tests.faults.patches import Files, patch_files, patch_libvirt, patch_notifier
from vmpack.cli.main import main
from vmpack.publish import history


def kill() -> None:
    """End this process as the kernel's OOM killer does."""
    os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()


def install() -> None:
    """Patch this process as its environment says."""
    folder = Path(os.environ["VMPACK_FAULT_FOLDER"])
    injector = Injector(
        Fault(**json.loads(os.environ["VMPACK_FAULT"])), Path(os.environ["VMPACK_TRACE"]), kill=kill
    )
    patch_files(injector, Files({name: folder / name for name in ("run", "state", "textfile")}), setattr)
    patch_notifier(injector, setattr)
    patch_libvirt(injector, setattr)
    time.time = _stepped(time.time, folder / "clock_step")
    # Slots of the history that end within a test.
    history.SLOT_S = 1


def _stepped(real: Callable[[], float], step: Path) -> Callable[[], float]:
    def patched() -> float:
        try:
            return real() + float(step.read_text())
        except FileNotFoundError:
            return real()

    return patched


if __name__ == "__main__":
    install()
    sys.exit(main(sys.argv[1:]))
