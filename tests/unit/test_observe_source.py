"""The whole snapshot, from a libvirt made of captured answers and this machine's own /proc."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from tests.fake_libvirt import ARRIVING, SILENT, STATS, UUID, WALL_S, XML, FakeDomain, FakeHypervisor
from tests.fake_vms import FakeClock

from vmpack.errors import HypervisorLostError
from vmpack.model import codec
from vmpack.model.guest import GuestPolicy, KernelCounts, VcpuTime
from vmpack.model.host import Claim, HostSnapshot
from vmpack.observe.guest_kernels import KernelReading
from vmpack.observe.source import HostSource
from vmpack.units import KIB, MIB

SMAPS = (Path(__file__).parent.parent / "vectors/observe/smaps.txt").read_text()


class Watched:
    """A source over fake domains, with its clock."""

    def __init__(self, *domains: FakeDomain, proc: Path = Path("/proc")) -> None:
        self.hypervisor = FakeHypervisor(*domains)
        self.clock = FakeClock()
        self.clock.wall_s = lambda: WALL_S - 1000.0 + self.clock.now_s  # type: ignore[method-assign]
        self.source = HostSource(
            self.hypervisor,  # type: ignore[arg-type]
            self.clock,
            pretended_bytes=512 * MIB,
            frozen=lambda: True,
            claims=lambda: (Claim("cloud", MIB, "grant"),),
            proc=proc,
        )

    def observe(self) -> HostSnapshot:
        snapshot = self.source.observe()
        self.clock.wait(5.0)
        return snapshot


def test_a_real_vm_is_seen_whole(tmp_path):
    """Each field feeds a decision; a wrong one packs or spares the wrong VM."""
    (tmp_path / "meminfo").write_text("MemTotal: 8 kB\nMemAvailable: 4 kB\n")
    process = tmp_path / "10"
    process.mkdir()
    (process / "cmdline").write_text(f"qemu\0-uuid\0{UUID}\0")
    (process / "stat").write_text("10 (qemu) S " + "0 " * 18 + "555 0\n")
    (process / "smaps").write_text(SMAPS)

    (guest,) = Watched(FakeDomain(), proc=tmp_path).observe().guests

    assert (guest.uuid, guest.name, guest.state) == (UUID, "g1", "running")
    assert guest.nominal_bytes == guest.balloon_bytes == 256 * MIB
    assert guest.autodeflate
    assert guest.stats_period_s == 1
    assert guest.stats is not None
    assert guest.stats.sampled_s == 999.0
    assert guest.stats.usable_bytes == 195412 * KIB
    assert guest.rss_bytes == 234540 * KIB
    assert guest.ram_rss_bytes == (234540 - 53248 - 9540) * KIB
    assert guest.vcpus == (VcpuTime(0, 3480000000, 152469890),)
    assert guest.job is None
    assert guest.policy.shares == 2000


def test_the_host_and_what_was_set_for_it_are_in_the_snapshot():
    """Decisions may not ask anyone else: a freeze left out would be ignored."""
    snapshot = Watched().observe()

    assert snapshot.guests == ()
    assert snapshot.memory_total_bytes > snapshot.memory_available_bytes > 0
    assert snapshot.pcpus
    assert (snapshot.pretended_bytes, snapshot.frozen) == (512 * MIB, True)
    assert snapshot.claims == (Claim("cloud", MIB, "grant"),)


def test_a_snapshot_survives_the_journal():
    """A replay would decide on something else than the agent did."""
    snapshot = Watched(FakeDomain(), FakeDomain('"quoted"\nname\u202e', "u2")).observe()

    assert codec.loads(HostSnapshot, codec.dumps(snapshot)) == snapshot


def test_vms_are_in_a_stable_order():
    """Equal hosts would give different journals and plans, by libvirt's whim."""
    snapshot = Watched(FakeDomain("b", "2"), FakeDomain("a", "3"), FakeDomain("a", "1")).observe()

    assert [guest.uuid for guest in snapshot.guests] == ["1", "3", "2"]


def test_a_vm_that_gives_nothing_is_named_and_costs_the_others_nothing():
    """A hung VM taken for one without need would be squeezed; its neighbours must be served on."""
    hung = FakeDomain("hung", "u2")
    hung.stats = SILENT

    snapshot = Watched(FakeDomain(), hung).observe()

    assert [silent.name for silent in snapshot.unreadable] == ["hung"]
    assert [guest.name for guest in snapshot.guests] == ["g1"]


def test_a_vm_that_another_program_asks_just_now_is_asked_again():
    """A monitoring tool's question takes milliseconds; it must not blind the agent for an interval."""
    busy = FakeDomain("busy", "u2")
    watched = Watched(FakeDomain(), busy)
    watched.observe()
    busy.busy_looks = 5

    assert [guest.name for guest in watched.observe().guests] == ["busy", "g1"]


