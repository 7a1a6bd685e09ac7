"""Migrations between two hosts in memory: what is begun, what is refused, and what is claimed afterwards."""

from __future__ import annotations

import dataclasses
import itertools
import threading

import libvirt
import pytest
from tests.fake_hosts import (
    BALLOON,
    BARE_XML,
    NOMINAL,
    PAUSED,
    RUNNING,
    SHUTOFF,
    UUID,
    XML,
    Vm,
    World,
    moving_job,
)
from tests.fake_libvirt import error
from tests.migrations import ACTION, carry_out, without_waiting

from vmpack.act.migration import Migrator
from vmpack.act.migration_verdict import Sides, cure, judge, told
from vmpack.clock import SystemClock
from vmpack.hypervisor import MIGRATION_OUT, UNTOLD_JOB, translated
from vmpack.model.codec import dumps, loads
from vmpack.model.migration import MigrationOutcome, MigrationProgress, Presence
from vmpack.units import MIB

PRESENCES: tuple[Presence, ...] = ("running", "paused", "stopped", "absent", "unreachable")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting for hosts that never change."""
    without_waiting(monkeypatch)


def test_a_vm_that_arrived_is_done() -> None:
    """What programs build on: where it is, what it has, and how long it stood still."""
    outcome = carry_out(World())

    assert (outcome.status, outcome.source, outcome.destination) == ("done", "absent", "running")
    assert (outcome.downtime_ms, outcome.moved_bytes) == (77, 80 * MIB)
    assert outcome.balloon_before_bytes == outcome.balloon_bytes == BALLOON
    assert outcome.warnings == () and outcome.detail == ""
    assert loads(MigrationOutcome, dumps(outcome)) == outcome


@pytest.mark.parametrize("persistent", [False, True])
def test_a_definition_goes_along_where_there_is_one(persistent: bool) -> None:
    """A persistent VM is gone after its new host's next start, a transient one comes back twice."""
    world = World()
    world.vm.persistent = persistent
    carry_out(world)

    lasting = libvirt.VIR_MIGRATE_PERSIST_DEST | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
    assert world.sent[2] & lasting == (lasting if persistent else 0)


def test_what_was_asked_for_reaches_libvirt() -> None:
    """A bandwidth that is lost on the way would take the network from everybody."""
    world = World()
    action = dataclasses.replace(
        ACTION, bandwidth_bytes_per_s=20 * MIB + 5, migrate_uri="unix:///s", with_storage=True
    )
    carry_out(world, action)

    uri, parameters, flags = world.sent
    assert uri == "there" and flags & libvirt.VIR_MIGRATE_NON_SHARED_DISK
    assert parameters == {"bandwidth": 20, "migrate_uri": "unix:///s", "disks_uri": "unix:///s.disks"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: setattr(w.vm, "job", {"type": 1, "operation": 2}), "another job has it: save"),
        (lambda w: setattr(w.vm, "run_state", SHUTOFF), "does not run"),
        (lambda w: setattr(w.vm, "xml", XML % "<hostdev type='pci'/>"), "passed-through PCI device"),
        (lambda w: setattr(w.vm, "xml", XML % "<filesystem/>"), "folder shared with its host"),
        (lambda w: w.here.vms.clear(), "not on the source"),
        (lambda w: setattr(w.there, "uri", "here"), "the host that it runs on"),
        (lambda w: setattr(w.there, "down", True), "nothing answers"),
        (lambda w: setattr(w.here, "down", True), "nothing answers"),
        (lambda w: setattr(w.there, "free_bytes", 50 * MIB), "has 50 MiB free, it holds 112 MiB"),
        (
            lambda w: w.there.vms.update({f"u{n}": Vm(w.there, f"u{n}", f"n{n}") for n in range(8)}),
            "has 64 MiB to give (1 GiB less 64 MiB reserve and 896 MiB that its VMs hold), it holds 112 MiB",
        ),
        (lambda w: setattr(w.there, "total_bytes", 175 * MIB), "has 111 MiB to give"),
        (lambda w: w.there.vms.update({UUID: Vm(w.there)}), "this very uuid runs there"),
        (lambda w: w.there.vms.update({"u2": Vm(w.there, "u2")}), "another VM named web"),
    ],
)
def test_what_cannot_go_is_refused_and_nothing_is_begun(change, words) -> None:
    """An attempt that must fail costs the network, and with bad luck the VM."""
    world = World()
    change(world)
    outcome = carry_out(world)

    assert outcome.status == "skipped" and words in outcome.detail
    assert world.sent[0] == "" and outcome.source is None
    assert words in " ".join(Migrator("here", SystemClock(), connect=world.connect).refusals(ACTION))


def test_room_that_is_kept_by_nobody_is_taken() -> None:
    """VMs that do not run hold nothing: a host with many definitions would be called full."""
    world = World()
    for n in range(20):
        idle = world.there.vms[f"u{n}"] = Vm(world.there, f"u{n}", f"n{n}")
        idle.run_state = SHUTOFF
    world.there.total_bytes = 176 * MIB

    assert carry_out(world).status == "done"


