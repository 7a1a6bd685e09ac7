"""What the kernel of a real guest counts, read through its guest agent; agents that lie or fall silent."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.conftest import Boot
from tests.waiting import eventually
from vmpack.hypervisor import Hypervisor
from vmpack.lab.guest_spec import GuestSpec
from vmpack.lab.lab import Lab, LabGuest
from vmpack.model.guest import KernelCounts
from vmpack.observe.guest_kernels import GuestKernels
from vmpack.units import KIB, MIB

LIE = rb"{\"return\": \"\377\376\"}\n"
LYING_AGENT = rf"""#!/bin/sh
exec 3<> "$1"
echo liar: here > /dev/ttyS0
while :; do
    while read -r request <&3; do
        case $request in
        *guest-sync*) echo "{{\"return\": $(echo "$request" | tr -dc 0-9)}}" >&3 ;;
        *) printf '{LIE.decode()}' >&3; echo liar: lied > /dev/ttyS0 ;;
        esac
    done
    usleep 50000
done
"""
"""Answers libvirt's call for a sign, and everything else with bytes that are no text; tells the console."""


@pytest.fixture
def hypervisor(lab: Lab) -> Hypervisor:
    """For guest agents alone; who asks closes it."""
    return Hypervisor(lab.uri)


@pytest.fixture
def kernels(hypervisor: Hypervisor) -> Iterator[GuestKernels]:
    """Asks again soon after a silence."""
    made = GuestKernels(hypervisor, silent_s=1.0)
    yield made
    made.close()


def told_kills(kernels: GuestKernels, uuids: list[str]) -> dict[str, int | None]:
    """What is known of OOM kills, by uuid."""
    return {uuid: reading.oom_kills for uuid, reading in kernels.told(uuids).items()}


def run(guest: LabGuest, *argv: str) -> str:
    """Run a command in the guest; what it printed."""
    return guest.control.run(argv).output


def lie(guest: LabGuest) -> None:
    """Put a liar in the place of its guest agent, and wait until init has started it."""
    encoded = base64.b64encode(LYING_AGENT.encode()).decode()
    run(guest, "sh", "-c", f"rm /bin/agent; echo {encoded} | base64 -d > /bin/agent; chmod +x /bin/agent")
    run(guest, "killall", "qemu-ga")
    eventually("the liar is there", lambda: "liar: here" in guest.console_text())


def test_a_kill_inside_a_guest_is_seen_and_a_guest_without_agent_is_absent(
    boot: Boot, kernels: GuestKernels
) -> None:
    """A guest that had to kill shows free memory right after: without the count it would be shrunk again."""
    guest, mute = boot(
        GuestSpec("killing", memory_bytes=112 * MIB, vcpus=1),
        GuestSpec("mute", memory_bytes=96 * MIB, vcpus=1, guest_agent=False),
    )
    uuids = [mute.uuid, guest.uuid]
    eventually("the agent answers", lambda: told_kills(kernels, uuids) == {guest.uuid: 0})

    guest.control.load_anonymous(128 * MIB)
    eventually("a kill is counted", lambda: told_kills(kernels, uuids).get(guest.uuid, 0) >= 1)

    eventually("all of them", lambda: told_kills(kernels, uuids).get(guest.uuid) == guest.control.oom_kills())
    assert mute.uuid not in told_kills(kernels, uuids)
    counts = kernels.told(uuids)[guest.uuid].counts
    assert counts.refaults is not None and counts.allocation_stalls and counts.stalled_some_us
    assert counts.stalled_some_us >= (counts.stalled_full_us or 0) > 0


@pytest.mark.long
def test_a_guest_that_loses_the_cache_it_works_with_counts_refaults_and_no_faults(
    boot: Boot, kernels: GuestKernels, tmp_path: Path, lab: Lab
) -> None:
    """A file server would be squeezed to a quarter of its speed: neither swap nor hard faults tell of it."""
    disk = tmp_path / "disk.raw"
    with disk.open("wb") as file:
        file.truncate(160 * MIB)
    (guest,) = boot(GuestSpec("reading", 288 * MIB, vcpus=1, stats_period_s=1, disks=(disk,)))

    def counts() -> KernelCounts:
        told = kernels.told([guest.uuid]).get(guest.uuid)
        return KernelCounts(0.0) if told is None else told.counts

    # A disk that nobody holds open loses its cache at once.
    run(guest, "sh", "-c", "(exec sleep 10000 < /dev/vda > /dev/null 2>&1 &)")
    reading = "while :; do dd if=/dev/vda of=/dev/null bs=1M count=100 2> /dev/null; done"
    run(guest, "sh", "-c", f"({reading}) > /dev/null 2>&1 &")
    eventually("it has told", lambda: counts().sampled_s and counts().refaults == 0)
    domain = Hypervisor(lab.uri).connection().lookupByUUIDString(guest.uuid)
    faults = domain.memoryStats()["major_fault"]

    domain.setMemory(160 * MIB // KIB)

    eventually("refaults are counted", lambda: (counts().refaults or 0) > 10_000)
    assert (counts().stalled_some_us or 0) > 0
    assert domain.memoryStats()["major_fault"] - faults < 100


@pytest.mark.long
def test_agents_that_lie_or_fall_silent_cost_neither_the_others_nor_the_connection(
    boot: Boot, kernels: GuestKernels, hypervisor: Hypervisor
) -> None:
    """One guest could hide the kills in all VMs of its host, with two bytes or by doing nothing."""
    liar, honest = boot(*(GuestSpec(name, memory_bytes=112 * MIB, vcpus=1) for name in ("lying", "stopping")))
    uuids = [liar.uuid, honest.uuid]
    eventually("both answer", lambda: told_kills(kernels, uuids) == dict.fromkeys(uuids, 0))
    connection = hypervisor.connection()

    assert liar.uuid not in told_kills(kernels, [honest.uuid])
    lie(liar)
    told_kills(kernels, uuids)
    eventually("it has lied", lambda: "liar: lied" in liar.console_text())
    honest.control.load_anonymous(128 * MIB)
    eventually("the other's kill is counted", lambda: told_kills(kernels, uuids).get(honest.uuid, 0) >= 1)
    assert liar.uuid not in told_kills(kernels, uuids)

    honest.control.free()
    run(honest, "killall", "-STOP", "qemu-ga")
    eventually("its count is absent", lambda: told_kills(kernels, uuids) == {})
    run(honest, "killall", "-CONT", "qemu-ga")
    eventually("its count is back", lambda: told_kills(kernels, uuids).get(honest.uuid, 0) >= 1)
    assert hypervisor.connection() is connection