def test_a_vm_that_stays_silent_is_not_asked_again_in_every_interval():
    """A hung VM would make every interval of its host late."""
    hung = FakeDomain("hung", "u2")
    watched = Watched(FakeDomain(), hung)
    watched.observe()
    hung.busy_looks = 7

    assert [silent.name for silent in watched.observe().unreadable] == ["hung"]
    assert hung.busy_looks == 1
    assert [silent.name for silent in watched.observe().unreadable] == ["hung"]
    assert hung.busy_looks == 0


def test_a_vm_without_balloon_is_seen_although_it_reports_nothing():
    """Its memory is used, and must not be promised to others."""
    plain = FakeDomain("plain", "u2")
    plain.stats = {"state.state": 1}
    plain.xml = XML.replace("memballoon model='virtio'", "memballoon model='none'")

    (guest,) = Watched(plain).observe().guests

    assert guest.nominal_bytes == guest.balloon_bytes == 256 * MIB
    assert guest.exclusions == ("no_balloon_device",)


@pytest.mark.parametrize("hung", [1, 3])
def test_silent_bulk_calls_are_answered_by_the_next(hung):
    """The interval in which VMs hang (their disks stall, say) would be lost for all the others."""
    watched = Watched(FakeDomain())
    watched.hypervisor.silent_calls = hung

    assert [guest.name for guest in watched.observe().guests] == ["g1"]


def test_a_libvirt_that_never_answers_is_a_lost_one():
    """An empty snapshot would look like a host without VMs, and all room would be offered."""
    watched = Watched(FakeDomain())
    watched.hypervisor.silent_calls = 4

    with pytest.raises(HypervisorLostError):
        watched.observe()


def test_a_vm_that_vanishes_in_between_is_left_out():
    """A VM that just ended would be acted on, or break the interval."""
    gone = FakeDomain("gone", "u2")
    gone.vanishes = True

    snapshot = Watched(FakeDomain(), gone).observe()

    assert [guest.name for guest in snapshot.guests] == ["g1"]
    assert snapshot.unreadable == ()


def test_a_job_is_named_and_a_refused_question_is_busy():
    """A VM in migration must be left alone: a call to it blocks until it has left."""
    moving, silent = FakeDomain("moving", "u2"), FakeDomain("silent", "u3")
    moving.job = {"type": 2, "operation": 5}
    silent.job_refused = True

    jobs = {guest.name: guest.job for guest in Watched(FakeDomain(), moving, silent).observe().guests}

    assert jobs == {"g1": None, "moving": "migration out", "silent": "busy"}


def test_a_vm_on_its_way_in_is_seen_with_its_job_and_its_memory(tmp_path):
    """It would count as hung, and what has arrived of it once more as the host's own use."""
    (tmp_path / "meminfo").write_text("MemTotal: 8 kB\nMemAvailable: 4 kB\n")
    (tmp_path / "10").mkdir()
    (tmp_path / "10/cmdline").write_text(f"qemu\0-uuid\0{UUID}\0")
    (tmp_path / "10/stat").write_text("10 (qemu) S " + "0 " * 18 + "555 0\n")
    (tmp_path / "10/statm").write_text("40000 30000 0 0 0 0 0\n")
    arriving = FakeDomain()
    arriving.stats, arriving.arrives = ARRIVING, True
    watched = Watched(arriving, proc=tmp_path)

    snapshot = watched.observe()

    assert snapshot.unreadable == ()
    (guest,) = snapshot.guests
    assert (guest.state, guest.job) == ("paused", "migration in")
    assert (guest.balloon_bytes, guest.nominal_bytes) == (128 * MIB, 256 * MIB)
    assert guest.rss_bytes == 30000 * os.sysconf("SC_PAGE_SIZE")

    arriving.stats, arriving.arrives, arriving.lasting_xml = STATS, False, XML
    (guest,) = watched.observe().guests

    assert (guest.state, guest.job) == ("running", None)
    assert guest.configured_bytes is not None


def test_an_impossible_report_is_no_report():
    """A lying guest could take its neighbours' memory."""
    lying = FakeDomain(**{"balloon.usable": 2**40})

    (guest,) = Watched(lying).observe().guests

    assert guest.stats is None
    assert guest.stats_fault is not None and "usable" in guest.stats_fault


@pytest.mark.parametrize(("state", "seen"), [(1, "running"), (3, "paused"), (4, "other"), (99, "other")])
def test_states_are_told_apart(state, seen):
    """A paused VM cannot give memory, and its silence is no need."""
    (guest,) = Watched(FakeDomain(**{"state.state": state})).observe().guests

    assert guest.state == seen


def test_a_moving_balloon_is_read_live():
    """Bulk figures follow a balloon by up to a second; the next plan would act on the past."""
    domain = FakeDomain()
    watched = Watched(domain)
    watched.observe()
    domain.stats = domain.stats | {"balloon.current": 261120}
    domain.actual_kib = 163840

    (guest,) = watched.observe().guests

    assert guest.balloon_bytes == 160 * MIB


