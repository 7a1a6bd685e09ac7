"""`vmpack demo`: the main job on real small guests, in about a minute."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from vmpack.errors import UsageError

MOST_GUESTS = 8

_DESCRIPTION = """\
Boot a few real guests of 256 MiB in this process's own libvirt, pack the memory they do not use, let one
of them need it while its neighbours idle and the (pretended) host is full, and give everything back.

The demo touches nothing of this machine's own libvirt, needs neither KVM nor root, and leaves nothing
running.

examples:
  vmpack demo
  vmpack demo --guests 8
  vmpack demo --json demo.json        the summary for programs (see below); - is standard output
  vmpack demo --keep /tmp/demo        keep journal, metrics and probe texts, for `vmpack replay`

exit codes: 0 memory was packed, given back in time, and nothing was killed; 1 one of these is not so;
69 something needed is not there; 130 interrupted.

--json writes one object: guests, accelerator, nominal_bytes, packed_bytes, packed_ratio,
host_rss_before_bytes (memory used and freed, not yet packed), host_rss_after_bytes (packed peak),
grant_slowest_s (from a guest's report of need to its balloon's arrival), guest_oom_kills, host_oom_kills,
actions, intervals, and more.
"""


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "demo",
        help="see packing on real tiny guests, in a minute",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--guests", type=int, default=4, metavar="N", help="2 to 8 (default 4)")
    parser.add_argument("--json", metavar="FILE", help="write the summary as JSON")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep what the agent published")


def run(args: argparse.Namespace) -> int:
    """Run the worker below a reaper and return its exit code."""
    from vmpack.lab.supervise import supervise

    if not 2 <= args.guests <= MOST_GUESTS:
        raise UsageError(f"--guests {args.guests}: the demo runs with 2 to {MOST_GUESTS}")
    if args.json not in (None, "-"):
        _check_can_write(Path(args.json))
    argv = [sys.executable, "-m", "vmpack.demo", "--guests", str(args.guests)]
    if args.json is not None:
        argv += ["--json", args.json]
    if args.keep is not None:
        argv += ["--keep", str(args.keep)]
    return supervise(argv)


def _check_can_write(path: Path) -> None:
    """Opens nothing: the file stays as it is until there is a summary. Raises UsageError."""
    if os.path.isdir(path):  # unlike Path's, it is silent where this user may not look
        problem = "it is a folder"
    elif os.path.exists(path):
        problem = "" if os.access(path, os.W_OK) else "no permission"
    elif not os.path.isdir(path.parent):
        problem = f"this user finds no folder {path.parent}"
    else:
        problem = "" if os.access(path.parent, os.W_OK | os.X_OK) else "no permission for its folder"
    if problem:
        raise UsageError(f"cannot write {path}: {problem}", "give --json a file that can be written")
