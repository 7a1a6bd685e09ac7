"""The agent's right to pin vCPUs: waited for where another program has it, on libvirt's own test driver."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.pinned_host import EVERYWHERE, PinnedHost
from tests.waiting import eventually

from vmpack.config import Config, load
from vmpack.errors import AlreadyRunningError
from vmpack.host.state import State
from vmpack.host.vcpus import VcpuKeeper, keeper_beside, vcpu_lock
from vmpack.model.settings import VcpuSettings
from vmpack.model.vcpu import VcpuStatus
from vmpack.observe.topology import TopologyReader


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[PinnedHost]:
    """This machine has libvirt's CPUs, and locks of its own; vCPU 0 was pinned by the scheduler."""
    monkeypatch.setattr(TopologyReader, "online", lambda _self: EVERYWHERE)
    monkeypatch.setattr("vmpack.host.lock.default_run_dir", lambda: tmp_path / "run")
    made = PinnedHost()
    made.carry_out(made.change("vcpu", 0, (), (2,)))
    yield made
    made.close()


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """An agent's that looks at vCPUs every few milliseconds, and puts pins back at its end."""
    vcpu = VcpuSettings(mode="balance", interval_s=0.01)
    return dataclasses.replace(
        load([]), connect_uri="test:///default", state_dir=tmp_path / "state", vcpu=vcpu, release_on_stop=True
    )


class Beside:
    """An agent's keeper, with what its turns said of themselves."""

    def __init__(self, config: Config, at_end: ExitStack) -> None:
        self.told: list[VcpuStatus] = []
        keeper = keeper_beside(config, State(config.state_dir), self.told.append, at_end)
        assert keeper is not None
        self.keeper: VcpuKeeper = keeper

    def says_of_the_other(self) -> bool:
        """The newest turn failed, and said why."""
        return bool(self.told) and "an agent or vcpu_scheduler" in (self.told[-1].last_error or "")


def test_an_agent_that_starts_beside_a_scheduler_begins_when_that_ends(
    host: PinnedHost, config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    """vCPUs would be left alone until somebody restarts the agent, long after the other program ended."""
    identity = host.hypervisor.identity()
    with ExitStack() as at_end, caplog.at_level(logging.INFO, "vmpack"):
        with vcpu_lock(identity):
            beside = Beside(config, at_end)
            beside.keeper.start()
            at_end.callback(beside.keeper.ask_to_stop)
            eventually("it has tried again", lambda: len(beside.told) > 2 and beside.says_of_the_other())
        eventually("it has the right", lambda: not beside.says_of_the_other())
        with pytest.raises(AlreadyRunningError):
            vcpu_lock(identity).take()
        beside.keeper.ask_to_stop()
        assert beside.keeper.end()

    said = [record for record in caplog.records if "an agent or vcpu_scheduler" in record.getMessage()]
    assert len(said) == 1
    assert host.pins() == ()
    with vcpu_lock(identity):
        pass


def test_an_agent_that_never_had_the_right_takes_no_pin_off(host: PinnedHost, config: Config) -> None:
    """The end of an agent would undo what a `vcpu_scheduler` beside it has pinned and goes on to count on."""
    pinned = host.pins()
    with vcpu_lock(host.hypervisor.identity()), ExitStack() as at_end:
        beside = Beside(config, at_end)
        beside.keeper.start()
        eventually("it has tried", beside.says_of_the_other)
        beside.keeper.ask_to_stop()
        assert beside.keeper.end()

    assert host.pins() == pinned != ()


def test_one_that_only_observes_needs_no_right(host: PinnedHost, config: Config) -> None:
    """`vcpu_scheduler --observe` could not tell what it would do beside an agent that pins."""
    keeper = VcpuKeeper(config, lambda: False, beside_others=True)
    with vcpu_lock(host.hypervisor.identity()):
        keeper.take()
    keeper.hypervisor.close()


def test_an_agent_without_vcpus_takes_off_what_a_killed_one_left(host: PinnedHost, config: Config) -> None:
    """With vcpu.mode = off, VMs would stay where a killed agent pinned them; or lose a scheduler's pins."""
    off = dataclasses.replace(config, vcpu=VcpuSettings(mode="off"))
    with ExitStack() as at_end:
        with vcpu_lock(host.hypervisor.identity()):
            assert keeper_beside(off, State(off.state_dir), lambda _: None, at_end) is None
        assert host.pins() != ()
        assert keeper_beside(off, State(off.state_dir), lambda _: None, at_end) is None
    assert host.pins() == ()