def test_a_balloon_is_read_live_until_the_bulk_figures_have_followed():
    """They pause on their way: with short intervals a shrunk guest would be taken for a large one, twice."""
    domain = FakeDomain()
    watched = Watched(domain)
    watched.observe()
    domain.stats = domain.stats | {"balloon.current": 261120}
    domain.actual_kib = 163840

    seen = []
    for _ in range(5):
        seen.append(watched.source.observe().guests[0].balloon_bytes)
        watched.clock.wait(0.5)
    domain.stats = domain.stats | {"balloon.current": 163840}
    watched.observe()
    watched.clock.wait(2)
    watched.observe()
    domain.actual_kib = 1  # no longer asked
    seen.append(watched.source.observe().guests[0].balloon_bytes)

    assert seen == [160 * MIB] * 6


def test_what_libvirt_missed_while_a_vm_was_saved_is_asked_for():
    """A restored VM would be booked at its old size for ever: never packed, or promised twice."""
    domain = FakeDomain()
    watched = Watched(domain)
    watched.observe()
    watched.clock.wait(60)
    watched.observe()
    domain.run += 1
    domain.actual_kib = 163840
    for _ in range(3):
        watched.clock.wait(60)
        assert watched.source.observe().guests[0].balloon_bytes == 160 * MIB


def test_a_vm_that_is_busy_at_the_very_first_look_is_asked_again():
    """An agent that has just started would take it for a hung one, and miss what it holds."""
    busy = FakeDomain("busy", "u2")
    busy.busy_looks = 5

    assert [guest.name for guest in Watched(FakeDomain(), busy).observe().guests] == ["busy", "g1"]


def test_xml_is_read_again_only_when_something_changed_or_got_old():
    """Reading the XML of every VM in every interval would cost more than all the rest."""
    domain = FakeDomain()
    watched = Watched(domain)
    for _ in range(3):
        watched.observe()
    assert domain.xml_reads == 1

    domain.xml = XML.replace('shares="2000"', 'shares="500"')
    watched.hypervisor.notes["METADATA_CHANGE"](UUID)
    assert watched.observe().guests[0].policy.shares == 500
    assert domain.xml_reads == 2

    domain.run = 2
    watched.observe()
    assert domain.xml_reads == 3

    watched.clock.wait(60.0)
    watched.observe()
    assert domain.xml_reads == 4


def test_a_restarted_vm_whose_xml_cannot_be_read_gives_nothing():
    """It would be judged by the devices and the policy of its former life."""
    domain = FakeDomain()
    watched = Watched(domain)
    watched.observe()
    domain.run = 2
    watched.hypervisor.silent_for = "XML"

    snapshot = watched.observe()

    assert (snapshot.guests, [silent.name for silent in snapshot.unreadable]) == ((), ["g1"])


def test_vms_whose_job_is_not_told_in_time_are_busy():
    """A VM that hangs in just that moment would be acted on, and the executor would wait for it."""
    watched = Watched(FakeDomain())
    watched.hypervisor.silent_for = "job"

    assert watched.observe().guests[0].job == "busy"


def test_a_statistics_period_that_was_just_set_is_seen_at_once():
    """libvirt sends no event for it, and the agent would set it again and again."""
    domain = FakeDomain()
    domain.xml = XML.replace("<stats period='1'/>", "")
    watched = Watched(domain)
    assert watched.observe().guests[0].stats_period_s == 0

    domain.xml = XML
    watched.source.read_again(domain.UUIDString())
    assert watched.observe().guests[0].stats_period_s == 1


def test_broken_xml_is_a_vm_that_gives_nothing():
    """One VM's XML that cannot be read would end the interval of all."""
    broken = FakeDomain("broken", "u2")
    broken.xml = "<domain"

    snapshot = Watched(FakeDomain(), broken).observe()

    assert [silent.name for silent in snapshot.unreadable] == ["broken"]
    assert len(snapshot.guests) == 1


def test_a_faulty_policy_is_told_once(caplog):
    """An owner's mistake must be seen, and must not fill the log once per interval."""
    domain = FakeDomain()
    domain.xml = XML.replace('shares="2000"', 'shares="lots"')
    watched = Watched(domain)

    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            guest = watched.observe().guests[0]

    assert guest.policy == GuestPolicy(100 * MIB, None, 0.3, True, 1790000000.0)
    assert guest.policy_faults
    assert len([record for record in caplog.records if "shares" in record.getMessage()]) == 1


def test_the_most_pressed_guest_agent_is_asked_first_and_its_count_is_told():
    """A kill must be known while the next one can still be prevented; a VM without agent is never asked."""
    agent = "<channel type='unix'><target name='org.qemu.guest_agent.0' state='connected'/></channel>"
    watched, asked = Watched(FakeDomain()), []

    def kills(uuids):
        asked.append(list(uuids))
        return dict.fromkeys(uuids, KernelReading(7, KernelCounts(5.0, refaults=3)))

    watched.source._kernels = kills
    assert watched.observe().guests[0].oom_kills is None

    domain = FakeDomain()
    domain.xml = XML.replace("</devices>", agent + "</devices>")
    watched = Watched(domain)
    watched.source._kernels = kills
    guest = watched.observe().guests[0]
    assert (guest.oom_kills, guest.kernel) == (7, KernelCounts(5.0, refaults=3))
    assert asked == [[], [domain.UUIDString()]]
