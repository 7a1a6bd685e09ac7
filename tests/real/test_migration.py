"""Live migration of real guests between two hosts: what arrives, what stays, and what is said of it."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from contextlib import suppress

import libvirt
import pytest

from tests.pinned_host import plan
from tests.real.agent_process import balloon_bytes
from tests.real.migrants import ONE_VCPU, SLOW, Underway, migrate
from tests.waiting import PATIENCE_S, eventually
from vmpack.act.affinity import AffinityExecutor
from vmpack.act.driver import LibvirtDriver
from vmpack.act.migration import Migrator
from vmpack.clock import SystemClock
from vmpack.errors import GuestGoneError
from vmpack.lab.guest_spec import GuestSpec
from vmpack.lab.lab import Lab, LabGuest
from vmpack.lab.pair import Pair
from vmpack.model.guest import GuestPolicy
from vmpack.model.learned import LEARNED_NAMESPACE, Lapse, Learned
from vmpack.model.migration import Migrate, MigrationOutcome
from vmpack.model.policy_namespace import POLICY_NAMESPACE
from vmpack.model.vcpu import SetAffinity
from vmpack.observe.source import HostSource
from vmpack.observe.vcpus import VcpuSource
from vmpack.units import KIB, MIB

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a pair of hosts needs root")

SIZE, PACKED = 160 * MIB, 112 * MIB
LEARNED = Learned(1_700_000_000.0, SIZE, 7200.0, (0.0, 1.5, 0.0, 12.0), Lapse(2, 1500.0, 120 * MIB))
POLICY = GuestPolicy(floor_bytes=90 * MIB, shares=2000)


@pytest.fixture(scope="module")
def mover(pair: Pair) -> Iterator[str]:
    """The name of a guest that lives on either host as long as this file runs."""
    pair.a.start(GuestSpec("mover", memory_bytes=SIZE, stats_period_s=1, vcpus=ONE_VCPU))
    pair.a.wait_ready()
    yield "mover"
    for host in pair.hosts:
        with suppress(libvirt.libvirtError, GuestGoneError):
            LabGuest(host, "mover").domain.undefine()
        LabGuest(host, "mover").destroy()


@pytest.fixture
def guest(pair: Pair, mover: str) -> LabGuest:
    """That guest, at home on host a, packed, with a policy."""
    if pair.b.guests():
        assert carry_out(pair.b, migrate(pair.b.guest(mover), pair.a)).status == "done"
    guest = pair.a.guest(mover)
    driver = LibvirtDriver(pair.a.hypervisor)
    driver.write_policy(guest.uuid, POLICY)
    driver.set_memory(guest.uuid, PACKED)
    eventually("it is packed", lambda: balloon_bytes(guest) == PACKED)
    return guest


def carry_out(source: Lab, action: Migrate) -> MigrationOutcome:
    return Migrator(source.uri, SystemClock()).carry_out(action)


def extras(guest: LabGuest) -> tuple[int, str, bool]:
    """Balloon, policy and whether it reports, asked of libvirt and not of vmpack."""
    policy = guest.domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, POLICY_NAMESPACE)
    return balloon_bytes(guest), policy, "<stats period='1'/>" in guest.domain.XMLDesc(0)


def learned_at(host: Lab) -> Learned | None:
    """What the agent of this host would be told of its one VM, in Unix time."""
    clock = SystemClock()
    source = HostSource(host.hypervisor, clock, pretended_bytes=None, frozen=lambda: False, claims=lambda: ())
    seen = source.observe()
    (found,) = [guest.learned for guest in seen.guests]
    return found and found._replace(written_s=round(found.written_s + seen.wall_s - seen.time_s))


def define(host: Lab, guest: LabGuest) -> None:
    """Give a guest a lasting definition, which starts it whole."""
    tree = ElementTree.fromstring(guest.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
    current = tree.find("currentMemory")
    assert current is not None
    current.text = str(SIZE // KIB)
    host.hypervisor.connection().defineXML(ElementTree.tostring(tree, encoding="unicode"))


def vmpack(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "vmpack.cli.main", *arguments]


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="with one CPU there is nothing to choose")
def test_pins_of_the_scheduler_stay_behind(pair: Pair, guest: LabGuest) -> None:
    """The VM would sit on CPUs that were chosen for another host, and stay there."""
    here, there = (VcpuSource(host.hypervisor, SystemClock()) for host in pair.hosts)
    cpu = max(os.sched_getaffinity(0))
    pin = SetAffinity(guest.uuid, "mover", "vcpu", 0, (), (cpu,))
    executor = AffinityExecutor(pair.a.hypervisor, everywhere=here.topology.everywhere)
    before = extras(guest)
    assert [outcome.status for outcome in executor.carry_out(plan(pin))] == ["done"]
    assert here.observe().vms[0].vcpus[0].mask_of == "vmpack"

    outcome = carry_out(pair.a, migrate(guest, pair.b))

    assert (outcome.status, outcome.warnings) == ("done", ()), outcome
    (arrived,) = there.observe().vms
    assert [(vcpu.cpus, vcpu.mask_of) for vcpu in arrived.vcpus] == [((), "nobody")]
    assert arrived.left_alone is None and "vcpupin" not in pair.b.guest("mover").domain.XMLDesc(0)
    assert extras(pair.b.guest("mover")) == before
    assert AffinityExecutor(pair.b.hypervisor, everywhere=there.topology.everywhere).release() == ()


def test_a_vm_moves_with_its_balloon_its_period_and_its_policy(pair: Pair, guest: LabGuest) -> None:
    """The VM would come whole to a host that has no room for it, or forget what its owner had set.

    What was learned of it comes with it too; taking that out leaves the owner's policy.
    """
    LibvirtDriver(pair.a.hypervisor).write_learned(guest.uuid, LEARNED)
    before, uptime_s = extras(guest), guest.control.ping()
    journey = Underway(pair.a, migrate(guest, pair.b))
    outcome = journey.outcome()

    assert (outcome.status, outcome.source, outcome.destination) == ("done", "absent", "running"), outcome
    assert outcome.warnings == ()
    assert outcome.balloon_before_bytes == outcome.balloon_bytes == PACKED
    assert outcome.downtime_ms and outcome.moved_bytes and outcome.moved_bytes < SIZE
    assert pair.a.guests() == []
    there = pair.b.guest("mover")
    assert extras(there) == before
    assert there.control.ping() > uptime_s
    assert learned_at(pair.b) == LEARNED
    driver = LibvirtDriver(pair.b.hypervisor)
    assert driver.vms_with_learned() == (there.uuid,)
    driver.write_learned(there.uuid, None)
    assert driver.vms_with_learned() == () and extras(there) == before
    driver.set_memory(there.uuid, SIZE)
    eventually("it grows there", lambda: balloon_bytes(there) == SIZE)


def test_a_migration_that_takes_too_long_leaves_the_vm_as_it_was(pair: Pair, guest: LabGuest) -> None:
    """A migration without an end would keep the VM from its memory for hours."""
    before = extras(guest)
    outcome = carry_out(pair.a, migrate(guest, pair.b, timeout_s=1.5, bandwidth=SLOW))

    assert (outcome.status, outcome.source, outcome.destination) == ("aborted", "running", "absent"), outcome
    assert "not done within 1.5 s" in outcome.detail
    assert pair.b.guests() == [] and extras(guest) == before
    LibvirtDriver(pair.a.hypervisor).set_memory(guest.uuid, SIZE)
    eventually("its balloon moves again", lambda: balloon_bytes(guest) == SIZE)
    assert guest.control.ping() > 0


def test_what_cannot_go_is_refused_before_anything_begins(pair: Pair, guest: LabGuest) -> None:
    """An attempt that must fail would cost the network, and with bad luck the VM."""
    action = migrate(guest, pair.b)
    refused = {
        "the host that it runs on": dataclasses.replace(action, destination_uri=pair.a.uri),
        "cannot connect": dataclasses.replace(action, destination_uri="qemu+unix:///system?socket=/no"),
        "nominal has changed": dataclasses.replace(action, nominal_bytes=SIZE * 2),
        "not on the source": dataclasses.replace(action, uuid="00000000-0000-4000-8000-000000000001"),
    }
    for words, wrong in refused.items():
        outcome = carry_out(pair.a, wrong)
        assert outcome.status == "skipped" and words in outcome.detail, outcome


@pytest.mark.long
def test_a_host_that_has_the_vm_already_is_refused(pair: Pair, guest: LabGuest) -> None:
    """libvirt would replace the definition of a VM that only looks like this one."""
    connection = pair.b.hypervisor.connection()
    text = guest.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    for changed, words in (
        (text, "has a definition of it"),
        (text.replace(guest.uuid, "00000000-0000-4000-8000-000000000002"), "another VM named mover"),
    ):
        twin = connection.defineXML(changed)
        try:
            outcome = carry_out(pair.a, migrate(guest, pair.b))
        finally:
            twin.undefine()
        assert outcome.status == "skipped" and words in outcome.detail, outcome


@pytest.mark.long
def test_a_persistent_vm_stays_persistent(pair: Pair, guest: LabGuest) -> None:
    """After the next power cut of its new host the VM would be gone without a trace."""
    define(pair.a, guest)
    LibvirtDriver(pair.a.hypervisor).write_learned(guest.uuid, LEARNED)
    outcome = carry_out(pair.a, migrate(guest, pair.b))

    assert outcome.status == "done" and outcome.warnings == (), outcome
    there = pair.b.guest("mover")
    assert there.domain.isPersistent()
    lasting = there.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    assert f"<currentMemory unit='KiB'>{SIZE // KIB}<" in lasting
    assert POLICY_NAMESPACE in lasting and LEARNED_NAMESPACE in lasting
    assert learned_at(pair.b) == LEARNED
    assert pair.a.hypervisor.connection().listAllDomains() == []
    LibvirtDriver(pair.b.hypervisor).write_learned(there.uuid, None)
    assert LEARNED_NAMESPACE not in there.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    there.domain.undefine()


@pytest.mark.long
def test_a_paused_vm_arrives_paused(pair: Pair, guest: LabGuest) -> None:
    """Its owner had stopped it, perhaps in the middle of a backup: moving it must not start it."""
    guest.domain.suspend()
    outcome = carry_out(pair.a, migrate(guest, pair.b))
    there = pair.b.guest("mover").domain
    state = there.state()[0]
    there.resume()

    assert outcome.status == "done" and outcome.destination == "paused", outcome
    assert state == libvirt.VIR_DOMAIN_PAUSED


@pytest.mark.long
def test_a_guest_that_writes_faster_than_the_network_is_held_up_until_it_fits(
    pair: Pair, guest: LabGuest
) -> None:
    """A busy guest would never leave a host that has no memory for it."""
    LibvirtDriver(pair.a.hypervisor).set_memory(guest.uuid, SIZE)
    eventually("it is whole", lambda: balloon_bytes(guest) == SIZE)
    writer = "while :; do dd if=/dev/urandom of=/churn bs=1M count=24 conv=notrunc; done"
    guest.control.run(["sh", "-c", f"({writer}) >/dev/null 2>&1 & echo $! > /writer"])
    journey = Underway(pair.a, migrate(guest, pair.b, bandwidth=12 * MIB, timeout_s=PATIENCE_S))
    outcome = journey.outcome()

    assert outcome.status == "done", outcome
    assert any(progress.dirty_bytes_per_s for progress in journey.progress)
    pair.b.guest("mover").control.run(["sh", "-c", "kill $(cat /writer); rm /churn"])


@pytest.mark.long
def test_ctrl_c_aborts_and_says_where_the_vm_is(pair: Pair, guest: LabGuest) -> None:
    """Who stops a command wants the VM safe, and to be told that it is."""
    argv = vmpack("migrate", "mover", pair.b.uri, "--connect", pair.a.uri, "--bandwidth", "6MiB/s")
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        assert "mover: " in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
        code = process.wait(PATIENCE_S)

    assert code == 130
    assert "mover was not moved and runs here as before: stopped on request" in said
    assert pair.b.guests() == [] and guest.control.ping() > 0


@pytest.mark.long
def test_the_command_moves_a_vm_and_says_so(pair: Pair, guest: LabGuest) -> None:
    """The way administrators use it; programs read the same in JSON."""
    arguments = ("migrate", guest.uuid, pair.b.uri, "--connect", pair.a.uri)
    dry = subprocess.run(vmpack(*arguments, "--dry-run"), capture_output=True, text=True, check=False)
    assert (dry.returncode, pair.b.guests()) == (0, []), dry
    assert "would be moved" in dry.stdout

    done = subprocess.run(vmpack(*arguments), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done
    assert f"mover is at {pair.b.uri} now: took" in done.stdout and "112 MiB of 160 MiB" in done.stdout

    back = ("migrate", "mover", pair.a.uri, "--connect", pair.b.uri, "--max-downtime", "1s", "--json")
    told = subprocess.run(vmpack(*back), capture_output=True, text=True, check=False)
    record = json.loads(told.stdout)
    assert told.returncode == 0 and record["status"] == "done" and record["source"] == "absent", told
