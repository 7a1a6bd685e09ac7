"""A probe text as a file that tells by itself until when it holds.

Called by the publisher; read by probes/lib/probe.sh. The first line is a comment of OpenNebula's syntax:
the seconds since boot from which and until which it holds, and the length of the rest. So a reader needs no
program to see that a text is old, cut short or from before a reboot, and setting the machine's clock changes
nothing. The kernel's boot ID would say less: in a container systemd's services see another than its users.
"""

from __future__ import annotations

from pathlib import Path

from vmpack.errors import UnavailableError
from vmpack.publish.atomic import write_atomically


def write_probe_file(path: Path, text: str, holds_s: float, proc: Path = Path("/proc")) -> None:
    """Replace `path` with `text` (ASCII), to be believed for so many seconds. Raises VmpackError."""
    try:
        uptime_s = float((proc / "uptime").read_text().split()[0])
    except (OSError, ValueError, IndexError) as error:
        raise UnavailableError(
            f"cannot tell the time since boot from {proc}: {error}", "probes need Linux with /proc mounted"
        ) from error
    body = text.rstrip("\n")
    write_atomically(path, f"# vmpack {int(uptime_s)} {int(uptime_s + holds_s)} {len(body)}\n{body}\n")
