"""When what was learned is written into VMs' metadata, and when it is taken out."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import pytest
from tests import builders
from tests.host_doubles import HostInMemory, JumpingClock, make_loop, make_service, turns

from vmpack.errors import GuestBusyError, GuestGoneError
from vmpack.host.lessons import LOOK_EVERY_S, MOST_WRITES, Lessons
from vmpack.host.loop import Loop
from vmpack.host.state import State
from vmpack.model.learned import Learned
from vmpack.model.plan import Remembered, Rises
from vmpack.units import MIB

WALL_LESS_TIME_S = 1_700_000_000.0
RISES = Rises((*[0.0] * 20, 5.0), builders.NOW_S - 3600, builders.NOW_S)


def host_of(count: int) -> HostInMemory:
    return HostInMemory(JumpingClock(), *(builders.guest(f"g{number}") for number in range(count)))


def teach(loop: Loop, rises: Rises | None = RISES) -> None:
    """All VMs have risen a while ago."""
    known = {
        uuid: guest._replace(use=guest.use._replace(rises=rises))
        for uuid, guest in loop.remembered.guests.items()
        if guest.use is not None
    }
    loop.remembered = dataclasses.replace(loop.remembered, guests=known)


def test_what_was_learned_is_written_by_the_wall_clock() -> None:
    """The next host's clock since boot is another: ages would be taken for the future."""
    host = host_of(1)
    loop = make_loop(host)
    turns(loop, 1, host.clock)
    assert host.learned == {}
    teach(loop)
    host.clock.now_s += LOOK_EVERY_S
    turns(loop, 1, host.clock)

    written = host.learned["uuid-g0"]
    assert written is not None
    assert written.written_s == pytest.approx(host.clock.now_s - 5.0 + WALL_LESS_TIME_S)
    assert written.nominal_bytes == 256 * MIB and len(written.counts) == 21


def test_a_vm_is_written_to_at_most_every_ten_minutes_and_only_with_news() -> None:
    """A thousand VMs would cost the host a write each, in every interval."""
    host = host_of(1)
    loop = make_loop(host)
    turns(loop, 1, host.clock)
    host.clock.now_s += LOOK_EVERY_S
    teach(loop)
    turns(loop, 1, host.clock)
    teach(loop, RISES._replace(counts=(*RISES.counts, *[0.0] * 8, 9.0)))
    turns(loop, 100, host.clock)
    assert host.learned_writes == ["uuid-g0"]
    turns(loop, 30, host.clock)
    assert host.learned_writes == ["uuid-g0"] * 2
    turns(loop, 400, host.clock)
    assert len(host.learned_writes) < 6


def test_few_vms_are_written_to_in_one_turn() -> None:
    """After the agent's start guests in need would wait for a hundred writes."""
    host = host_of(8)
    loop = make_loop(host)
    turns(loop, 1, host.clock)
    host.clock.now_s += LOOK_EVERY_S
    teach(loop)
    turns(loop, 1, host.clock)
    assert len(host.learned_writes) == MOST_WRITES
    turns(loop, 2, host.clock)
    assert sorted(host.learned_writes) == [f"uuid-g{number}" for number in range(8)]


@pytest.mark.parametrize("why", ["observing", "frozen"])
def test_who_may_change_nothing_writes_nothing(why: str) -> None:
    """Promise 1: in observe mode nothing changes; nor while the host is frozen."""
    host = host_of(1)
    host.frozen = why == "frozen"
    loop = make_loop(host, observe_only=why == "observing")
    turns(loop, 1, host.clock)
    teach(loop)
    host.clock.now_s += LOOK_EVERY_S
    turns(loop, 3, host.clock)

    assert host.learned_writes == []


def test_a_vm_with_a_job_is_not_written_to() -> None:
    """The write would wait for the migration's end, and the agent with it."""
    host = host_of(1)
    loop = make_loop(host)
    turns(loop, 1, host.clock)
    teach(loop)
    host.guests = {uuid: dataclasses.replace(guest, job="migration") for uuid, guest in host.guests.items()}
    host.clock.now_s += LOOK_EVERY_S
    turns(loop, 3, host.clock)

    assert host.learned_writes == []


def test_a_vm_that_does_not_answer_costs_no_turn_and_is_asked_again_later() -> None:
    """One hung QEMU would end every interval of its host with an error."""
    host = host_of(1)
    loop = make_loop(host)
    turns(loop, 1, host.clock)
    teach(loop)
    host.refuses_learned = True
    host.clock.now_s += LOOK_EVERY_S
    turns(loop, 3, host.clock)
    assert loop.status.last_error is None and host.learned_writes == []
    host.refuses_learned = False
    host.clock.now_s += LOOK_EVERY_S
    turns(loop, 1, host.clock)
    assert host.learned_writes == ["uuid-g0"]


