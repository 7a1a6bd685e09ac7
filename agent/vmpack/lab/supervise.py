"""Run a program that uses an embedded lab so that nothing of it is left behind, whatever happens.

Called by commands that start themselves again as such a program (the demo), and by tests.
"""

import os
import signal
import sys
from collections.abc import Mapping, Sequence

from vmpack.lab import namespace
from vmpack.lab.reaper import Reaper, attend, block_signals, exit_code, reap_dead


def supervise(argv: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
    """Run a program below a reaper, in this terminal, and return its exit code (128 + N after signal N).

    Signals go on to the program. However it ends, and however this process ends, nothing it started is
    left. An embedded libvirt keeps its log to itself. As root the program sees the user that Debian's
    libvirt insists on. Must be called in the main thread.
    """
    command = list(argv)
    environment = {
        "LIBVIRT_LOG_OUTPUTS": "4:file:/dev/null",
        **(os.environ if environment is None else environment),
    }
    if os.geteuid() == 0:
        command = [sys.executable, "-I", "-S", namespace.__file__, "--", *command]
    signals = block_signals()
    try:
        with Reaper(command, environment=environment) as reaper:
            status = attend(reaper.pid, signals, lambda: reap_dead(reaper.pid))
            return exit_code(status)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
