"""Things happen to a VM in the very moment between looking at it and changing it; only that VM may notice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import libvirt
import pytest

from tests.real.agent_process import QUICK, balloon_bytes, nominal_bytes, packed, stats_period_set, whole
from tests.real.patched_agent import PatchedAgent
from tests.waiting import eventually
from vmpack.errors import GuestGoneError
from vmpack.lab.guest_spec import GuestSpec
from vmpack.lab.lab import Lab, LabGuest
from vmpack.units import KIB, MIB

FORGETFUL = QUICK + "learned_floor_s = 3\n"
"""A guest that is reset in the middle of a shrink seems to have stopped short, and to be at its floor."""
SPECS = {name: GuestSpec(name, memory_bytes=160 * MIB, stats_period_s=1) for name in ("victim", "bystander")}


@pytest.fixture(scope="module")
def guests(lab: Lab) -> Iterator[list[LabGuest]]:
    """The VM that things happen to, and another one."""
    started = lab.start(*SPECS.values())
    lab.wait_ready()
    yield started
    for guest in started:
        guest.destroy()


@pytest.fixture(scope="module")
def agent(
    lab: Lab, guests: list[LabGuest], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PatchedAgent]:
    """One agent for the whole file: it has to live through all of it."""
    folder = tmp_path_factory.mktemp("agent")
    with PatchedAgent("tests.real.meddling_agent", folder, lab.uri, config=FORGETFUL) as running:
        running.ready()
        yield running


def again(lab: Lab, victim: LabGuest, saved: Path) -> None:
    """Have the victim run again, whatever was done to it."""
    try:
        state = victim.domain.state()[0]
        if state == libvirt.VIR_DOMAIN_PAUSED:
            victim.domain.resume()
        elif state == libvirt.VIR_DOMAIN_PMSUSPENDED:
            victim.domain.pMWakeup(0)
    except GuestGoneError:
        if saved.exists():
            lab.hypervisor.connection().restore(str(saved))
        else:
            lab.start(SPECS[victim.name])
    lab.wait_ready()
    eventually("it answers", lambda: victim.control.ping() > 0)


REFUSED = {
    "shrink nominal": "Requested operation is not valid: cannot resize the maximum memory on an active domain"
}
LATER = pytest.mark.long


@pytest.mark.parametrize(
    ("deed", "said"),
    [
        ("destroy", "gone"),
        ("pause", ""),
        pytest.param("save", "gone", marks=LATER),
        pytest.param("save meanwhile", "", marks=LATER),
        pytest.param("snapshot", "", marks=LATER),
        pytest.param("reset", "", marks=LATER),
        pytest.param("sleep", "", marks=LATER),
        pytest.param("shrink nominal", "", marks=LATER),
        pytest.param("stop statistics", "", marks=LATER),
    ],
)
def test_what_happens_to_one_vm_costs_no_other_its_interval(
    deed: str, said: str, lab: Lab, guests: list[LabGuest], agent: PatchedAgent, tmp_path: Path
) -> None:
    """VMs are stopped, saved and restarted all day, and some of it falls between a look and a change."""
    victim, bystander = guests
    done, saved = agent.log_path.with_name("done.json"), tmp_path / "saved"
    agent.client.freeze(True)
    for guest in guests:
        guest.domain.setMemory(nominal_bytes(guest) // KIB)
    eventually("both are whole", lambda: all(whole(guest) for guest in guests))
    said_before = len(agent.log)
    done.unlink(missing_ok=True)
    agent.order({"deed": deed, "uuid": victim.uuid, "to": str(saved)})
    agent.client.freeze(False)
    eventually("it is done", done.exists)
    eventually("the other one is packed all the same", lambda: packed(bystander))
    agent.pass_turns(2)
    told = agent.log[said_before:]
    again(lab, victim, saved)
    eventually("the victim is served again", lambda: packed(victim))

    assert "this interval failed" not in agent.log and "Traceback" not in agent.log
    assert said in told
    assert json.loads(done.read_text()) == REFUSED.get(deed, "ok")
    assert balloon_bytes(victim) >= 80 * MIB
    assert victim.control.oom_kills() == bystander.control.oom_kills() == 0


@pytest.mark.long
def test_a_vm_that_comes_back_under_another_name_is_served_under_it(
    lab: Lab, guests: list[LabGuest], agent: PatchedAgent, tmp_path: Path
) -> None:
    """A decision meant for the old name falls on a guest that only begins to boot: it must do no harm."""
    victim, bystander = guests
    uuid, done = victim.uuid, agent.log_path.with_name("done.json")
    agent.client.freeze(True)
    for guest in guests:
        guest.domain.setMemory(nominal_bytes(guest) // KIB)
    eventually("both are whole", lambda: all(whole(guest) for guest in guests))
    done.unlink(missing_ok=True)
    agent.order({"deed": "rename", "uuid": uuid, "to": "renamed"})
    agent.client.freeze(False)
    eventually("it is done", done.exists)
    eventually("the other one is packed all the same", lambda: packed(bystander))
    eventually("it has booted", lambda: victim.control.ping() > 0)
    domain = lab.hypervisor.connection().lookupByUUIDString(uuid)
    eventually("it is packed", lambda: domain.info()[2] < domain.info()[1])
    agent.pass_turns(2)
    seen = agent.client.explain("renamed")
    kills = victim.control.oom_kills()
    domain.destroy()
    again(lab, victim, tmp_path / "saved")
    eventually("the victim is served again", lambda: packed(victim))

    assert json.loads(done.read_text()) == "ok"
    assert (seen.guest.uuid, kills) == (uuid, 0)
    assert "this interval failed" not in agent.log and "Traceback" not in agent.log


def test_nothing_is_left_behind_after_all_that(agent: PatchedAgent, guests: list[LabGuest]) -> None:
    """What is remembered of VMs that are gone would be given to others, or kept from them, for ever."""
    eventually("all statistics are on", lambda: all(stats_period_set(guest) for guest in guests))
    agent.pass_turns(2)
    interval = agent.client.status().interval

    assert interval is not None
    assert set(interval.plan.remembered.guests) == {guest.uuid for guest in guests}
    assert agent.stop() == 0
    assert all(whole(guest) for guest in guests), agent.log
