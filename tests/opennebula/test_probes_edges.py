"""Our probes at the edges: no input, no stock probe, one name for two things, very many VMs."""

from __future__ import annotations

import base64
import os
import re
import runpy
import subprocess
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from tests import intervals
from tests.opennebula import template, wire
from tests.opennebula.probe_node import HOST_SYSTEM, SETTINGS, VM_SNAPSHOT, ProbeNode
from vmpack.publish.probe_text import render
from vmpack.units import MIB

STOCK_VM_NAMES = {
    "CPU", "MEMORY", "NETRX", "NETTX", "DISKRDBYTES", "DISKWRBYTES", "DISKRDIOPS", "DISKWRIOPS", "DISK_SIZE",
    "ID", "TIMESTAMP", "STATE",
}  # fmt: skip
LINUX_HOST_NAMES = {"HYPERVISOR", "TOTALCPU", "CPUSPEED", "TOTALMEMORY", "CGROUPS_VERSION"}
FALLBACK = Path(__file__).parents[2] / "probes/lib/fallback.py"
MOST_BYTES = 60_000


@pytest.fixture
def node(tmp_path: Path) -> ProbeNode:
    """A node without libvirt, and with no agent yet."""
    return ProbeNode(tmp_path)


@pytest.mark.parametrize("category", [HOST_SYSTEM, VM_SNAPSHOT])
def test_input_is_not_waited_for(node: ProbeNode, category: str) -> None:
    """The client writes its configuration when it likes: a probe that reads would wait with it."""
    node.publish(intervals.interval(intervals.guest(1, "one-7")))
    reading, writing = os.pipe()
    try:
        assert node.print(category, stdin=reading)
        node.text_path(category).unlink()
        node.print(category, stdin=reading)
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.parametrize("stock", ["exit 1", "echo TOTALCPU=100; kill -9 $$", "", None])
def test_capacity_is_told_when_nobody_else_can(node: ProbeNode, stock: str | None) -> None:
    """Before 7.0 one text without TOTALMEMORY leaves a host without capacity, and its VMs nowhere to be."""
    for path in (node.node / "vmpack").iterdir():
        path.unlink()
    probe = node.node / "im/kvm-probes.d/host/system/linux_host.rb"
    probe.unlink()
    if stock is not None:
        probe.write_text(f"#!/bin/sh\n{stock}\n")
        probe.chmod(0o755)
    host, client = node.cloud(7, forgets_capacity=True)
    client.start()
    real_kib = re.search(r"MemTotal: +([0-9]+)", Path("/proc/meminfo").read_text())
    assert real_kib and host.state == "MONITORED" and host.max_kib == int(real_kib[1])
    assert host.told("TOTALCPU") == str(100 * os.sysconf("SC_NPROCESSORS_CONF"))


def test_a_vms_names_are_not_the_stock_probes() -> None:
    """What OpenNebula itself measured of a VM would be overwritten, and accounting go by it."""
    host = SimpleNamespace(name=lambda: "one-7")
    libvirt = SimpleNamespace(libvirtError=OSError, VIR_DOMAIN_METADATA_ELEMENT=2)
    host.metadata = lambda *_: "<p/>"
    fallback = runpy.run_path(str(FALLBACK))
    (vm,) = fallback["read_vm"](libvirt, host, {"balloon.maximum": 9000, "balloon.current": 8000})
    by_agent = render_vm(intervals.interval(intervals.guest(1, "one-7")))
    by_libvirt = monitor(fallback["vm_block"](vm))
    assert by_agent.keys() == by_libvirt.keys() and not by_agent.keys() & STOCK_VM_NAMES


def render_vm(turn: intervals.Interval) -> dict[str, Any]:
    """What the agent says of the only VM."""
    return monitor(render(turn, SETTINGS)["vm-snapshot"])


def monitor(text: str) -> dict[str, Any]:
    """What one block says."""
    (block,) = template.vectors(template.parse(text), "VM")
    return dict(template.parse(base64.b64decode(block["MONITOR"]).decode()))


def test_four_hundred_vms_without_an_agent_fit_into_a_datagram() -> None:
    """With the agent dead the monitoring of every VM would stop, too."""
    random, fallback = Random(2), runpy.run_path(str(FALLBACK))
    vms = [
        (random.randrange(10**6), most := random.randrange(2**18, 2**28), random.randrange(2**17, most))
        for _ in range(400)
    ]
    message = wire.Message("MONITOR_VM", True, 12, 1_800_000_000, "".join(map(fallback["vm_block"], vms)))
    assert len(wire.encode(message)) < MOST_BYTES


def test_vms_are_not_told_of_as_they_were_when_nobody_answers(node: ProbeNode) -> None:
    """OpenNebula keeps what was told last: a VM would seem to be packed while libvirt hangs for hours."""
    node.publish(intervals.interval(intervals.guest(1, "one-471108")), holds_s=-2)
    host, client = node.cloud(471108)
    host.take_vm_monitor('VM=[ ID="471108", MONITOR="Vk1QQUNLX1NUQVRFPSJTSFJJTksiCg==" ]')
    assert host.vm_told(471108, "VMPACK_STATE") == "SHRINK"
    qemu = ["/bin/sh", "-c", "read _", "-name", "guest=one-471108,debug-threads=on"]
    with subprocess.Popen(qemu, stdin=subprocess.PIPE):
        assert node.tells_nothing_old()
        client.turn([VM_SNAPSHOT])
    assert host.vm_told(471108, "VMPACK_STATE") == "NO_LIBVIRT"


def test_our_hosts_names_are_nobody_elses(node: ProbeNode) -> None:
    """What stock probes tell of devices, versions and datastores would be replaced by ours."""
    node.publish(intervals.interval())
    texts = [node.print(HOST_SYSTEM)]
    node.text_path(HOST_SYSTEM).unlink()
    texts.append(node.print(HOST_SYSTEM))
    for text in texts:
        told = {name for name, _ in template.parse(text)}
        ours = {name for name in told if name.startswith(("GPU", "VMPACK_", "PACKED", "OFFERED"))}
        assert told - ours <= LINUX_HOST_NAMES


STRANGE = ["one-", "one-1 2", 'one-3" ]', "one-1234567890", "two\none-4", "one-٣", "ONE-1", "one-1\n", ""]


@pytest.mark.parametrize("name", STRANGE)
def test_a_strange_name_is_nobody(name: str) -> None:
    """A VM made by hand would pass for one of the cloud's, or break the text of all."""
    read_vm = runpy.run_path(str(FALLBACK))["read_vm"]
    assert read_vm(None, SimpleNamespace(name=lambda: name), {"balloon.maximum": 9000}) == []


@pytest.mark.parametrize("size_kib", [0, -1, 1 << 60, 64 * MIB])
def test_an_impossible_balloon_is_not_told(size_kib: int) -> None:
    """Packed memory would be told that is not there, and granted."""
    libvirt = SimpleNamespace(libvirtError=OSError, VIR_DOMAIN_METADATA_ELEMENT=2)
    domain = SimpleNamespace(name=lambda: "one-7", metadata=lambda *_: "<p/>")
    fallback = runpy.run_path(str(FALLBACK))
    (vm,) = fallback["read_vm"](libvirt, domain, {"balloon.maximum": 9000, "balloon.current": size_kib})
    told = monitor(fallback["vm_block"](vm))
    assert told["VMPACK_STATE"] == "UNREADABLE" and "PACKEDMEMORY" not in told
