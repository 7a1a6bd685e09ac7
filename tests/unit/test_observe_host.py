"""The machine's own files, as captured from a real one."""

from __future__ import annotations

import os

import pytest

from vmpack.errors import UnavailableError
from vmpack.model.host import NumaNode, PcpuTime, Pressure
from vmpack.observe.host import (
    parse_cpu_list,
    parse_cpu_times,
    parse_meminfo,
    parse_node,
    parse_pressure,
    read_host,
)
from vmpack.units import KIB

MEMINFO = """MemTotal:       24684096 kB
MemFree:        24300000 kB
MemAvailable:   24328704 kB
SwapTotal:       1048576 kB
SwapFree:        1048000 kB
HugePages_Total:       0
Hugepagesize:       2048 kB
"""
PRESSURE = """some avg10=12.50 avg60=0.22 avg300=0.00 total=123456
full avg10=1.00 avg60=0.00 avg300=0.00 total=2345
"""
STAT = """cpu  111717 0 22649 404535 975 0 342 114 0 0
cpu0 54212 1 10238 205412 197 2 57 54 40000 0
cpu1 57504 0 12410 199123 778 0 284 60 0 0
intr 1 2 3
ctxt 99
"""
NODE = """Node 0 MemTotal:        7825624 kB
Node 0 MemFree:         3793428 kB
Node 0 MemUsed:         4032196 kB
Node 0 Active:           900000 kB
Node 0 Active(file):     300000 kB
Node 0 Inactive(file):   200000 kB
Node 0 FilePages:        600000 kB
Node 0 SReclaimable:      50000 kB
"""
NS_PER_TICK = 10**9 // os.sysconf("SC_CLK_TCK")


def test_meminfo_is_read_in_bytes_and_counts_are_left_out():
    """HugePages_Total is a number of pages: taken for bytes it would be wrong a million times."""
    memory = parse_meminfo(MEMINFO)

    assert memory["MemTotal"] == 24684096 * KIB
    assert "HugePages_Total" not in memory


def test_pressure_is_a_ratio_and_may_be_missing():
    """Kernels without PSI exist; vmpack must run there, and never take percent for a ratio."""
    assert parse_pressure(PRESSURE) == Pressure(0.125, 0.01, 123456, 2345)
    assert parse_pressure("") is None
    assert parse_pressure("some avg10=x\n") is None


def test_cpu_times_count_a_vms_time_once_and_waiting_for_disk_as_idle():
    """Guest time is already part of user time; counted twice a busy host looks like two."""
    first, second = parse_cpu_times(STAT, {0: 0, 1: 1})

    assert first == PcpuTime(0, 0, (54212 + 1 + 10238 + 2 + 57 + 54) * NS_PER_TICK, 205609 * NS_PER_TICK)
    assert (second.number, second.node) == (1, 1)


def test_cpu_lists_and_nodes_are_read():
    """The NUMA map decides on which node a vCPU may run."""
    assert parse_cpu_list("0-2,5\n") == (0, 1, 2, 5)
    assert parse_cpu_list("") == ()
    assert parse_node(0, NODE) == NumaNode(0, 7825624 * KIB, 3793428 * KIB, 550000 * KIB)
    assert parse_node(0, "") is None


def test_a_whole_machine_is_read_and_missing_parts_are_missing(tmp_path):
    """A host without NUMA, PSI or swap must be as observable as any."""
    proc, sys = tmp_path / "proc", tmp_path / "sys"
    (proc / "pressure").mkdir(parents=True)
    (proc / "meminfo").write_text(MEMINFO)
    (proc / "stat").write_text(STAT)

    bare = read_host(proc, sys)
    assert bare.memory_available_bytes == 24328704 * KIB
    assert bare.pressure is None
    assert bare.nodes == ()
    assert [cpu.node for cpu in bare.pcpus] == [0, 0]

    node = sys / "devices/system/node"
    (node / "node1").mkdir(parents=True)
    (node / "online").write_text("1\n")
    (node / "node1/cpulist").write_text("1\n")
    (node / "node1/meminfo").write_text(NODE)
    (proc / "pressure/memory").write_text(PRESSURE)

    full = read_host(proc, sys)
    assert full.pressure is not None
    assert [entry.number for entry in full.nodes] == [1]
    assert [cpu.node for cpu in full.pcpus] == [0, 1]


def test_a_machine_without_meminfo_is_an_error_with_a_hint(tmp_path):
    """Deciding on a host of 0 bytes would squeeze every guest."""
    with pytest.raises(UnavailableError) as caught:
        read_host(tmp_path, tmp_path)

    assert "/proc" in caught.value.hint