def test_what_stands_in_the_metadata_is_not_written_again() -> None:
    """Each start of the agent would write to every VM."""
    host = host_of(1)
    interval_s = builders.settings().memory.interval_s
    known = Learned(builders.NOW_S, 256 * MIB, 3600.0, RISES.counts, interval_s=interval_s)
    host.guests = {uuid: dataclasses.replace(guest, learned=known) for uuid, guest in host.guests.items()}
    loop = make_loop(host)
    turns(loop, 200, host.clock)

    assert host.learned_writes == []
    (guest,) = loop.remembered.guests.values()
    assert guest.use is not None and guest.use.rises is not None


def test_before_an_action_of_the_cloud_it_is_brought_up_to_date(tmp_path: Path) -> None:
    """A VM that migrates would take what was known ten minutes ago, before the burst that moves it."""
    host = host_of(2)
    loop = make_loop(host)
    service = make_service(host, loop, tmp_path)
    turns(loop, 1, host.clock)
    teach(loop)
    service.set_policy("g1", {"shares": 500})
    assert host.learned_writes == []
    for until_s in (2e9, 2e9 + 10, None):
        service.set_policy("g1", {"action_until_s": until_s})
    assert host.learned_writes == ["uuid-g1"]
    host.frozen = True
    service.set_policy("g0", {"action_until_s": 2e9})
    assert host.learned_writes == ["uuid-g1"]


def test_releasing_all_leaves_nothing_in_the_vms(tmp_path: Path) -> None:
    """After an uninstallation each VM would carry our text for ever."""
    host = host_of(2)
    loop = make_loop(host)
    turns(loop, 1, host.clock)
    teach(loop)
    host.clock.now_s += LOOK_EVERY_S
    turns(loop, 1, host.clock)
    host.learned["uuid-of-one-that-is-off"] = host.learned["uuid-g0"]
    service = make_service(host, loop, tmp_path)
    service.release("g0")
    assert all(host.learned.values())
    service.release(None)

    assert len(host.learned) == 3 and not any(host.learned.values())


def test_what_cannot_be_taken_out_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """An administrator would believe that nothing is left."""
    host = host_of(1)
    host.learned = {"uuid-g0": Learned(0.0, 1, 0.0, (1.0,))}
    host.refuses_learned = True
    with caplog.at_level(logging.WARNING):
        Lessons(host).forget_all()

    assert "stays in their metadata" in caplog.text


def test_one_vm_that_fails_keeps_nothing_in_the_others(caplog: pytest.LogCaptureFixture) -> None:
    """After an uninstallation all VMs behind a hung one, or one that just ended, would carry our text."""

    class HostWithTrouble(HostInMemory):
        def write_learned(self, uuid: str, learned: Learned | None) -> None:
            if uuid == "uuid-gone":
                raise GuestGoneError("it is gone")
            if uuid.startswith("uuid-hung"):
                raise GuestBusyError(f"{uuid} does not answer")
            super().write_learned(uuid, learned)

    host = HostWithTrouble(JumpingClock())
    uuids = ("uuid-gone", "uuid-hung-1", "uuid-hung-2", "uuid-well")
    host.learned = dict.fromkeys(uuids, Learned(0.0, 1, 0.0, (1.0,)))
    with caplog.at_level(logging.WARNING):
        Lessons(host).forget_all()

    assert host.learned["uuid-well"] is None
    (told,) = caplog.messages
    assert "2 times" in told and "uuid-hung-1" in told and "uuid-hung-2" in told and "gone" not in told


def test_a_restarted_agent_goes_on_with_what_was_learned(tmp_path: Path) -> None:
    """Each update of vmpack would make it a stranger to every VM of the host."""
    host = host_of(1)
    loop = make_loop(host)
    turns(loop, 1, host.clock)
    teach(loop)
    State(tmp_path, "boot-1").save(loop.remembered)
    kept = State(tmp_path, "boot-1").remembered()

    assert kept == loop.remembered
    (guest,) = kept.guests.values()
    assert guest.use is not None and guest.use.rises == RISES


def test_a_state_file_of_the_version_before_is_read(tmp_path: Path) -> None:
    """An update would set the state aside: what was taken from guests would be forgotten with it."""
    host = host_of(1)
    loop = make_loop(host)
    turns(loop, 1, host.clock)
    State(tmp_path, "boot-1").save(loop.remembered)
    path = tmp_path / "remembered.json"
    text = path.read_text()
    for field in ('"rises":null,', '"presses":0,', '"pressed_floor_bytes":0,', '"carried":null,'):
        assert field in text
        text = text.replace(field, "")
    path.write_text(text.replace('"pressed_floor_until_s":null,', ""))

    assert State(tmp_path, "boot-1").remembered() == loop.remembered != Remembered()
