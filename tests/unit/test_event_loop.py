"""libvirt's event loop as programs meet it: started once, and over before they are."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import atexit, threading
def told():
    print([thread.name for thread in threading.enumerate() if thread.name == "libvirt-events"])
atexit.register(told)
from vmpack.event_loop import start_event_loop
start_event_loop()
start_event_loop()
told()
"""


def test_no_event_reaches_a_program_that_ends():
    """An event in the middle of an interpreter's end is a crash: an agent that stopped well seems to fail."""
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60)

    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.split("\n")[:2] == ["['libvirt-events']", "[]"]
