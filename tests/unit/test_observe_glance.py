"""The look between two intervals, from captured answers: cheap, and no easier to lie to than the snapshot."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.fake_libvirt import SILENT, UUID, FakeDomain, FakeHypervisor

from vmpack.errors import GuestBusyError
from vmpack.model.glance import Glance, GuestGlance
from vmpack.observe.glance import Glancer
from vmpack.units import KIB, MIB


def glance(*domains: FakeDomain, proc: Path = Path("/proc")) -> Glance:
    return Glancer(FakeHypervisor(*domains), proc).glance()  # type: ignore[arg-type]


def test_a_running_vm_and_the_host_are_seen(tmp_path):
    """An early turn is called from these figures: a wrong one means no turn, or a turn for nothing."""
    (tmp_path / "meminfo").write_text("MemTotal: 8 kB\nMemAvailable: 4 kB\n")

    seen = glance(FakeDomain(), proc=tmp_path)

    assert seen == Glance(4 * KIB, {UUID: GuestGlance(256 * MIB, 195412 * KIB)})


def test_a_balloon_is_never_above_nominal():
    """A guest that says it has more than it was promised would look as if it had been given memory."""
    assert glance(FakeDomain(**{"balloon.current": 2**30})).guests[UUID].balloon_bytes == 256 * MIB


@pytest.mark.parametrize(
    "lie",
    [
        {"balloon.usable": 2**40},
        {"balloon.usable": -1},
        {"balloon.usable": "lots"},
        {"balloon.available": 0},
        {"balloon.usable": None},
    ],
)
def test_a_lie_is_no_report(lie):
    """One lying guest would call for turn after turn, or hide its need from the others' host."""
    assert glance(FakeDomain(**lie)).guests[UUID].usable_bytes is None


@pytest.mark.parametrize("current_kib", [None, 0, -5, 2**60, 1.5, True])
def test_a_vm_whose_balloon_is_not_known_is_left_out(current_kib):
    """Any number made up for it would be compared with the truth of the last interval."""
    assert glance(FakeDomain(**{"balloon.current": current_kib})).guests == {}


@pytest.mark.parametrize(("state", "is_seen"), [(1, True), (2, True), (3, False), (4, False), (99, False)])
def test_only_running_vms_are_seen(state, is_seen):
    """A paused VM's old figures would look like sudden need."""
    assert bool(glance(FakeDomain(**{"state.state": state})).guests) == is_seen


def test_a_vm_that_says_nothing_shows_only_its_balloon():
    """Figures of a VM whose job is taken would be guessed."""
    silent = FakeDomain()
    silent.stats = SILENT

    assert glance(silent).guests == {UUID: GuestGlance(256 * MIB, None)}


def test_a_host_that_does_not_tell_its_memory_is_not_guessed(tmp_path):
    """A missing /proc would look like a host without free memory."""
    assert glance(proc=tmp_path) == Glance(None, {})


def test_a_hung_vm_is_an_error_that_the_caller_knows():
    """Anything but a VmpackError would end the agent's wait, and the agent."""
    hypervisor = FakeHypervisor(FakeDomain())
    hypervisor.silent_calls = 1

    with pytest.raises(GuestBusyError):
        Glancer(hypervisor).glance()  # type: ignore[arg-type]
