"""Snapshots of real guests: what they say is what is true, and a hung one costs the others nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from tests.real.conftest import Boot
from tests.waiting import eventually
from vmpack.act.driver import LibvirtDriver
from vmpack.clock import SystemClock
from vmpack.hypervisor import Hypervisor
from vmpack.lab.guest_spec import GuestSpec
from vmpack.lab.lab import Lab, LabGuest
from vmpack.model.guest import GuestPolicy, GuestSnapshot
from vmpack.model.host import HostSnapshot
from vmpack.observe.source import HostSource
from vmpack.units import MIB

# Ten times what a libvirt on a busy machine needs; the test of the hung guest waits for it once.
DEADLINE_S = 6.0


@pytest.fixture
def hypervisor(lab: Lab):
    made = Hypervisor(lab.uri)
    yield made
    made.close()


@pytest.fixture
def source(hypervisor: Hypervisor) -> HostSource:
    return HostSource(
        hypervisor,
        SystemClock(),
        pretended_bytes=None,
        frozen=lambda: False,
        claims=lambda: (),
        deadline_s=DEADLINE_S,
    )


@pytest.fixture(scope="module")
def pair(lab: Lab) -> Iterator[list[LabGuest]]:
    guests = lab.start(
        GuestSpec("good", memory_bytes=160 * MIB, stats_period_s=1, autodeflate=True),
        GuestSpec("hung", stats_period_s=1),
    )
    lab.wait_ready()
    yield guests
    for guest in guests:
        guest.destroy()


@pytest.fixture
def good(pair: list[LabGuest]) -> LabGuest:
    return pair[0]


@pytest.fixture
def hung(pair: list[LabGuest]) -> LabGuest:
    return pair[1]


def seen(source: HostSource, name: str) -> GuestSnapshot | None:
    return next((guest for guest in source.observe().guests if guest.name == name), None)


def reported(source: HostSource, name: str) -> GuestSnapshot:
    """The guest once its balloon driver reports."""

    def look() -> GuestSnapshot | None:
        guest = seen(source, name)
        return guest if guest is not None and guest.stats is not None else None

    return eventually(f"{name} reports", look)


def test_a_real_guest_is_seen_as_it_is(good: LabGuest, source: HostSource) -> None:
    """Every decision stands on these figures: they must be the guest's own, within what changes meanwhile."""
    snapshot = reported(source, "good")
    memory = good.control.mem()

    assert snapshot.state == "running"
    assert snapshot.nominal_bytes == snapshot.balloon_bytes == 160 * MIB
    assert snapshot.autodeflate
    assert snapshot.stats_period_s == 1
    assert snapshot.exclusions == ()
    assert snapshot.job is None
    assert snapshot.stats is not None
    assert snapshot.stats.available_bytes == memory.total_bytes
    assert abs(snapshot.stats.usable_bytes - memory.available_bytes) < 16 * MIB
    assert len(snapshot.vcpus) == 2
    assert all(vcpu.run_ns > 0 and vcpu.delay_ns is not None for vcpu in snapshot.vcpus)
    assert snapshot.rss_bytes is not None and snapshot.ram_rss_bytes is not None
    assert 0 < snapshot.ram_rss_bytes <= 160 * MIB < snapshot.rss_bytes + 100 * MIB
    assert abs(snapshot.rss_bytes - good.rss_bytes()) < 32 * MIB


def test_a_stopped_qemu_costs_its_neighbour_nothing(hung: LabGuest, source: HostSource) -> None:
    """One hung VM would leave every other guest on the host without memory for as long as it hangs."""
    reported(source, "good")
    reported(source, "hung")
    pid = hung.pid

    os.kill(pid, signal.SIGSTOP)
    try:
        for _ in range(8):
            snapshot = source.observe()
            assert [guest.name for guest in snapshot.guests] == ["good"]
            assert snapshot.guests[0].job is None
            assert [silent.name for silent in snapshot.unreadable] == ["hung"]
        stamps = [_sampled_s(source, "good")]
        eventually("good reports anew", lambda: _sampled_s(source, "good") > stamps[0])
    finally:
        os.kill(pid, signal.SIGCONT)

    eventually("hung is seen again", lambda: seen(source, "hung") is not None)
    assert source.observe().unreadable == ()


def test_a_policy_written_to_a_guest_is_seen(
    good: LabGuest, source: HostSource, hypervisor: Hypervisor
) -> None:
    """`vmpack hold` would do nothing for up to a minute, while the VM is squeezed on."""
    assert reported(source, "good").policy == GuestPolicy()
    driver = LibvirtDriver(hypervisor)

    def policy() -> GuestPolicy | None:
        guest = seen(source, "good")
        return guest.policy if guest is not None else None

    wanted = GuestPolicy(96 * MIB, 500, 0.25, True, 1e18)
    driver.write_policy(good.uuid, wanted)
    eventually("the policy is seen", lambda: policy() == wanted)

    driver.write_policy(good.uuid, GuestPolicy())
    eventually("the policy is gone", lambda: policy() == GuestPolicy())


def _sampled_s(source: HostSource, name: str) -> float:
    guest = seen(source, name)
    assert guest is not None and guest.stats is not None
    return guest.stats.sampled_s


def test_guests_that_end_leave_and_guests_without_balloon_are_seen(boot: Boot, source: HostSource) -> None:
    """Memory of a VM that is gone would stay booked; that of one without balloon would be promised twice."""
    leaves, _ = boot(GuestSpec("leaves", memory_bytes=96 * MIB), GuestSpec("plain", balloon=False))
    assert _names(source.observe()) >= {"leaves", "plain"}

    leaves.destroy()

    assert "leaves" not in _names(source.observe())
    plain = seen(source, "plain")
    assert plain is not None
    assert plain.nominal_bytes == plain.balloon_bytes == 128 * MIB
    assert plain.exclusions == ("no_balloon_device",)


def _names(snapshot: HostSnapshot) -> set[str]:
    return {guest.name for guest in snapshot.guests}
