"""What is seen of the agent while a soak goes on: actions, intervals, the budget it keeps, its log."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from tests.real.agent_process import AgentProcess
from vmpack.errors import UnavailableError
from vmpack.model.interval import AgentStatus, Interval
from vmpack.units import MIB

LONGEST_OVER_BUDGET_S = 60.0
"""A start, a restore or a guest's own deflation may take the host over its budget; so soon it is back."""
_SLACK_BYTES = 2 * MIB
_COUNTED = re.compile(r"^vmpack_(actions|intervals|failed_intervals)_total(?:{.*})? (\S+)$", re.MULTILINE)
_FAULT = re.compile(
    r"^(?:<[0-3]>(?!this interval failed).*|Traceback .*|Exception in thread .*)$", re.MULTILINE
)


class Counts:
    """Counters of an agent, summed over all its lives."""

    def __init__(self) -> None:
        self._ended: dict[str, int] = {}
        self._now: dict[str, int] = {}

    def take(self, metrics: str) -> None:
        """Take in what the agent of now tells."""
        found: dict[str, int] = {}
        for name, value in _COUNTED.findall(metrics):
            found[name] = found.get(name, 0) + round(float(value))
        self._now = found

    def agent_ended(self) -> None:
        """What follows counts from 0 again."""
        self._ended = {name: self[name] for name in {*self._ended, *self._now}}
        self._now = {}

    def __getitem__(self, name: str) -> int:
        return self._ended.get(name, 0) + self._now.get(name, 0)


@dataclass(slots=True)
class BudgetKept:
    """Was the host ever over its budget, by how much and for how long?"""

    lowest_room_bytes: int = 0
    longest_over_s: float = 0.0
    highest_rss_bytes: int = 0
    """Of all QEMUs together; beyond the capacity the host would be out of memory."""
    capacity_bytes: int = 0
    budget_bytes: int = 0
    highest_packed_bytes: int = 0
    _over_since_s: float | None = field(default=None, repr=False)

    def take(self, interval: Interval, rss_bytes: int) -> None:
        """Take in the newest interval."""
        plan, now_s = interval.plan, interval.snapshot.time_s
        self.capacity_bytes = plan.budget.capacity_bytes
        self.budget_bytes = plan.budget.budget_bytes
        self.highest_packed_bytes = max(self.highest_packed_bytes, plan.offer.packed_bytes)
        self.highest_rss_bytes = max(self.highest_rss_bytes, rss_bytes)
        self.lowest_room_bytes = min(self.lowest_room_bytes, plan.room_bytes)
        if plan.room_bytes >= -_SLACK_BYTES:
            self._over_since_s = None
            return
        if self._over_since_s is None:
            self._over_since_s = now_s
        self.longest_over_s = max(self.longest_over_s, now_s - self._over_since_s)

    @property
    def is_broken(self) -> bool:
        return self.longest_over_s > LONGEST_OVER_BUDGET_S or self.highest_rss_bytes > self.capacity_bytes


class AgentWatch:
    """Looks at one agent through its socket and its log."""

    def __init__(self, agent: AgentProcess) -> None:
        self._agent = agent
        self.counts = Counts()
        self.budget = BudgetKept()

    def status(self) -> AgentStatus | None:
        """The newest status; None while nobody answers."""
        try:
            return self._agent.client.status()
        except UnavailableError:
            return None

    def look(self, rss_bytes: int) -> AgentStatus | None:
        """Take in all that the agent tells now."""
        status = self.status()
        if status is None:
            return None
        if status.interval is not None:
            self.budget.take(status.interval, rss_bytes)
        try:
            self.counts.take(self._agent.client.metrics().decode())
        except UnavailableError:
            return None
        return status

    def log_faults(self) -> list[str]:
        """Errors and tracebacks in the log so far, but for intervals that failed: those are counted."""
        return _FAULT.findall(self._agent.log)


def room_bytes(interval: Interval) -> int:
    """What the guests' needs together leave of the budget, whoever holds it now."""
    plan = interval.plan
    return plan.budget.budget_bytes - sum(
        guest.target_bytes if guest.verdict == "excluded" else guest.minimum_bytes for guest in plan.guests
    )


def host_oom_kills() -> int:
    """Processes that this machine's OOM killer has ended since boot, whosever they were."""
    found = re.search(r"^oom_kill (\d+)$", Path("/proc/vmstat").read_text(), re.MULTILINE)
    return int(found[1]) if found else 0
