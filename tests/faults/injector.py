"""Counts the external calls that an agent makes, and strikes at one of them.

Used inside the agent's own process (tests.faults.main), and by tests over doubles. Every call gets a name
and an ordinal, "os.replace state/remembered.json #1"; that is a point. Counting begins with the first look
at the host, so the same scene gives the same points each time.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

T = TypeVar("T")

Mode = Literal["record", "kill", "kill_after", "fail", "fail_after", "stop", "delay"]
"""`kill` a write is to die with half of it written; `fail_after` is an answer that gets lost."""

BEGIN = "getAllDomainStats"
"""The first call of a look at the host."""

_write = os.write


class Killed(BaseException):
    """Stands for SIGKILL over doubles: from here on no call reaches the outside."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What shall happen where. `seconds` is how long a `delay` lasts."""

    mode: Mode = "record"
    point: str = ""
    seconds: float = 0.0

    def as_text(self) -> str:
        """For an environment variable."""
        return json.dumps(asdict(self))


@dataclass(frozen=True, slots=True)
class Passage:
    """One line of a trace: a point that was reached ("before") or that came back ("after")."""

    time_s: float
    when: Literal["before", "after", "struck"]
    point: str
    detail: int | None = None
    """What a setMemoryFlags asked for, in KiB."""


class Injector:
    """Every patched call goes through `at`; may be used from all threads."""

    def __init__(
        self,
        fault: Fault,
        trace_path: Path | None = None,
        *,
        kill: Callable[[], None],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.points: list[str] = []
        """In the order in which they were met."""
        self.dead = False
        self.struck = False
        self._fault = fault
        self._kill = kill
        self._sleep = sleep
        self._counts: Counter[str] = Counter()
        self._begun = False
        self._lock = threading.Lock()
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._trace = os.open(trace_path, flags, 0o600) if trace_path else None

    def at(
        self,
        name: str,
        call: Callable[[], T],
        failure: Callable[[], Exception],
        *,
        torn: Callable[[], Any] = lambda: None,
        detail: int | None = None,
    ) -> T:
        """Make the call named `name`, unless the fault is meant for it. `torn` does half of it."""
        if self.dead:
            raise Killed(name)
        point = self._reach(name)
        if point is None:
            return call()
        strikes = point == self._fault.point and self._fault.mode != "record"
        if strikes:
            self.struck = True
            self._note("struck", point)
            self._strike_before(torn, failure)
        self._note("before", point, detail)
        try:
            answer = call()
        finally:
            self._note("after", point)
            if strikes and self._fault.mode == "kill_after":
                self._die()
        if strikes and self._fault.mode == "fail_after":
            raise failure()
        return answer

    def _reach(self, name: str) -> str | None:
        with self._lock:
            self._begun = self._begun or name.startswith(BEGIN)
            if not self._begun:
                return None
            self._counts[name] += 1
            point = f"{name} #{self._counts[name]}"
            self.points.append(point)
            return point

    def _strike_before(self, torn: Callable[[], Any], failure: Callable[[], Exception]) -> None:
        if self._fault.mode == "kill":
            torn()
            self._die()
        elif self._fault.mode == "fail":
            torn()
            raise failure()
        elif self._fault.mode == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif self._fault.mode == "delay":
            self._sleep(self._fault.seconds)

    def _die(self) -> None:
        self.dead = True
        self._kill()
        raise Killed(self._fault.point)

    def _note(self, when: str, point: str, detail: int | None = None) -> None:
        if self._trace is not None:
            line = json.dumps([time.monotonic(), when, point, detail])
            _write(self._trace, f"{line}\n".encode())


def read_trace(path: Path) -> list[Passage]:
    """All that a traced agent has passed so far."""
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return []
    return [Passage(*json.loads(line)) for line in lines if line.endswith("]")]
