"""Migration between two hosts that each have an agent: neither touches the VM on its way, both count it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.agent_process import AgentProcess, balloon_bytes, packed, stats_period_set, whole
from tests.real.conftest import BootOn
from tests.real.migrants import ONE_VCPU, SLOW, Underway, migrate
from tests.waiting import eventually
from vmpack.host.client import AgentClient
from vmpack.lab.guest_spec import GuestSpec
from vmpack.lab.lab import LabGuest
from vmpack.lab.pair import Pair
from vmpack.model.guest import GuestSnapshot
from vmpack.model.interval import Interval
from vmpack.publish.journal import JournalLine
from vmpack.replay.segments import read_segments
from vmpack.units import MIB

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(os.geteuid() != 0, reason="a pair of hosts needs root"),
]


@pytest.fixture
def agents(pair: Pair, tmp_path: Path) -> Iterator[tuple[AgentProcess, AgentProcess]]:
    """An agent on each host."""
    folders = tmp_path / "a", tmp_path / "b"
    for folder in folders:
        folder.mkdir()
    with AgentProcess(folders[0], pair.a.uri) as a, AgentProcess(folders[1], pair.b.uri) as b:
        a.ready()
        b.ready()
        yield a, b


def newest(client: AgentClient) -> Interval:
    interval = client.status().interval
    assert interval is not None
    return interval


def seen(client: AgentClient, name: str) -> GuestSnapshot | None:
    """The VM in the agent's newest snapshot."""
    return next((guest for guest in newest(client).snapshot.guests if guest.name == name), None)


def stands_still(guest: LabGuest, agent: AgentProcess) -> bool:
    """Has the agent nothing more to do, and does libvirt, whose figure travels, know the balloon of now?"""
    interval, known = newest(agent.client), seen(agent.client, guest.name)
    holds = all(plan.verdict == "hold" for plan in interval.plan.guests)
    return bool(known and holds and known.balloon_bytes == balloon_bytes(guest))


def journal(agent: AgentProcess) -> list[JournalLine]:
    return [r for r in read_segments(agent.state_dir / "journal") if isinstance(r, JournalLine)]


def test_neither_agent_touches_a_vm_on_its_way(
    pair: Pair, boot_on: BootOn, agents: tuple[AgentProcess, AgentProcess]
) -> None:
    """An order to a VM in migration blocks until its end and is then lost, and the loop with it."""
    source, destination = agents
    (guest,) = boot_on(pair.a, GuestSpec("mover", memory_bytes=160 * MIB, vcpus=ONE_VCPU))
    eventually("it is packed", lambda: packed(guest))
    eventually("it stands still", lambda: stands_still(guest, source))
    journey = Underway(pair.a, migrate(guest, pair.b, bandwidth=SLOW)).moving()

    leaving = eventually(
        "the source sees it leave", lambda: (g := seen(source.client, "mover")) and g.job and g
    )
    assert leaving.job == "migration out"
    coming = eventually("the destination sees it", lambda: seen(destination.client, "mover"))
    assert (coming.job, coming.state) == ("migration in", "paused")
    assert newest(destination.client).snapshot.unreadable == ()
    at_source, at_destination = source.turns(), destination.turns()
    source.pass_turns(4)
    destination.pass_turns(4)
    assert seen(destination.client, "mover"), "it was on its way all the time"
    last_out, last_in = source.turns(), destination.turns()
    outcome = journey.hurry().outcome()

    assert outcome.status == "done" and outcome.warnings == (), outcome
    for agent, first, last in ((source, at_source, last_out), (destination, at_destination, last_in)):
        held = [line for line in journal(agent) if first <= line.number <= last]
        assert held and all(not line.plan.actions for line in held)
        assert {guest.verdict for line in held for guest in line.plan.guests} == {"excluded"}
    during = next(line for line in journal(destination) if line.number == at_destination)
    counted = sum(guest.balloon_bytes for guest in during.snapshot.guests)
    assert counted == coming.balloon_bytes == outcome.balloon_before_bytes

    eventually("the source forgets it", lambda: seen(source.client, "mover") is None)
    there = pair.b.guest("mover")
    arrived = eventually(
        "it is one of the destination's", lambda: (g := seen(destination.client, "mover")) and not g.job and g
    )
    assert arrived.state == "running"
    _is_packed_and_given_back(there, destination)


def _is_packed_and_given_back(there: LabGuest, destination: AgentProcess) -> None:
    """The destination's agent treats the newcomer as any other VM."""
    at_bytes = balloon_bytes(there)
    there.control.load_tmpfs(40 * MIB)
    eventually("it gets memory", lambda: balloon_bytes(there) > at_bytes + 16 * MIB)
    there.control.free()
    eventually("it is packed again", lambda: packed(there))
    assert destination.stop() == 0
    assert whole(there), destination.log
    assert "Traceback" not in destination.log


def test_a_migration_in_the_middle_of_the_sources_work_breaks_nothing(
    pair: Pair, boot_on: BootOn, agents: tuple[AgentProcess, AgentProcess]
) -> None:
    """Whoever moves VMs knows nothing of intervals: it begins while a balloon is on its way."""
    source, destination = agents
    (guest,) = boot_on(pair.a, GuestSpec("mover", memory_bytes=160 * MIB, vcpus=ONE_VCPU))
    eventually("it is packed", lambda: packed(guest))
    at_bytes = balloon_bytes(guest)
    guest.control.load_tmpfs(40 * MIB)
    eventually("its balloon moves", lambda: balloon_bytes(guest) > at_bytes)
    journey = Underway(pair.a, migrate(guest, pair.b, bandwidth=SLOW)).moving()
    source.pass_turns(3)
    journey.stop()
    outcome = journey.outcome()

    assert outcome.status == "aborted", outcome
    assert source.client.status().last_error is None
    guest.control.free()
    eventually("the loop goes on with it", lambda: packed(guest))
    assert stats_period_set(guest)
    eventually("the destination is empty", lambda: seen(destination.client, "mover") is None)
    assert newest(destination.client).snapshot.unreadable == ()
    assert source.stop() == 0 and whole(guest), source.log
    assert "Traceback" not in source.log + destination.log
