"""Guests whose QEMU guest agents answer, lie or fall silent, for tests of observe/guest_*.py."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from tests.fake_libvirt import FakeHypervisor
from tests.waiting import PATIENCE_S
from vmpack.observe.guest_file import ANSWER_S

T = TypeVar("T")

VMSTAT = b"nr_free_pages 1\noom_kill 3\nzswpin 0\n"
PRESSURE = (
    b"some avg10=0.00 avg60=0.12 avg300=0.00 total=7000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=50\n"
)
LIBVIRT_SYNC_S = 5
"""libvirt waits so long for any sign of a guest agent, before it asks anything."""


def file_read(content: bytes) -> str:
    """What an agent answers that has read this."""
    encoded = base64.b64encode(content).decode()
    return json.dumps({"return": {"count": len(content), "buf-b64": encoded, "eof": True}})


class Agents(FakeHypervisor):
    """A libvirt whose guests have agents: by uuid what /proc/vmstat says, or the error that libvirt gives.

    `refused`: the error that everybody gives for a command, by its name. `pressure` is what everybody's PSI
    says, or the error for its opening.
    """

    def __init__(self, **answers: bytes | Exception) -> None:
        super().__init__()
        self.answers = answers
        self.refused: dict[str, Exception] = {}
        self.pressure: bytes | Exception = PRESSURE
        self.open_files = 0
        self.calls = 0
        self.lookups = 0
        self.commands: list[str] = []
        self.steps_s: list[float] = []
        """When each command's deadline began."""
        self.asked: list[str] = []
        self.go_on = threading.Event()
        self.go_on.set()
        self.closed = threading.Event()

    def call(
        self,
        what: str,
        function: Callable[[Any], T],
        *,
        deadline_s: float = 5.0,
        last_step_s: Callable[[], float] = lambda: 0.0,
    ) -> T:
        assert deadline_s > LIBVIRT_SYNC_S + ANSWER_S
        self.calls += 1
        self._last_step_s = last_step_s
        return super().call(what, function, deadline_s=deadline_s)

    def close(self) -> None:
        self.closed.set()

    def lookupByUUIDString(self, uuid: str) -> str:
        self.lookups += 1
        return uuid

    def command(self, uuid: str, request: str, timeout_s: int, _flags: int) -> str:
        assert timeout_s == ANSWER_S
        asked = json.loads(request)
        name, arguments = asked["execute"], asked["arguments"]
        self.commands.append(name)
        self.steps_s.append(self._last_step_s())
        if name == "guest-ping":
            self.asked.append(uuid)
            self.go_on.wait(PATIENCE_S)
        if name in self.refused:
            raise self.refused[name]
        file = arguments.get("handle", 1000 + arguments.get("path", "").count("pressure"))
        answer = self.answers[uuid] if file == 1000 else self.pressure
        if isinstance(answer, Exception):
            raise answer
        if name == "guest-file-read":
            return file_read(answer)
        self.open_files += {"guest-file-open": 1, "guest-file-close": -1}.get(name, 0)
        return f'{{"return":{file}}}' if name == "guest-file-open" else '{"return":{}}'