def test_a_nominal_that_has_changed_is_refused() -> None:
    """The room at the destination was counted for another size."""
    outcome = carry_out(World(), dataclasses.replace(ACTION, nominal_bytes=2 * NOMINAL))

    assert outcome.status == "skipped" and "nominal has changed to 160 MiB" in outcome.detail


def test_a_stop_before_the_beginning_begins_nothing() -> None:
    """Who pressed Ctrl-C wants no migration to start after it."""
    world, clock = World(), SystemClock()
    clock.stop()

    assert carry_out(world, clock=clock).status == "skipped"
    assert world.sent[0] == ""


def test_a_budget_that_ends_aborts_with_the_numbers() -> None:
    """Without an end the VM could not get memory for hours; without numbers nobody knows what would help."""
    world, seen = World(), list[MigrationProgress]()
    world.journey = world.until_aborted
    action = dataclasses.replace(ACTION, timeout_s=0.1, max_downtime_ms=900)
    migrator = Migrator("here", SystemClock(), connect=world.connect)
    outcome = migrator.carry_out(action, seen.append)

    assert (outcome.status, outcome.source, outcome.destination) == ("aborted", "running", "absent")
    assert "100 MiB of 160 MiB were left, and the guest changed 2 MiB per second" in outcome.detail
    assert outcome.moved_bytes == 60 * MIB
    assert seen[0].iteration == 2 and seen[0].throttle_ratio == 0.2
    assert world.vm.downtimes_ms == [900]


def test_an_abort_that_does_not_help_claims_nothing() -> None:
    """libvirt may be in the last moment, or hang: "aborted" would be a guess."""
    world = World()

    def ignores() -> None:
        world.there.vms[UUID] = Vm(world.there)
        world.there.vms[UUID].run_state = PAUSED
        world.until_aborted()

    world.journey, world.on_abort = ignores, lambda: None
    outcome = carry_out(world, dataclasses.replace(ACTION, timeout_s=0.05))
    world.aborted.set()

    assert outcome.status == "unclear" and world.vm.aborts > 1
    assert "not done within" in outcome.detail and "runs" in outcome.detail
    assert "a job runs (migration out)" in outcome.hint and "domjobinfo" in outcome.hint
    assert "destroy" not in outcome.hint and "resume" not in outcome.hint


def test_a_refusal_by_libvirt_is_told_in_its_words() -> None:
    """Who is refused needs the reason, not only the news."""
    world = World()

    def refuse() -> None:
        raise error(libvirt.VIR_ERR_MIGRATE_UNSAFE)

    world.journey = refuse
    outcome = carry_out(world)

    assert outcome.status == "failed" and outcome.destination == "absent"
    assert "could not migrate web: what libvirt says" in outcome.detail


def test_who_comes_second_has_begun_nothing_and_is_told_so() -> None:
    """Told that it is unclear where the VM is, its owner might end the copy that the first one is sending."""
    world = World()

    def loses() -> None:
        world.there.vms[UUID] = Vm(world.there)
        world.there.vms[UUID].run_state = PAUSED
        world.vm.job = moving_job()
        raise error(libvirt.VIR_ERR_OPERATION_INVALID)

    class Patient(SystemClock):
        def wait(self, seconds: float) -> bool:
            for thread in threading.enumerate():
                if thread.name == f"migrate {UUID}":
                    thread.join()
            return super().wait(seconds)

    world.journey = loses
    action, seen = dataclasses.replace(ACTION, max_downtime_ms=900), list[MigrationProgress]()
    outcome = Migrator("here", Patient(), connect=world.connect).carry_out(action, seen.append)

    assert seen == [] and world.vm.downtimes_ms == [], "the first one's migration is not ours to set"
    assert (outcome.status, outcome.source, outcome.hint) == ("skipped", None, "")
    assert "another migration has it: could not migrate web" in outcome.detail


def test_a_refusal_after_a_wait_for_anothers_job_is_the_end_of_it() -> None:
    """libvirt gives up after 30 s; to follow another's migration as if it were ours would lie about it."""
    world = World()

    def waits_in_vain() -> None:
        world.vm.job = moving_job()
        with translated("migrate web"):
            raise error(libvirt.VIR_ERR_OPERATION_TIMEOUT)

    world.journey = waits_in_vain
    outcome = carry_out(world, dataclasses.replace(ACTION, timeout_s=60.0))

    assert outcome.status == "skipped" and world.vm.aborts == 0


def test_ctrl_c_leaves_the_job_alone_that_got_in_between() -> None:
    """A save or a backup that is aborted in the middle is lost, and its owner did not ask for that."""
    world, clock, gave_up = World(), SystemClock(), threading.Event()

    def waits() -> None:
        world.vm.job = moving_job() | {"operation": libvirt.VIR_DOMAIN_JOB_OPERATION_SAVE}
        clock.stop()
        assert gave_up.wait(60)

    world.journey = waits
    seen = list[MigrationProgress]()
    Migrator("here", clock, connect=world.connect).carry_out(ACTION, seen.append)
    gave_up.set()

    assert world.vm.aborts == 0 and seen == []


