"""A stand-in for the agent that commands ask, with one VM `web`; it notes what was asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from tests.cli_samples import WALL_S, guest, interval, status
from vmpack.cli import agent_access
from vmpack.cli import status as status_command
from vmpack.cli.main import main
from vmpack.errors import UnavailableError
from vmpack.host import vcpu_answers
from vmpack.host.messages import Explanation, FreezeState, GivenBack, PolicySet, VcpuSummary
from vmpack.model.action import Outcome, SetMemory
from vmpack.model.guest import GuestPolicy
from vmpack.model.interval import AgentStatus
from vmpack.model.plan import Reason
from vmpack.model.vcpu import VcpuStatus
from vmpack.units import MIB

WEB = guest("web")


class StandInAgent:
    """Answers as an agent with one VM `web` would, and notes what was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.answer: AgentStatus | None = status(interval((WEB,)))
        self.given = GivenBack(64 * MIB, (), ())
        self.learned: tuple[Reason, ...] = ()
        self.vcpu_answer: VcpuStatus | None = None
        self.outcome = Outcome(SetMemory(WEB.uuid, "web", 192 * MIB, 200 * MIB, 256 * MIB), "done")

    def status(self) -> AgentStatus:
        if self.answer is None:
            raise UnavailableError("no agent answers", "start it")
        return self.answer

    def vcpus(self, uuid: str | None = None) -> VcpuStatus:
        if self.vcpu_answer is None:
            raise UnavailableError("this agent does not look at vCPUs")
        return self.vcpu_answer if uuid is None else vcpu_answers.of_vm(self.vcpu_answer, uuid)

    def vcpu_summary(self) -> VcpuSummary:
        return vcpu_answers.summary(self.vcpus(), WALL_S + 2)

    def explain(self, vm: str) -> Explanation:
        newest = self.status().interval
        assert newest is not None
        found = newest.snapshot.guests[0]
        return Explanation(7, WALL_S, False, False, found, newest.plan.guests[0], (), (), self.learned)

    def set_policy(self, vm: str, changes: Mapping[str, Any]) -> PolicySet:
        self.asked.append(("set_policy", vm, dict(changes)))
        return PolicySet(WEB.uuid, "web", replace(GuestPolicy(), shares=2000, floor_bytes=100 * MIB))

    def hold(self, vm: str, seconds: float | None) -> PolicySet:
        self.asked.append(("hold", vm, seconds))
        return PolicySet(WEB.uuid, "web", GuestPolicy(hold_until_s=1e18 if seconds is None else WALL_S))

    def balloon(self, vm: str, size_bytes: int) -> Outcome:
        self.asked.append(("balloon", vm, size_bytes))
        return self.outcome

    def release(self, vm: str | None) -> GivenBack:
        self.asked.append(("release", vm))
        return self.given

    def freeze(self, on: bool) -> FreezeState:
        self.asked.append(("freeze", on))
        return FreezeState(on)


def stand_in_agent(patch: pytest.MonkeyPatch) -> StandInAgent:
    """The stand-in, where the commands look for the agent; the wall clock stands just after its data."""
    stand_in = StandInAgent()
    patch.setattr(agent_access, "client", lambda args: stand_in)
    patch.setattr(status_command.time, "time", lambda: WALL_S + 2)
    patch.setenv("COLUMNS", "100")
    return stand_in


def told(arguments: list[str], capsys: pytest.CaptureFixture[str], code: int = 0) -> str:
    """What the command printed; it must end with this code."""
    assert main(arguments) == code
    return capsys.readouterr().out
