"""The host's CPUs, from folders like those of /sys."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmpack.model.vcpu import Pcpu
from vmpack.observe.topology import CpuFacts, TopologyReader, last_cache, pcpus_of, without


class Machine:
    """A /sys of one's own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.cpus, self.nodes = root / "devices/system/cpu", root / "devices/system/node"

    def write(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")

    def cpu(self, number: int, siblings: str, last_level: str, capacity: str | None = None) -> None:
        folder = self.cpus / f"cpu{number}"
        self.write(folder / "topology/thread_siblings_list", siblings)
        for index, level, kind, shared in (
            (0, 1, "Data", siblings),
            (1, 1, "Instruction", siblings),
            (2, 2, "Unified", siblings),
            (3, 3, "Unified", last_level),
        ):
            cache = folder / f"cache/index{index}"
            self.write(cache / "level", str(level))
            self.write(cache / "type", kind)
            self.write(cache / "shared_cpu_list", shared)
        if capacity is not None:
            self.write(folder / "cpu_capacity", capacity)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Two nodes, two cores of two threads in each, one cache a node."""
    made = Machine(tmp_path)
    made.write(made.cpus / "online", "0-7")
    made.write(made.cpus / "isolated", "")
    made.write(made.nodes / "online", "0-1")
    for node in (0, 1):
        cpus = f"{2 * node}-{2 * node + 1},{2 * node + 4}-{2 * node + 5}"
        made.write(made.nodes / f"node{node}/cpulist", cpus)
        for core in (2 * node, 2 * node + 1):
            for number in (core, core + 4):
                made.cpu(number, f"{core},{core + 4}", cpus)
    return made


def test_nodes_caches_and_cores_are_told_apart(machine: Machine) -> None:
    """Siblings would be taken for two CPUs, and VMs be spread away from their memory."""
    pcpus = TopologyReader(machine.root).read()
    assert [pcpu.number for pcpu in pcpus] == list(range(8))
    assert [pcpu.node for pcpu in pcpus] == [0, 0, 1, 1, 0, 0, 1, 1]
    assert [pcpu.cache for pcpu in pcpus] == [0, 0, 2, 2, 0, 0, 2, 2]
    assert [pcpu.core for pcpu in pcpus] == [0, 1, 2, 3, 0, 1, 2, 3]
    assert {pcpu.capacity_ratio for pcpu in pcpus} == {1.0}


def test_a_cpu_that_goes_off_is_gone_at_the_next_look(machine: Machine) -> None:
    """VMs would be pinned to a CPU that does not run."""
    reader = TopologyReader(machine.root)
    assert reader.everywhere() == reader.online() == frozenset(range(8))
    machine.write(machine.cpus / "online", "0-4,6-7")
    assert [pcpu.number for pcpu in reader.read()] == [0, 1, 2, 3, 4, 6, 7]
    machine.write(machine.cpus / "online", "0-7")
    assert reader.everywhere() == frozenset(range(8))


def test_cpus_that_are_kept_apart_are_nobody_s(machine: Machine) -> None:
    """The CPUs of real-time work would get vCPUs, which its administrator has forbidden the kernel itself."""
    machine.write(machine.cpus / "isolated", "2-3")
    reader = TopologyReader(machine.root)
    assert reader.everywhere() == frozenset({0, 1, 4, 5, 6, 7})
    assert reader.online() == frozenset(range(8))
    assert [pcpu.number for pcpu in without(reader.read(), (0, 4))] == [1, 5, 6, 7]


def test_slower_cpus_have_their_part(machine: Machine) -> None:
    """A small core would get as much as a large one, and its VMs wait."""
    for number, capacity in ((0, "1024"), (4, "1024"), (1, "512"), (5, "256")):
        machine.cpu(number, str(number), "0-7", capacity)
    ratios = {pcpu.number: pcpu.capacity_ratio for pcpu in TopologyReader(machine.root).read()}
    assert [ratios[number] for number in (0, 4, 1, 5)] == [1.0, 1.0, 0.5, 0.25]
    assert ratios[2] == 1.0


@pytest.mark.parametrize(
    ("facts", "wanted"),
    [
        (CpuFacts(), Pcpu(3, 0, 3, 3)),
        (CpuFacts(package="2-3"), Pcpu(3, 0, 2, 3)),
        (CpuFacts(siblings="1,3", capacity="0"), Pcpu(3, 0, 3, 1)),
        (CpuFacts(caches=(("x", "Unified", "0-9"), ("1", "Data", "3"))), Pcpu(3, 0, 3, 3)),
        (CpuFacts(capacity="fast"), Pcpu(3, 0, 3, 3)),
    ],
)
def test_what_a_machine_does_not_tell_is_as_if_all_were_alike(facts: CpuFacts, wanted: Pcpu) -> None:
    """On a virtual machine or an unusual one nothing would be balanced at all."""
    assert pcpus_of({3: facts}, {}) == (wanted,)


def test_a_cache_of_instructions_is_nobody_s_last() -> None:
    """CPUs that share only that would be taken for neighbours."""
    assert last_cache([("1", "Data", "0"), ("2", "Instruction", "0-3"), ("2", "Unified", "0-1")]) == "0-1"
    assert last_cache([]) == ""


def test_a_machine_without_sys_has_no_cpus_to_pin_to(tmp_path: Path) -> None:
    """The agent would end instead of leaving the vCPUs to the kernel."""
    assert TopologyReader(tmp_path).read() == ()


def test_this_machine_is_read() -> None:
    """What is right for folders of our own need not be right for a kernel's."""
    reader = TopologyReader(Path("/sys"))
    assert reader.read() and reader.everywhere() <= reader.online()
