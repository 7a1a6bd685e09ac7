"""The vCPU loop over doubles: what it does with a plan, and what it must not do."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import pytest
from tests.host_doubles import JumpingClock
from tests.vcpu_hosts import INTERVAL_S, Vcpu, pcpus, snapshot, vm

from vmpack.decide.vcpu.plan import plan, remember
from vmpack.errors import AlreadyRunningError, HypervisorLostError
from vmpack.host.vcpu_loop import VcpuLoop
from vmpack.model.settings import VcpuSettings
from vmpack.model.vcpu import AffinityOutcome, AffinityStatus, VcpuPlan, VcpuSnapshot, VmVcpus


class Host:
    """Four busy VMs on one of two pCPUs; carries out what it is asked, or says that it did not."""

    def __init__(self, status: AffinityStatus = "done") -> None:
        self.vms: Sequence[VmVcpus] = [vm(f"v{n}", Vcpu(1.0, (0,))) for n in range(4)]
        self.looks = -1
        self.plans: list[VcpuPlan] = []
        self.frozen = self.is_lost = False
        self.cpus = pcpus(2)
        self._status = status

    def observe(self) -> VcpuSnapshot:
        """See VcpuSource."""
        if self.is_lost:
            raise HypervisorLostError("libvirt is gone", "start it")
        self.looks += 1
        seen = snapshot(self.cpus, self.vms, self.looks)
        return VcpuSnapshot(seen.time_s, seen.wall_s, seen.pcpus, seen.vms, self.frozen)

    def carry_out(self, decided: VcpuPlan) -> tuple[AffinityOutcome, ...]:
        """See Pinner."""
        self.plans.append(decided)
        return tuple(AffinityOutcome(action, self._status) for action in decided.actions)


def loop_on(host: Host, observe_only: bool = False, permit: Callable[[], None] = lambda: None) -> VcpuLoop:
    return VcpuLoop(
        clock=JumpingClock(),
        source=host,
        pinner=host,
        plan=plan,
        remember=remember,
        settings=VcpuSettings(mode="balance", interval_s=INTERVAL_S),
        observe_only=observe_only,
        permit=permit,
    )


def turns(loop: VcpuLoop, count: int) -> None:
    for _ in range(count):
        loop.turn()


def test_what_is_decided_is_done_and_told() -> None:
    """The scheduler would only talk."""
    host = Host()
    loop = loop_on(host)
    turns(loop, 2)

    assert len(host.plans) == 1 and len(loop.status.changed) == 2
    assert loop.status.interval is not None and len(loop.status.interval.outcomes) == 2


@pytest.mark.parametrize("how", ["observing", "frozen"])
def test_nothing_is_changed_while_that_is_forbidden(how: str) -> None:
    """Promise 1: an administrator who only looks finds his pins changed."""
    host = Host()
    host.frozen = how == "frozen"
    loop = loop_on(host, observe_only=how == "observing")
    turns(loop, 6)

    assert host.plans == [] and loop.status.changed == ()


def test_a_plan_that_was_not_carried_out_is_still_the_best_one() -> None:
    """`--observe` would advise another, worse plan a moment later."""
    host = Host()
    loop = loop_on(host, observe_only=True)
    planned = []
    for _ in range(5):
        planned.append(loop.turn().plan.actions)

    made = [actions for actions in planned if actions]
    assert len(made) >= 2 and len({tuple(a.name for a in actions) for actions in made}) == 1


def test_observing_takes_effect_at_the_next_turn() -> None:
    """SIGHUP with observe_only = true would go on pinning."""
    host = Host()
    loop = loop_on(host)
    loop.turn()
    loop.reconfigure(observe_only=True)
    loop.turn()

    assert host.plans == [] and loop.status.observe_only


def test_what_failed_is_not_tried_again_at_once() -> None:
    """A VM that refuses would fill the log every ten seconds."""
    host = Host("failed")
    loop = loop_on(host)
    turns(loop, 6)

    tried = [action.name for decided in host.plans for action in decided.actions]
    assert tried and len(set(tried)) == len(tried)


def test_a_turn_without_pcpus_fails_and_touches_nothing() -> None:
    """A /sys that cannot be read for a moment would take every pin off."""
    host = Host()
    loop = loop_on(host)
    loop.turn()
    host.cpus = ()

    assert not loop.attempt()
    assert loop.status.last_error and "reserve fewer" in loop.status.last_error
    assert host.plans == []


def test_a_failure_is_said_once_and_its_end_too(caplog: pytest.LogCaptureFixture) -> None:
    """A libvirt that is away for an hour would write the same line 360 times."""
    host = Host()
    loop = loop_on(host)
    host.is_lost = True
    with caplog.at_level(logging.INFO, "vmpack"):
        assert [loop.attempt() for _ in range(3)] == [False] * 3
        host.is_lost = False
        assert loop.attempt()

    assert sum("libvirt is gone" in record.getMessage() for record in caplog.records) == 1
    assert any("works again" in record.getMessage() for record in caplog.records)


def test_nothing_is_looked_at_or_pinned_before_it_is_permitted() -> None:
    """Two programs would pin the same vCPUs to and fro; or one that may not would never try again."""
    host, refusals = Host(), [AlreadyRunningError("another one has these vCPUs")] * 3

    def permit() -> None:
        if refusals:
            raise refusals.pop()

    loop = loop_on(host, permit=permit)
    assert [loop.attempt() for _ in range(3)] == [False] * 3
    assert host.looks == -1 and loop.status.last_error == "another one has these vCPUs"
    assert [loop.attempt() for _ in range(2)] == [True] * 2
    assert host.looks == 1 and len(host.plans) == 1 and loop.status.last_error is None
