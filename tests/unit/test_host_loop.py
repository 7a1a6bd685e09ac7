"""The loop: order, schedule, errors, observe mode."""

import dataclasses
import logging
from collections.abc import Callable, Sequence

import pytest
from tests import builders
from tests.host_doubles import FullDisk, HostInMemory, JumpingClock, PublisherNotes, make_loop, turns

from vmpack.decide.alarm import alarm
from vmpack.decide.memory import plan, remember
from vmpack.errors import HypervisorLostError
from vmpack.host.loop import CRASHES_MAX, Decision, Loop
from vmpack.model.glance import Glance, GuestGlance
from vmpack.model.host import HostSnapshot
from vmpack.model.plan import Plan, Remembered
from vmpack.model.settings import Settings
from vmpack.units import MIB


def idle_host(count: int = 2, stop_at_s: float = float("inf")) -> HostInMemory:
    """A host whose guests use little and can be packed."""
    guests = [builders.guest(f"g{number}", used=30) for number in range(count)]
    return HostInMemory(JumpingClock(stop_at_s), *guests)


def test_a_turn_packs_publishes_and_remembers() -> None:
    """The whole way, observe to publish, must be walked with one and the same values."""
    host, notes, disk = idle_host(), PublisherNotes(), FullDisk()
    loop = make_loop(host, notes, disk)

    first, second = turns(loop, 2, host.clock)

    assert host.moves and host.named("g0").balloon_bytes < 256 * MIB
    assert (first.number, second.number) == (1, 2)
    assert notes.intervals == [first, second]
    assert notes.before[0] == Remembered()
    assert notes.before[1] == disk.saved[0] == remember(first.plan, first.outcomes, first.snapshot.time_s)
    assert loop.status.interval is second


def test_observing_changes_nothing_and_remembers_no_deed() -> None:
    """Promise 1: in observe mode nothing changes, and later decisions must not believe it had."""
    host = idle_host()
    loop = make_loop(host, observe_only=True)

    made = turns(loop, 3, host.clock)

    assert host.plans == [] and not loop.acted
    assert all(interval.outcomes == () for interval in made)
    assert any(action.kind == "set_memory" for action in made[-1].plan.actions)
    assert all(known.asked_s is None for known in loop.remembered.guests.values())


def test_a_frozen_host_is_left_as_it_is() -> None:
    """`vmpack freeze` must stop changes in the very next turn."""
    host = idle_host()
    host.frozen = True
    loop = make_loop(host)

    interval = loop.turn()

    assert host.plans == [] and interval.outcomes == ()
    assert all(known.asked_s is None for known in loop.remembered.guests.values())


def test_a_failed_turn_is_said_once_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    """libvirt restarts happen: the agent must come back by itself without flooding the log."""
    host, notes = idle_host(stop_at_s=builders.NOW_S + 60), PublisherNotes()
    host.errors = [HypervisorLostError("libvirt is gone", "it is tried again") for _ in range(3)]
    loop = make_loop(host, notes)

    with caplog.at_level(logging.INFO):
        loop.run()

    said = [record.message for record in caplog.records if "libvirt is gone" in record.message]
    assert len(said) == 1 and "it is tried again" in said[0]
    assert sum("works again" in record.message for record in caplog.records) == 1
    assert notes.failures == 3
    assert loop.status.last_error is None and loop.status.interval is not None


def test_failures_back_off_and_never_stop_trying() -> None:
    """A dead libvirt must not be hammered, and must be found again within half a minute."""
    host = idle_host(stop_at_s=builders.NOW_S + 200)
    host.errors = [HypervisorLostError("gone") for _ in range(50)]
    loop = make_loop(host)

    loop.run()

    waits = host.clock.waits
    assert waits[:4] == [5.0, 10.0, 20.0, 30.0]
    assert max(waits) == 30.0 and len(waits) >= 8
    assert loop.status.last_error == "gone"


