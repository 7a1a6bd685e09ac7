"""Remembers on the disk what is about to be done to a VM and must be undone, before it is done.

Between the loop and the executor. An agent that is killed right after its deed could else not know of it:
the next one would take a statistics period that vmpack set for the owner's, and never put it back.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from vmpack.errors import VmpackError
from vmpack.host.loop import Actuator, RememberFunction
from vmpack.model.action import Outcome, SetStatsPeriod
from vmpack.model.plan import Plan, Remembered


class FirstRemembered:
    """An Actuator that has `save` keep the statistics periods of a plan as set, then carries the plan out.

    What really came of them is for the caller to save afterwards.
    """

    def __init__(
        self, actuator: Actuator, remember: RememberFunction, save: Callable[[Remembered], None]
    ) -> None:
        self._actuator = actuator
        self._remember = remember
        self._save = save

    def carry_out(self, plan: Plan) -> tuple[Outcome, ...]:
        """See vmpack.host.loop.Actuator. A disk that fails stops nothing: who saves afterwards says it."""
        periods = [Outcome(action, "done") for action in plan.actions if _sets(action)]
        if periods:
            with suppress(VmpackError):
                self._save(self._remember(plan, periods, 0.0))
        return self._actuator.carry_out(plan)


def _sets(action: object) -> bool:
    return isinstance(action, SetStatsPeriod) and not action.gives_back
