"""What must be undone is on the disk before it is done."""

from __future__ import annotations

from tests import builders
from tests.host_doubles import DECISION, FullDisk, HostInMemory, JumpingClock

from vmpack.host.intent import FirstRemembered
from vmpack.model.action import Outcome, SetStatsPeriod
from vmpack.model.host import HostSnapshot
from vmpack.model.plan import Plan, Remembered


class Executor:
    """Notes what was on the disk when it was called."""

    def __init__(self, disk: FullDisk) -> None:
        self._disk = disk
        self.found: list[Remembered] = []

    def carry_out(self, plan: Plan) -> tuple[Outcome, ...]:
        """See vmpack.host.loop.Actuator."""
        self.found = list(self._disk.saved)
        return tuple(Outcome(action, "done") for action in plan.actions)


def decided(stats_period_s: int) -> tuple[HostSnapshot, Plan]:
    """A plan that shrinks an idle guest, and sets its statistics period where it has none."""
    host = HostInMemory(JumpingClock(), builders.guest("g1", used=30, stats_period_s=stats_period_s))
    snapshot = host.observe()
    return snapshot, DECISION.plan(snapshot, Remembered(), builders.EAGER)


def test_a_period_is_remembered_before_it_is_set() -> None:
    """An agent killed right after its deed would leave the owner's VM reporting for ever."""
    _, plan = decided(0)
    disk = FullDisk()
    executor = Executor(disk)

    outcomes = FirstRemembered(executor, DECISION.remember, disk.save).carry_out(plan)

    assert any(isinstance(outcome.action, SetStatsPeriod) for outcome in outcomes)
    (known,) = executor.found[0].guests.values()
    assert (known.stats_period_before_s, known.stats_period_set_s) == (0, 1)
    # No balloon counts as asked before it was.
    assert known.asked_s is None and known.target_bytes is None


def test_a_quiet_plan_costs_no_write() -> None:
    """Every interval of every host would write its state twice."""
    _, plan = decided(1)
    disk = FullDisk()

    FirstRemembered(Executor(disk), DECISION.remember, disk.save).carry_out(plan)

    assert plan.actions and disk.saved == []


def test_a_full_disk_stops_no_deed() -> None:
    """A host whose disk is full still has guests that want to grow."""
    _, plan = decided(0)
    disk = FullDisk(failures=1)

    outcomes = FirstRemembered(Executor(disk), DECISION.remember, disk.save).carry_out(plan)

    assert [outcome.action for outcome in outcomes] == list(plan.actions)
