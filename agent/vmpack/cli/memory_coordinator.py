"""`memory_coordinator INTERVAL`: the agent's loop alone, with one readable line per change."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from vmpack.cli.agent import add_directories, start
from vmpack.cli.loop_program import QUIET_LINE_EVERY, run_program

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
    return run_program("memory_coordinator", DESCRIPTION, EPILOG, add_directories, _start, arguments)


def _start(args: argparse.Namespace) -> int:
    return start(args, quiet_line_every=QUIET_LINE_EVERY, reloads=False, pins_vcpus=False)


if __name__ == "__main__":
    sys.exit(main())