def test_turns_keep_their_rhythm() -> None:
    """Slow turns must not shift the schedule: drift would thin out the statistics unseen."""
    host = idle_host(stop_at_s=builders.NOW_S + 50)
    host.turn_takes_s = 1.5
    notes = PublisherNotes()

    make_loop(host, notes).run()

    begins = [interval.snapshot.time_s - 1.5 - builders.NOW_S for interval in notes.intervals]
    assert begins == [5.0 * turn for turn in range(10)]


def test_turns_that_were_missed_are_not_made_up_for() -> None:
    """After a long stall a burst of turns would see the same host again and again."""
    host = idle_host(stop_at_s=builders.NOW_S + 60)
    host.turn_takes_s = 12.0
    notes = PublisherNotes()

    make_loop(host, notes).run()

    begins = [interval.snapshot.time_s - 12.0 - builders.NOW_S for interval in notes.intervals]
    assert begins == [0.0, 15.0, 30.0, 45.0]


def defective_plan(snapshot: HostSnapshot, remembered: Remembered, settings: Settings) -> Plan:
    """A decision with a defect."""
    raise ZeroDivisionError("a defect")


def test_one_defect_is_survived_and_a_lasting_one_ends_the_agent() -> None:
    """A lasting defect must end the agent, so that the service manager can give memory back."""
    host = idle_host(stop_at_s=builders.NOW_S + 3600)
    loop = make_loop(host, decision=Decision(defective_plan, remember, alarm))

    with pytest.raises(ZeroDivisionError):
        loop.run()

    assert len(host.clock.waits) == CRASHES_MAX - 1
    assert loop.status.last_error == "ZeroDivisionError: a defect"


def test_a_full_disk_does_not_stop_the_loop(caplog: pytest.LogCaptureFixture) -> None:
    """Guests need their memory also when the state cannot be saved; said once, not every interval."""
    host, disk = idle_host(), FullDisk(failures=3)
    loop = make_loop(host, disk=disk)

    with caplog.at_level(logging.WARNING):
        made = turns(loop, 4, host.clock)

    assert len(made) == 4 and len(disk.saved) == 1
    assert sum("disk full" in record.message for record in caplog.records) == 1


def test_each_change_is_logged_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever reads the log must see what changed and why, without asking further."""
    host = idle_host(1)

    with caplog.at_level(logging.INFO):
        turns(make_loop(host), 2, host.clock)

    line = next(record.message for record in caplog.records if "->" in record.message)
    assert line.startswith("g0: 256 MiB -> ") and "done: " in line and "target" in line


def test_names_cannot_forge_log_lines(caplog: pytest.LogCaptureFixture) -> None:
    """A VM's owner picks its name; it must not be able to write log lines or steer a terminal."""
    host = HostInMemory(JumpingClock(), builders.guest("evil\n12:00 all is well\x1b[2J", used=30))

    with (
        caplog.at_level(logging.DEBUG, logger="vmpack"),
        caplog.at_level(logging.DEBUG, logger="vmpack.host.loop"),
    ):
        turns(make_loop(host), 2, host.clock)

    assert host.moves
    assert all(record.message.isprintable() for record in caplog.records)


def quiet_lines(records: Sequence[logging.LogRecord]) -> list[str]:
    """The summary lines at info level."""
    return [r.message for r in records if r.levelno == logging.INFO and r.message.startswith("1 VM, ")]


def test_quiet_times_are_told_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    """Someone who watches memory_coordinator must see that it lives, without a line per interval."""
    host = HostInMemory(JumpingClock(), builders.guest("g0", used=200))

    with caplog.at_level(logging.INFO):
        turns(make_loop(host, quiet_line_every=4), 9, host.clock)

    assert 2 <= len(quiet_lines(caplog.records)) <= 4


