"""`memory_coordinator INTERVAL`: the agent's loop alone, with one readable line per change."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from vmpack.cli.agent import add_arguments, log_to, start
from vmpack.cli.main import guarded

PROGRAM = "memory_coordinator"
QUIET_LINE_EVERY = 12

DESCRIPTION = """\
Every INTERVAL seconds, borrow the memory that the VMs of this host do not use, and give it back the
moment they need it. One line per change, and one now and then when all is quiet. Ctrl-C, or the end
of its terminal or pipe, gives all memory back and ends. `vmpack top` and `vmpack status` in another
terminal show more."""

EPILOG = """\
examples:
  memory_coordinator 5                          the system's libvirt, every 5 s
  memory_coordinator 12 --observe               change nothing, say what would be done
  memory_coordinator 2 --connect lab            the guests of `vmpack lab up`
  memory_coordinator 2 --connect qemu:///session"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("interval", metavar="INTERVAL", help="seconds between looks at the host")
    parser.add_argument("-v", "--verbose", action="store_true", help="one line per interval too")
    add_arguments(parser)
    args = parser.parse_args(arguments)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    log_to(sys.stdout, logging.DEBUG if args.verbose else logging.INFO)
    return guarded(
        lambda: start(
            args, args.interval, quiet_line_every=QUIET_LINE_EVERY, reloads=False, pins_vcpus=False
        ),
        PROGRAM,
    )


if __name__ == "__main__":
    sys.exit(main())