def test_another_jobs_numbers_are_not_the_migrations() -> None:
    """The downtime limit and the progress of a save that comes first would be taken for the migration's."""
    world, looked = World(), threading.Event()

    def waits() -> None:
        world.vm.job = moving_job() | {"operation": libvirt.VIR_DOMAIN_JOB_OPERATION_SAVE}
        world.on_job_stats = looked.set
        assert looked.wait(60)
        world.vm.job = {"type": 0}
        world.arrive()

    world.journey = waits
    seen = list[MigrationProgress]()
    action = dataclasses.replace(ACTION, max_downtime_ms=900)
    outcome = Migrator("here", SystemClock(), connect=world.connect).carry_out(action, seen.append)

    assert outcome.status == "done" and seen == [] and world.vm.downtimes_ms == []


def test_a_migration_goes_on_when_only_our_connection_is_lost() -> None:
    """libvirt moves the VM without us: to call it failed would be a lie a minute later."""
    world = World()

    class Ends(SystemClock):
        def wait(self, seconds: float) -> bool:
            if world.vm.job["type"]:
                world.vm.job = {"type": 0}
                world.arrive()
            return super().wait(seconds)

    world.journey = world.lose_the_caller
    outcome = carry_out(world, clock=Ends())

    assert outcome.status == "done"


def test_a_source_that_stays_away_is_said_plainly() -> None:
    """The VM may be anywhere: nobody may start it a second time on a guess."""
    world = World()

    def die() -> None:
        world.here.down = True
        world.lose_the_caller()

    world.journey = die
    outcome = carry_out(world)

    assert (outcome.status, outcome.source, outcome.destination) == ("unclear", "unreachable", "absent")
    assert "start or resume nothing before" in outcome.hint


def test_what_did_not_come_along_is_set_again() -> None:
    """A VM that forgot its policy would be packed below its floor by the next host's agent."""
    world = World()

    def forgets() -> None:
        world.arrive()
        world.there.vms[UUID].xml = BARE_XML

    world.journey = forgets
    outcome = carry_out(world)

    assert outcome.status == "done"
    (warning,) = outcome.warnings
    assert warning == "set again, for it did not come along: statistics period and policy"
    arrived = world.there.vms[UUID]
    assert arrived.periods == [2] and arrived.policies == ['<policy shares="2000" />']

    second = World()
    second.there.read_only = True
    second.journey = lambda: (second.arrive(), setattr(second.there.vms[UUID], "xml", BARE_XML))  # type: ignore[func-returns-value,assignment,return-value]
    outcome = carry_out(second)
    assert (
        outcome.status == "done"
        and "lost on the way, statistics period and policy: could not" in outcome.warnings[0]
    )


def test_a_definition_left_at_the_source_is_a_warning() -> None:
    """Started there by mistake, the VM would run twice."""
    world = World()

    def leaves_one() -> None:
        world.arrive()
        world.here.vms[UUID] = world.vm
        world.vm.run_state = SHUTOFF

    world.journey = leaves_one
    outcome = carry_out(world)

    assert outcome.status == "done" and "definition is still at the source" in outcome.warnings[0]


def test_a_paused_vm_is_expected_to_stay_paused() -> None:
    """One that runs after a move, which its owner had stopped, did not arrive as it was."""
    world = World()
    world.vm.run_state = PAUSED
    assert carry_out(world).status == "done"

    started = World()
    started.vm.run_state = PAUSED

    def starts() -> None:
        started.arrive()
        started.there.vms[UUID].run_state = RUNNING

    started.journey = starts
    assert carry_out(started).status == "unclear"


@pytest.mark.parametrize("source, destination", list(itertools.product(PRESENCES, PRESENCES)))
def test_no_pair_of_sights_is_claimed_to_be_more_than_it_is(source: Presence, destination: Presence) -> None:
    """Told that a VM stayed while it runs elsewhere, somebody starts it twice, and its disks are lost."""
    sides = Sides(source, destination)
    for expected in ("running", "paused"):
        verdict = judge(sides, expected)  # type: ignore[arg-type]
        if verdict == "arrived":
            assert destination == expected and source in ("absent", "stopped")
        elif verdict == "stayed":
            assert source == expected and destination == "absent"
    assert told(sides)
    advice = cure(sides, ACTION, "here", None)
    assert advice
    for job in (MIGRATION_OUT, UNTOLD_JOB):
        while_it_runs = cure(sides, ACTION, "here", job)
        assert "destroy" not in while_it_runs or source == destination == "running"
    for mine, other, uri in ((source, destination, "here"), (destination, source, "there")):
        starts = f"virsh -c {uri} resume" in advice or f"virsh -c {uri} start" in advice
        assert not (starts and other in ("running", "unreachable"))
        assert not (f"virsh -c {uri} destroy" in advice and mine == "running" and other != "running")