def test_new_settings_count_from_the_next_turn() -> None:
    """A reload must reach decisions, journal and schedule without a restart."""
    host, notes = idle_host(), PublisherNotes()
    loop = make_loop(host, notes)
    loop.turn()

    new = builders.settings(interval_s=7.0, calm_s=77.0)
    loop.reconfigure(new, observe_only=True)
    moves = len(host.plans)
    loop.turn()

    assert notes.settings == [builders.EAGER, new]
    assert loop.status.interval_s == 7.0 and loop.status.observe_only
    assert len(host.plans) == moves


def test_no_vms_are_no_trouble() -> None:
    """An empty host must be observed like any other."""
    host = idle_host(0)

    interval = make_loop(host).turn()

    assert interval.plan.actions == () and interval.plan.offer.packed_bytes == 0


def early_loop(host: HostInMemory, *glances: Glance) -> tuple[Loop, PublisherNotes]:
    """A loop that gets these glances one after the other, then nothing new."""
    notes, shown = PublisherNotes(), iter(glances)
    loop = make_loop(host, notes, glance=lambda: next(shown, Glance(None, {})))
    return loop, notes


def begins(notes: PublisherNotes) -> list[float]:
    """When the turns that went through began, in seconds after the start."""
    return [interval.snapshot.time_s - builders.NOW_S for interval in notes.intervals]


def test_a_need_that_rises_between_two_turns_is_served_at_once() -> None:
    """A guest that takes 10 MB/s would be out of memory before the next interval of five seconds."""
    host = idle_host(1, stop_at_s=builders.NOW_S + 9)
    calm, risen = (Glance(None, {"uuid-g0": GuestGlance(120 * MIB, usable * MIB)}) for usable in (48, 30))
    loop, notes = early_loop(host, calm, risen)

    loop.run()

    assert begins(notes) == [0, 2, 5]


def test_pressure_on_the_host_brings_a_turn_at_once_and_no_storm_of_turns() -> None:
    """A host near its end cannot wait for an interval; nor can it bear a turn for every alarm."""
    host = idle_host(1, stop_at_s=builders.NOW_S + 9)
    loop = make_loop(host, notes := PublisherNotes())
    for tenths in range(20, 27):
        host.clock.at(builders.NOW_S + tenths / 10, lambda: loop.wake("pressure"))

    loop.run()

    assert begins(notes) == [0, 2, 2.5, 3, 5]


def test_pressure_does_not_hammer_a_dead_libvirt() -> None:
    """Pressure calls every second, for hours: a libvirt that fails would be tried 25 times as often."""
    host, notes = idle_host(stop_at_s=builders.NOW_S + 300), PublisherNotes()
    host.errors = [HypervisorLostError("gone") for _ in range(500)]
    loop = make_loop(host, notes, glance=lambda: Glance(None, {}))
    for second in range(1, 300):
        host.clock.at(builders.NOW_S + second, lambda: loop.wake("pressure"))
        host.clock.at(builders.NOW_S + second, loop.nudge)

    loop.run()

    assert notes.failures == 12


