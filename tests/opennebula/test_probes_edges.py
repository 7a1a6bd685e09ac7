"""Our probes at the edges: no input, no stock probe, one name for two things, very many VMs."""

from __future__ import annotations

import base64
import os
import re
import runpy
import subprocess
import threading
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from tests import intervals
from tests.opennebula import template, wire
from tests.opennebula.host_record import HostRecord, VmRecord
from tests.opennebula.probe_node import HOST_SYSTEM, SETTINGS, VM_SNAPSHOT, ProbeNode
from vmpack.observe.machine import parse_mhz, read_machine
from vmpack.observe.pci_gpus import has_gpus
from vmpack.publish.gpu_text import NO_GPU
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
    domain = SimpleNamespace(name=lambda: "one-7")
    fallback = runpy.run_path(str(FALLBACK))
    vm = fallback["read_vm"](domain, {"balloon.maximum": 9000, "balloon.current": 8000})
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


@pytest.mark.parametrize("with_gpus", [False, True])
def test_four_hundred_vms_without_an_agent_fit_into_a_datagram(with_gpus: bool) -> None:
    """With the agent dead the monitoring of every VM would stop, too."""
    random, fallback = Random(2), runpy.run_path(str(FALLBACK))
    gpus = fallback["NO_GPU"] if with_gpus else ""
    vms = [
        (random.randrange(10**6), most := random.randrange(2**18, 2**28), random.randrange(2**17, most), gpus)
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
    assert read_vm(SimpleNamespace(name=lambda: name), {"balloon.maximum": 9000}) is None


@pytest.mark.parametrize("size_kib", [0, -1, 1 << 60, 64 * MIB])
def test_an_impossible_balloon_is_not_told(size_kib: int) -> None:
    """Packed memory would be told that is not there, and granted."""
    domain = SimpleNamespace(name=lambda: "one-7")
    fallback = runpy.run_path(str(FALLBACK))
    vm = fallback["read_vm"](domain, {"balloon.maximum": 9000, "balloon.current": size_kib})
    told = monitor(fallback["vm_block"](vm))
    assert told["VMPACK_STATE"] == "UNREADABLE" and "PACKEDMEMORY" not in told


class Hypervisor:
    """libvirt with VMs of 9000 KiB, of which that of this number never tells its metadata."""

    libvirtError = OSError
    VIR_DOMAIN_METADATA_ELEMENT = 2
    VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE = VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT = 0
    VIR_DOMAIN_STATS_BALLOON = 1

    def __init__(self, devices: str = "", slow: int | None = None) -> None:
        self.slow, self.asked, self.go_on = slow, threading.Event(), threading.Event()
        self.domains = [
            SimpleNamespace(
                name=lambda number=number: f"one-{number}",
                metadata=lambda *_, number=number: self.metadata(number),
                XMLDesc=lambda _: f"<domain><devices>{devices}</devices></domain>",
            )
            for number in range(3)
        ]

    def metadata(self, number: int) -> str:
        if number == self.slow:
            self.asked.set()
            self.go_on.wait()
        return "<policy nominal='4194304'/>"

    def openReadOnly(self, _uri: str) -> Hypervisor:
        return self

    def getAllDomainStats(self, _what: int, _flags: int) -> list[tuple[Any, dict[str, int]]]:
        return [(domain, {"balloon.maximum": 9000, "balloon.current": 3000}) for domain in self.domains]


def test_one_vm_that_does_not_answer_costs_no_other_its_figures() -> None:
    """One hung VM of four hundred would leave a host without a single figure while its agent is dead."""
    libvirt, found = Hypervisor(slow=1), []  # type: ignore[var-annotated]
    fallback = runpy.run_path(str(FALLBACK))
    asking = threading.Thread(target=fallback["read_vms"], args=(libvirt, found), daemon=True)
    asking.start()
    assert libvirt.asked.wait(60)
    assert found == [[(0, 4096, 3000, ""), (1, 9000, 3000, ""), (2, 9000, 3000, "")]]
    libvirt.go_on.set()
    asking.join()
    assert found == [[(number, 4096, 3000, "") for number in range(3)]]


@pytest.mark.parametrize(
    ("devices", "has_gpus", "taken_back"),
    [("", True, True), ("<hostdev mode='subsystem'/>", True, False), ("", False, False)],
)
def test_a_gpu_that_an_agent_told_of_is_taken_back(devices: str, has_gpus: bool, taken_back: bool) -> None:
    """An owner would see the load of his GPU as it was when the agent died, for ever."""
    fallback, found = runpy.run_path(str(FALLBACK)), []  # type: ignore[var-annotated]
    fallback["read_vms"].__globals__["has_gpus"] = lambda: has_gpus
    fallback["read_vms"](Hypervisor(devices), found)
    told = fallback["vms_text"](found[0][:1])
    record = HostRecord(vms={0: VmRecord(256)})
    before = 'GPU_COUNT="1"\nGPU_UTILIZATION="38"\n'
    record.take_vm_monitor(f'VM=[ ID="0", MONITOR="{base64.b64encode(before.encode()).decode()}" ]')
    record.take_vm_monitor(told)
    assert (template.first(record.vms[0].monitoring, "GPU_UTILIZATION") is None) is taken_back


def test_fallback_and_agent_agree_on_gpus() -> None:
    """What the agent tells of a VM's GPU would not be taken back by the fallback."""
    assert runpy.run_path(str(FALLBACK))["NO_GPU"] == NO_GPU


SPEEDS = [
    ("cpu MHz\t\t: 2599.996\ncpu MHz : 800.0\n", "3000000\n"),
    ("clock\t\t: 3425.000000MHz\n", ""),
    ("BogoMIPS : 50.00\n", "3000000\n"),
    ("cpu MHz : 99999999\n", ""),
    ("", "999999999999\n"),
    ("cpu MHz : unknown\n", "junk"),
    ("", ""),
]


@pytest.mark.parametrize(("cpuinfo", "top_khz"), SPEEDS)
def test_fallback_and_agent_agree_on_the_speed(cpuinfo: str, top_khz: str) -> None:
    """A host's CPUSPEED would jump each time its agent starts or ends."""
    fallback = runpy.run_path(str(FALLBACK))
    assert fallback["cpu_mhz"](cpuinfo, top_khz) == parse_mhz(cpuinfo, top_khz)


@pytest.mark.parametrize(
    ("vendor", "kind", "found"),
    [("0x10de", "0x030200", True), ("0x10de", "0x0c0330", False), ("0x8086", "0x030000", False)],
)
def test_fallback_and_agent_agree_on_the_machine(tmp_path: Path, vendor: str, kind: str, found: bool) -> None:
    """Figures of a GPU would stay for ever, or every VM without one be told to have had one."""
    device = tmp_path / "bus/pci/devices/0000:3b:00.0"
    device.mkdir(parents=True)
    (device / "vendor").write_text(f"{vendor}\n")
    (device / "class").write_text(f"{kind}\n")
    fallback = runpy.run_path(str(FALLBACK))
    assert fallback["has_gpus"](str(tmp_path)) is has_gpus(tmp_path) is found
    assert read_machine(tmp_path, tmp_path).has_gpus is found
    assert not fallback["has_gpus"](str(tmp_path / "nothing"))
