"""Our probes beside a real libvirt: with the agent, without it, and while libvirt or a QEMU hangs."""

from __future__ import annotations

import base64
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.opennebula import template
from tests.opennebula.probe_node import HOST_SYSTEM, VM_SNAPSHOT, ProbeNode
from tests.real.agent_process import QUICK, AgentProcess, balloon_bytes, nominal_bytes, packed
from tests.real.conftest import Boot
from tests.real.paused import start_paused
from tests.waiting import eventually
from vmpack.lab.guest_spec import GuestSpec
from vmpack.lab.lab import Lab
from vmpack.units import GIB, KIB, MIB

Values = dict[str, template.Value]
STRANGE = ("one-", "one-1 2", 'one-3" ]', "one-99999999999", "two\none-4")


def vm_values(node: ProbeNode) -> dict[str, Values]:
    """What vm/snapshot says of each VM."""
    blocks = template.vectors(template.parse(node.print(VM_SNAPSHOT)), "VM")
    return {
        block["ID"]: dict(template.parse(base64.b64decode(block["MONITOR"]).decode())) for block in blocks
    }


def host_values(node: ProbeNode) -> Values:
    return dict(template.parse(node.print(HOST_SYSTEM)))


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process that hangs for a while."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def qemu_pid(lab: Lab, name: str) -> int:
    return int((lab.pid_folder / f"{name}.pid").read_text())


@pytest.fixture
def node(tmp_path: Path, lab: Lab) -> ProbeNode:
    """A node on the lab's libvirt."""
    return ProbeNode(tmp_path, lab.uri)


@pytest.fixture
def paused(lab: Lab) -> Iterator[list[str]]:
    """VMs of OpenNebula and others, of 128 MiB; the second one's owner was promised 96 MiB."""
    promised = f"<v:policy xmlns:v='urn:vmpack:vm:1' nominal='{96 * MIB}'/>"
    names = ("one-11", "one-12", *STRANGE)
    domains = [start_paused(lab, name, metadata=promised if name == "one-12" else "") for name in names]
    uuids = [domain.UUIDString() for domain in domains]
    yield list(names)
    for uuid in uuids:  # a test may have cost the first connection
        lab.hypervisor.domain(uuid).destroy()


def test_without_an_agent_libvirt_itself_is_asked(node: ProbeNode, lab: Lab, paused: list[str]) -> None:
    """A node whose agent is not installed or dead still tells what each VM has, and nobody else's name."""
    untold = {
        "VMPACK_FLOOR": "0",
        "VMPACK_TARGET": "0",
        "VMPACK_STATE": "NO_AGENT",
        "VMPACK_REASON": "no_agent",
    }
    untold |= {"REALMEMORY": str(128 * KIB), "PACKEDMEMORY": "0"}
    assert vm_values(node) == {
        "11": {"MAXMEMORY": str(128 * KIB), **untold},
        "12": {"MAXMEMORY": str(96 * KIB), **untold},
    }
    assert host_values(node)["VMPACK_STATE"] == "NO_AGENT"


@pytest.mark.long
def test_a_hung_qemu_costs_the_others_nothing(node: ProbeNode, lab: Lab, paused: list[str]) -> None:
    """One stopped QEMU must not hide all VMs of the host, nor hold the probe."""
    with stopped(qemu_pid(lab, "one-11")):
        found = vm_values(node)
    assert found["12"]["REALMEMORY"] == str(128 * KIB)


@pytest.mark.long
def test_packed_memory_is_told_with_and_without_the_agent(node: ProbeNode, lab: Lab, boot: Boot) -> None:
    """What the cloud sees is what libvirt has; when the agent is killed, soon it says so itself."""
    (guest,) = boot(GuestSpec("one-7", memory_bytes=GIB, stats_period_s=1))
    host, client = node.cloud(7)
    config = QUICK + '[host]\nmemory_bytes = "1GiB"\n[grant]\nvia = "probe"\n'
    (node.folder / "etc").mkdir()
    (node.folder / "etc/vmpack.toml").write_text(config)
    with AgentProcess(node.folder, lab.uri, config=config) as agent:
        agent.ready()
        eventually("it is packed", lambda: packed(guest))
        agent.pass_turns(6)
        client.start()
        assert host.state == "MONITORED" and host.told("VMPACK_STATE") == "ACTIVE"
        agent.process.kill()
        agent.process.wait()
        packed_kib = (nominal_bytes(guest) - balloon_bytes(guest)) // KIB
        assert packed_kib > 0 and host.vm_told(7, "PACKEDMEMORY") == str(packed_kib)
        assert GIB // KIB < host.total_kib <= GIB // KIB + packed_kib
        eventually("the dead agent's text ends", lambda: host_values(node)["VMPACK_STATE"] == "NO_AGENT")
    client.turn()
    assert host.state == "MONITORED" and host.told("PACKEDMEMORY") == str(packed_kib)
    assert host.vm_told(7, "VMPACK_STATE") == "NO_AGENT" and host.vm_told(7, "PACKEDMEMORY") == str(
        packed_kib
    )
    assert host.total_kib == GIB // KIB


@pytest.mark.long
def test_a_hung_libvirt_is_told_and_got_over(node: ProbeNode, lab: Lab, paused: list[str]) -> None:
    """libvirtd stops for a while: capacity stays, nothing old is printed, and afterwards all is as before."""
    host, client = node.cloud(11, 12)
    with AgentProcess(node.folder, lab.uri) as agent:
        agent.ready()
        client.start()
        before_kib = host.total_kib
        with stopped(lab.libvirt_pid):
            eventually("nothing old", lambda: host_values(node)["VMPACK_STATE"] == "NO_LIBVIRT")
            assert node.tells_nothing_old() and {"11", "12"} <= vm_values(node).keys()
            client.turn([HOST_SYSTEM, VM_SNAPSHOT])
            assert host.state == "MONITORED" and host.total_kib == before_kib
        eventually("as before", lambda: host_values(node)["VMPACK_STATE"] == "ACTIVE")
        assert vm_values(node).keys() == {"11", "12"}
        agent.stop()
    assert host_values(node)["VMPACK_STATE"] == "NO_AGENT"
