"""libvirt in trouble while guests are packed: killed, hung, back; the guests must not notice."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.agent_process import AgentProcess, balloon_bytes, make_whole, nominal_bytes, packed, whole
from tests.waiting import PATIENCE_S, eventually
from vmpack.lab.guest_spec import GuestSpec
from vmpack.lab.lab import Lab, LabGuest
from vmpack.units import MIB


@pytest.fixture(scope="module")
def own_lab() -> Iterator[Lab]:
    """A lab whose libvirt may be killed: other tests share none of it."""
    with Lab.private() as private:
        yield private


@pytest.fixture(scope="module")
def guest(own_lab: Lab) -> LabGuest:
    """One guest; it ends with its lab."""
    (started,) = own_lab.start(GuestSpec("sturdy", memory_bytes=160 * MIB))
    own_lab.wait_ready()
    return started


@pytest.fixture
def agent(own_lab: Lab, guest: LabGuest, tmp_path: Path) -> Iterator[AgentProcess]:
    """An agent that has packed the guest; afterwards the guest is whole again."""
    with AgentProcess(tmp_path, own_lab.uri) as running:
        running.ready()
        eventually("the guest is packed", lambda: packed(guest))
        yield running
    make_whole(guest)


def failing(agent: AgentProcess) -> bool:
    """Does the agent say that its newest interval failed?"""
    return agent.client.status().last_error is not None


def test_libvirt_killed_and_back_costs_the_guests_nothing(
    own_lab: Lab, guest: LabGuest, agent: AgentProcess
) -> None:
    """A crash or an update of libvirt's daemon happens on every host; it must stay libvirt's own affair."""
    pid, alive_s = guest.pid, guest.control.ping()
    own_lab.kill_libvirt()
    eventually("the agent notices", lambda: failing(agent))
    assert guest.control.ping() > alive_s
    tries = agent.log.count("this interval failed")
    own_lab.restart_libvirt()
    eventually("the agent goes on", lambda: not failing(agent))
    agent.pass_turns(2)

    assert guest.pid == pid and packed(guest)
    assert agent.log.count("this interval failed") <= tries + 1 <= 3, agent.log
    assert agent.log.count("works again") == 1

    guest.control.load_tmpfs(60 * MIB, 5 * MIB)
    eventually("it still grows", lambda: balloon_bytes(guest) > nominal_bytes(guest) - 16 * MIB)
    assert guest.control.oom_kills() == 0
    assert agent.stop() == 0
    assert whole(guest) and "Traceback" not in agent.log


def test_stopped_while_libvirt_is_away_it_says_what_stays_and_how_to_get_it_back(
    own_lab: Lab, guest: LabGuest, agent: AgentProcess
) -> None:
    """Promise 2 cannot be kept without libvirt: then the administrator must know, and one command must do."""
    own_lab.kill_libvirt()
    eventually("the agent notices", lambda: failing(agent))
    try:
        assert agent.stop() == 1
    finally:
        own_lab.restart_libvirt()

    assert "memory stays packed" in agent.log and "vmpack release --all" in agent.log
    assert "Traceback" not in agent.log
    assert packed(guest)

    agent.restart()
    agent.ready()
    assert agent.stop() == 0
    assert whole(guest), agent.log


@pytest.mark.long
def test_a_hung_libvirt_is_said_and_survived(own_lab: Lab, guest: LabGuest, agent: AgentProcess) -> None:
    """libvirtd can hang for minutes on a sick disk; the agent must neither hang with it nor pile up calls."""
    pid = own_lab.libvirt_pid
    os.kill(pid, signal.SIGSTOP)
    try:
        eventually("the agent notices", lambda: failing(agent))
        said = agent.client.status().last_error
        assert said is not None and ("no answer" in said or "accepts no connection" in said), said
        assert guest.control.ping() > 0
        assert agent.client.explain(guest.name).guest.name == guest.name
    finally:
        os.kill(pid, signal.SIGCONT)
    eventually("the agent goes on", lambda: not failing(agent))
    agent.pass_turns(2)

    assert packed(guest) and "works again" in agent.log
    guest.control.load_tmpfs(60 * MIB, 5 * MIB)
    eventually("it still grows", lambda: balloon_bytes(guest) > nominal_bytes(guest) - 16 * MIB)
    assert guest.control.oom_kills() == 0
    assert agent.process.poll() is None


@pytest.mark.long
def test_an_agent_stopped_while_libvirt_hangs_ends_in_bounded_time(
    own_lab: Lab, guest: LabGuest, agent: AgentProcess
) -> None:
    """systemd would kill a service that does not stop, in the middle of whatever it does."""
    pid = own_lab.libvirt_pid
    os.kill(pid, signal.SIGSTOP)
    try:
        eventually("the agent notices", lambda: failing(agent))
        agent.process.send_signal(signal.SIGTERM)
        assert agent.process.wait(PATIENCE_S) == 1
    finally:
        os.kill(pid, signal.SIGCONT)

    assert "memory stays packed" in agent.log and "vmpack release --all" in agent.log
    assert packed(guest)
