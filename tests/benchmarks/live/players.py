"""Plays a course of needs on real guests, one thread each, and sees how far behind each guest is."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from tests.benchmarks.live.course import START_RATE_BYTES_PER_S, Change, need_bytes
from vmpack.errors import VmpackError
from vmpack.lab.lab import LabGuest

LOOK_S = 1.0
BEHIND_BYTES = 16 << 20
"""A guest within this of what it was told to need has it: loads grow by whole MiB and tell of it late."""


class Player:
    """One guest's needs. Memory that the guest's kernel killed is taken again, as a service manager would."""

    def __init__(self, guest: LabGuest, changes: Sequence[Change], began_s: float) -> None:
        self.guest = guest
        self.changes = changes
        self.held: list[tuple[float, int]] = []
        """What it held of that by its own word: the course's seconds, and bytes."""
        self.silences = 0
        """Looks that it did not answer."""
        self.behind_bytes = 0
        self._began_s = began_s
        self._waiting = list(changes)
        self._wanted_bytes = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"needs of {guest.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End it, and wait until it has ended."""
        self._stopped.set()
        self._thread.join()

    @property
    def is_done(self) -> bool:
        """Nothing is to come and the guest has what it needs."""
        return not self._waiting and self.behind_bytes <= BEHIND_BYTES

    def _now_s(self) -> float:
        return time.monotonic() - self._began_s

    def _run(self) -> None:
        next_look_s = self._now_s()
        while not self._stopped.is_set():
            now_s = self._now_s()
            due_s = self._waiting[0].at_s if self._waiting else next_look_s
            if now_s < min(due_s, next_look_s):
                self._stopped.wait(min(due_s, next_look_s) - now_s)
                continue
            try:
                if self._waiting and now_s >= due_s:
                    self._change(self._waiting[0])
                    self._waiting.pop(0)
                if now_s >= next_look_s:
                    self._look()
                    next_look_s = now_s + LOOK_S
            except VmpackError:  # a guest without memory or CPU time answers nobody
                self.silences += 1
                self._stopped.wait(LOOK_S)

    def _change(self, change: Change) -> None:
        control = self.guest.control
        if change.need_bytes < self._wanted_bytes:
            control.free()
            self._wanted_bytes = 0
        if change.need_bytes > self._wanted_bytes:
            control.load_anonymous(change.need_bytes - self._wanted_bytes, change.rate_bytes_per_s)
        self._wanted_bytes = change.need_bytes

    def _look(self) -> None:
        loads = self.guest.control.progress()
        now_s = self._now_s()
        held = sum(load.held_bytes for load in loads if load.state != "killed")
        self.behind_bytes = max(0, need_bytes(self.changes, now_s) - held)
        self.held.append((now_s, held))
        if any(load.state == "killed" for load in loads):
            self.guest.control.free()
            if self._wanted_bytes:
                self.guest.control.load_anonymous(self._wanted_bytes, START_RATE_BYTES_PER_S)
