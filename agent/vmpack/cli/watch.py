"""What `top` knows between two looks: the newest answer of the agent, and why the last question failed.

Used by top.py; one watch for each of its pages. Promises: an agent that goes away leaves the old answer,
marked as old.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

from vmpack.cli.moves import move_lines
from vmpack.cli.safe_text import shown
from vmpack.cli.status import host_line, state
from vmpack.errors import UnavailableError
from vmpack.model.interval import AgentStatus
from vmpack.model.vcpu import VcpuStatus

if TYPE_CHECKING:
    from rich.text import Text

    from vmpack.cli.top_frame import TimedMove, View
    from vmpack.host.client import AgentClient

REMEMBERED_MOVES = 200

Status = TypeVar("Status", AgentStatus, VcpuStatus)


class Watch(ABC, Generic[Status]):
    """The newest status, and why the last refresh failed."""

    def __init__(self, client: AgentClient) -> None:
        self._client = client
        self.status: Status | None = None
        self.trouble = ""

    def refresh(self) -> bool:
        """Ask the agent; True when there is a new interval. Raises UnavailableError the first time only."""
        before = self.status
        try:
            self.status = self._ask()
        except UnavailableError as error:
            if before is None:
                raise
            self.trouble = f"{error.message}; what is shown is old"
            return False
        self.trouble = ""
        newest = self.status.interval
        return newest is not None and (before is None or before.interval != newest)

    @abstractmethod
    def _ask(self) -> Status:
        """Ask the agent. Raises VmpackError."""

    @property
    @abstractmethod
    def rows(self) -> int:
        """So many can be scrolled through."""

    @abstractmethod
    def frame(self, view: View, now_s: float) -> Text:
        """The whole screen."""

    @abstractmethod
    def lines(self) -> list[str]:
        """The newest interval as lines: the host, then what changed."""


class MemoryWatch(Watch[AgentStatus]):
    """The memory page, and the moves seen so far."""

    def __init__(self, client: AgentClient) -> None:
        super().__init__(client)
        self.moves: deque[TimedMove] = deque(maxlen=REMEMBERED_MOVES)
        self._new_moves: list[TimedMove] = []
        """Those of the last refresh alone."""

    def refresh(self) -> bool:
        """See Watch."""
        from vmpack.cli.top_frame import TimedMove

        self._new_moves = []
        fresh = super().refresh()
        if fresh and self.status is not None and self.status.interval is not None:
            newest = self.status.interval
            clock = time.strftime("%H:%M:%S", time.localtime(newest.snapshot.wall_s))
            self._new_moves = [TimedMove(clock, line) for line in move_lines(newest)]
            self.moves.extend(self._new_moves)
        return fresh

    def _ask(self) -> AgentStatus:
        return self._client.status()

    @property
    def rows(self) -> int:
        """VMs."""
        interval = self.status.interval if self.status else None
        return len(interval.snapshot.guests) if interval else 0

    def frame(self, view: View, now_s: float) -> Text:
        """See Watch."""
        from rich.text import Text

        from vmpack.cli.top_frame import fitted, frame

        if self.status is None:
            return fitted([Text(shown(self.trouble), "bold red")], view)
        return frame(self.status, self.moves, view, now_s, self.trouble)

    def lines(self) -> list[str]:
        """See Watch."""
        status = self.status
        if status is None or status.interval is None:
            return ["no interval has gone through yet"]
        snapshot = status.interval.snapshot
        clock = time.strftime("%H:%M:%S", time.localtime(snapshot.wall_s))
        host = f"{clock} {state(status)}: {len(snapshot.guests)} VMs, {host_line(status.interval)}"
        return [host, *(f"{timed.clock} {timed.move}" for timed in self._new_moves)]


class CpuWatch(Watch[VcpuStatus]):
    """The pCPU page; an agent that does not look at vCPUs is unavailable too."""

    def _ask(self) -> VcpuStatus:
        return self._client.vcpus()

    @property
    def rows(self) -> int:
        """pCPUs and their headings."""
        from vmpack.cli.top_cpus import rows_of

        interval = self.status.interval if self.status else None
        return len(rows_of(interval)) if interval else 0

    def frame(self, view: View, now_s: float) -> Text:
        """See Watch."""
        from vmpack.cli.top_cpus import frame

        return frame(self.status, view, now_s, self.trouble)

    def lines(self) -> list[str]:
        """See Watch."""
        from vmpack.cli.vcpu_text import plain_lines

        return plain_lines(self.status)
