"""Guests with a reporter and their OneGates, for one test.

Used by the fixtures of test_onegate_publisher.py and test_onegate_trouble.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.opennebula.onegate import OneGate, Vm
from tests.opennebula.reporter import GuestRoot

TOKEN = "dG9rZW4+/w=="

Scene = Callable[..., tuple[GuestRoot, OneGate]]


@contextmanager
def reporter_scene(folder: Path) -> Iterator[Scene]:
    """`scene(shell, ...)` makes a guest with a reporter that has made its first report, and its OneGate."""
    made: list[tuple[GuestRoot, OneGate]] = []

    def make(shell: str = "dash", interval: str = "60", **names: str) -> tuple[GuestRoot, OneGate]:
        guest = GuestRoot(folder, shell)
        gate = OneGate(Vm(7, TOKEN), clock=guest.now_s)
        made.append((guest, gate))
        guest.set_context(gate.endpoint, VMPACK_REPORT_INTERVAL=interval, **names)
        guest.start()
        return guest, gate

    yield make
    for guest, gate in made:
        gate.close()
        if guest.process is not None:
            guest.process.kill()
            guest.process.wait()
