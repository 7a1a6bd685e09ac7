"""What becomes of a VM's pins when it migrates between two hosts in memory: off, and back where it stays."""

from __future__ import annotations

from collections.abc import Callable

import libvirt
import pytest
from tests.fake_hosts import (
    PAUSED,
    UUID,
    XML,
    Vm,
    World,
    moving_job,
)
from tests.fake_libvirt import error
from tests.migrations import carry_out, without_waiting

from vmpack.model.migration import MigrationStatus
from vmpack.model.pins import Pin, PinnedBy, pins_xml


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting for hosts that never change."""
    without_waiting(monkeypatch)


@pytest.mark.parametrize("by", ["hand", "scheduler"])
@pytest.mark.parametrize("stays", [False, True])
def test_pins_stay_behind_and_come_back_where_the_vm_stays(by: PinnedBy, stays: bool) -> None:
    """A VM would be refused by a host without those CPUs, or sit there on CPUs chosen for another host."""
    world, seen = World(), list[tuple[tuple[bool, ...], str | None]]()
    pinned = (False, True), pins_xml([Pin("vcpu", 0, by, (1,))])
    world.vm.mask, world.vm.pins = pinned
    journey = world.journey

    def leave() -> None:
        seen.append((world.vm.mask, world.vm.pins))
        if stays:
            raise error(libvirt.VIR_ERR_MIGRATE_UNSAFE)
        journey()

    world.journey = leave
    outcome = carry_out(world)

    assert seen == [((True, True), None)]
    assert outcome.status == ("failed" if stays else "done") and outcome.warnings == ()
    assert (world.vm.mask, world.vm.pins) == (pinned if stays else seen[0])


PINNED = (False, True), pins_xml([Pin("vcpu", 0, "scheduler", (1,))])


def refused_for_anothers(world: World) -> None:
    world.vm.job = moving_job()
    raise error(libvirt.VIR_ERR_OPERATION_INVALID)


def left_half_done(world: World) -> None:
    world.there.vms[UUID] = Vm(world.there)
    world.there.vms[UUID].run_state = PAUSED
    raise error(libvirt.VIR_ERR_OPERATION_FAILED)


def paused_here(world: World) -> None:
    world.vm.run_state = PAUSED
    raise error(libvirt.VIR_ERR_OPERATION_FAILED)


@pytest.mark.parametrize(
    ("journey", "status"),
    [(refused_for_anothers, "skipped"), (left_half_done, "unclear"), (paused_here, "unclear")],
)
def test_pins_come_back_wherever_the_vm_is_still_here(
    journey: Callable[[World], None], status: MigrationStatus
) -> None:
    """A VM that goes on here would run from then on where nobody wants it, and nobody would be told."""
    world = World()
    world.vm.mask, world.vm.pins = PINNED
    world.journey = lambda: journey(world)
    outcome = carry_out(world)
    assert (outcome.status, outcome.warnings) == (status, ())
    assert (world.vm.mask, world.vm.pins) == PINNED


def test_pins_that_cannot_come_back_are_told_but_not_of_a_vm_that_left() -> None:
    """Nobody would pin it again; or he would look here for a VM that is elsewhere."""
    for gone in (False, True):
        world = World()
        world.vm.mask, world.vm.pins = PINNED

        def loses(world: World = world, gone: bool = gone) -> None:
            world.here.read_only = True
            if gone:
                world.on_job_stats = world.here.vms.clear
            refused_for_anothers(world)

        world.journey = loses
        outcome = carry_out(world)
        assert outcome.status == "skipped"
        told = "".join(outcome.warnings)
        assert told == "" if gone else told.startswith("its vCPUs are pinned no longer: could not")


def test_pins_that_were_half_taken_off_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that fails may have done half of its work: the VM would stay with the other half."""
    world = World()
    world.vm.mask, world.vm.pins = PINNED

    def refuse() -> None:
        monkeypatch.delattr(world.vm, "setMetadata")
        raise error(libvirt.VIR_ERR_MIGRATE_UNSAFE)

    def fails(*_arguments: object) -> None:
        raise error(libvirt.VIR_ERR_OPERATION_FAILED)

    monkeypatch.setattr(world.vm, "setMetadata", fails)
    world.journey = refuse
    outcome = carry_out(world)
    assert outcome.status == "failed"
    assert (world.vm.mask, world.vm.pins) == PINNED


def test_a_pin_to_all_cpus_does_not_go_along() -> None:
    """A VM that was ever pinned would be refused by every host with fewer CPUs than this one."""
    world = World()
    tune = (
        "<cputune><shares>7</shares><vcpupin vcpu='0' cpuset='0-1'/><vcpupin vcpu='1' cpuset='1'/></cputune>"
    )
    world.vm.xml = XML.replace("<devices>", f"{tune}<devices>") % ""
    assert carry_out(world).status == "done"
    sent = world.sent[1][libvirt.VIR_MIGRATE_PARAM_DEST_XML]
    assert "<shares>7</shares>" in sent and 'vcpu="1" cpuset="1"' in sent and 'vcpu="0"' not in sent
    assert "<vmpack:policy" in sent


def test_pins_that_cannot_be_taken_off_are_told() -> None:
    """A VM would not be moved at all, or arrive pinned and nobody would know."""
    world = World()
    world.vm.mask, world.vm.pins = (False, True), pins_xml([Pin("vcpu", 0, "scheduler", (1,))])
    world.here.read_only = True
    outcome = carry_out(world)

    assert outcome.status == "done"
    assert "its pins go with it: could not" in outcome.warnings[0]