def risen_once(host: HostInMemory) -> Callable[[], Glance]:
    """Glances of which the second shows that the guest takes memory, and so does every turn from then on."""
    looks = iter(range(1000))

    def glance() -> Glance:
        if next(looks) != 1:
            return Glance(None, {})
        (guest,) = host.guests.values()
        used = builders.guest(guest.name, balloon=guest.balloon_bytes // MIB, used=80, uuid=guest.uuid)
        host.guests = {guest.uuid: used}
        return Glance(None, {guest.uuid: GuestGlance(guest.balloon_bytes, 30 * MIB)})

    return glance


def early_lines(records: Sequence[logging.LogRecord], level: int) -> list[str]:
    """What was said of early turns at this level."""
    return [r.message for r in records if r.levelno == level and "came early" in r.message]


def test_the_log_says_why_a_turn_came_early(caplog: pytest.LogCaptureFixture) -> None:
    """A change between two intervals would look like a fault of the schedule."""
    host = HostInMemory(
        JumpingClock(builders.NOW_S + 4), builders.guest("web\x1b[2J", used=30, uuid="uuid-web")
    )

    with (
        caplog.at_level(logging.DEBUG, logger="vmpack"),
        caplog.at_level(logging.DEBUG, logger="vmpack.host.loop"),
    ):
        make_loop(host, glance=risen_once(host)).run()

    (said,) = early_lines(caplog.records, logging.INFO)
    assert (
        "came early, because free memory in the guest of web\N{REPLACEMENT CHARACTER}[2J fell from " in said
    )
    assert "to 30 MiB" in said
    moves = [record.message for record in caplog.records if "->" in record.message]
    assert caplog.messages.index(said) == caplog.messages.index(moves[1]) - 1


def test_an_early_turn_without_a_change_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Pressure may last for hours: a line for each of its turns would fill the log."""
    host = HostInMemory(JumpingClock(builders.NOW_S + 9), builders.guest("g0", used=200))
    loop = make_loop(host, notes := PublisherNotes())
    host.clock.at(builders.NOW_S + 2, lambda: loop.wake("tasks wait for memory"))

    with (
        caplog.at_level(logging.DEBUG, logger="vmpack"),
        caplog.at_level(logging.DEBUG, logger="vmpack.host.loop"),
    ):
        loop.run()

    assert begins(notes) == [0, 2, 5] and not notes.intervals[1].outcomes
    assert early_lines(caplog.records, logging.INFO) == []
    assert early_lines(caplog.records, logging.DEBUG) == [
        "this turn came early, because tasks wait for memory"
    ]


def test_a_glance_that_fails_waits_for_the_turn() -> None:
    """The cheap look must not end what it serves."""

    def broken() -> Glance:
        raise HypervisorLostError("gone", "later")

    host = idle_host(1, stop_at_s=builders.NOW_S + 9)
    loop = make_loop(host, notes := PublisherNotes(), glance=broken)

    loop.run()

    assert begins(notes) == [0, 5]


def test_a_defect_between_turns_does_not_end_the_agent(caplog: pytest.LogCaptureFixture) -> None:
    """One value that an alarm does not expect would orphan every VM of the host."""

    def defective_alarm(*_seen: object) -> None:
        raise ZeroDivisionError("a defect")

    host = idle_host(1, stop_at_s=builders.NOW_S + 14)
    decision = Decision(plan, remember, defective_alarm)
    loop = make_loop(host, notes := PublisherNotes(), decision=decision, glance=lambda: Glance(None, {}))

    loop.run()

    told = [record for record in caplog.records if record.exc_info]
    assert begins(notes) == [0, 5, 10] and loop.status.last_error is None
    assert len(told) == 1 and "please report it" in told[0].message


def test_a_frozen_host_is_not_glanced_at() -> None:
    """`vmpack freeze` promises calm from its own turn on: looks would bring turns that may change nothing."""
    host, looks = idle_host(1, stop_at_s=builders.NOW_S + 9), list[float]()

    def glance() -> Glance:
        looks.append(host.clock.now_s - builders.NOW_S)
        return Glance(None, {})

    loop = make_loop(host, notes := PublisherNotes(), glance=glance)

    def freeze() -> None:
        host.frozen = True
        loop.attempt()

    host.clock.at(builders.NOW_S + 2.5, freeze)

    loop.run()

    assert begins(notes) == [0, 2.5, 5] and looks == [1, 2]


def test_a_guest_that_killed_something_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """A process that died in a guest must not stay a secret of the journal."""
    host = idle_host(1)
    loop = make_loop(host)
    for count in (3, 3, 4, 4):
        host.guests = {"uuid-g0": dataclasses.replace(host.named("g0"), oom_kills=count)}
        turns(loop, 1, host.clock)

    told = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(told) == 1 and "g0: its guest killed a process" in told[0] and "60 min" in told[0]
    assert host.named("g0").balloon_bytes == 256 * MIB
