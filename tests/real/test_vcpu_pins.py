"""Pins of real guests: what the kernel says of their threads while they are pinned and afterwards."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pinned_host import plan
from tests.waiting import PATIENCE_S, eventually
from vmpack.act.affinity import AffinityExecutor
from vmpack.clock import SystemClock
from vmpack.cpu_masks import any_or
from vmpack.errors import GuestGoneError
from vmpack.hypervisor import Hypervisor
from vmpack.lab.guest_spec import GuestSpec
from vmpack.lab.lab import Lab, LabGuest
from vmpack.model.thread import ThreadKind
from vmpack.model.vcpu import SetAffinity, VcpuSnapshot, VmVcpus
from vmpack.observe.vcpus import VcpuSource
from vmpack.units import MIB

CPUS = sorted(os.sched_getaffinity(0))
pytestmark = pytest.mark.skipif(len(CPUS) < 2, reason="with one CPU there is nothing to choose")
SMALL = 96 * MIB
Threads = dict[int, tuple[str, tuple[int, ...]]]
"""By thread id: its name, and the CPUs that it may run on."""


@pytest.fixture(scope="module")
def ours(lab: Lab) -> Iterator[LabGuest]:
    """A guest of two vCPUs, of three that it may have, and an I/O thread; in no definition."""
    guest = start(lab, GuestSpec("ours", memory_bytes=SMALL, vcpus=3), current=2, iothreads=1)
    yield guest
    guest.destroy()


@pytest.fixture(scope="module")
def owned(lab: Lab) -> Iterator[LabGuest]:
    """A guest whose definition binds its vCPU."""
    guest = start(lab, GuestSpec("owned", memory_bytes=SMALL, vcpus=1), cpuset=str(CPUS[1]))
    yield guest
    guest.domain.undefine()
    guest.destroy()


class Eyes:
    """What the scheduler sees and does, on a connection of its own."""

    def __init__(self, lab: Lab) -> None:
        self.hypervisor = Hypervisor(lab.uri)
        self.source = VcpuSource(self.hypervisor, SystemClock())
        self.everywhere = self.source.topology.everywhere
        self.executor = AffinityExecutor(
            self.hypervisor, everywhere=self.everywhere, changed=self.source.read_again
        )

    def vm(self, name: str, snapshot: VcpuSnapshot | None = None) -> VmVcpus:
        (vm,) = (vm for vm in (snapshot or self.source.observe()).vms if vm.name == name)
        return vm

    def pin(self, vm: VmVcpus, thread: ThreadKind, number: int, *cpus: int) -> str:
        """Pin one thread that is now as `vm` says; what came of it."""
        masks = {("vcpu", vcpu.number): vcpu.cpus for vcpu in vm.vcpus}
        masks |= {(other.kind, other.number): other.cpus for other in vm.threads}
        action = SetAffinity(vm.uuid, vm.name, thread, number, masks[thread, number], cpus)
        (outcome,) = self.executor.carry_out(plan(action))
        return outcome.status if outcome.status == "done" else f"{outcome.status}: {outcome.detail}"


@pytest.fixture
def eyes(lab: Lab) -> Iterator[Eyes]:
    """They leave no pin behind."""
    made = Eyes(lab)
    yield made
    made.executor.release()
    made.hypervisor.close()


def start(
    lab: Lab, spec: GuestSpec, *, current: int | None = None, iothreads: int = 0, cpuset: str = ""
) -> LabGuest:
    """A guest with these; a `cpuset` is its lasting definition's."""
    tree = ElementTree.fromstring(lab.describe(spec))
    vcpu = tree.find("vcpu")
    assert vcpu is not None
    if current is not None:
        vcpu.set("current", str(current))
    if iothreads:
        ElementTree.SubElement(tree, "iothreads").text = str(iothreads)
    connection = lab.hypervisor.connection()
    if cpuset:
        tune = ElementTree.SubElement(tree, "cputune")
        ElementTree.SubElement(tune, "vcpupin", vcpu="0", cpuset=cpuset)
        connection.defineXML(ElementTree.tostring(tree, encoding="unicode")).create()
    else:
        connection.createXML(ElementTree.tostring(tree, encoding="unicode"), 0)
    return LabGuest(lab, spec.name)


def threads(guest: LabGuest) -> Threads:
    """All threads of its QEMU, from the kernel."""
    found: Threads = {}
    for folder in Path(f"/proc/{guest.pid}/task").iterdir():
        name = (folder / "comm").read_text().strip()
        listed = re.search(r"^Cpus_allowed_list:\t(.*)$", (folder / "status").read_text(), re.MULTILINE)
        assert listed is not None
        cpus: set[int] = set()
        for part in listed[1].split(","):
            first, _, last = part.partition("-")
            cpus.update(range(int(first), int(last or first) + 1))
        found[int(folder.name)] = name, tuple(sorted(cpus))
    return found


def changed(before: Threads, after: Threads) -> dict[str, tuple[int, ...]]:
    """The threads that may run elsewhere now; those that came or went since do not count."""
    both = before.keys() & after.keys()
    return {after[tid][0]: after[tid][1] for tid in both if before[tid] != after[tid]}


def test_exactly_these_threads_move_and_all_is_as_before(lab: Lab, eyes: Eyes, ours: LabGuest) -> None:
    """Pins that reach other threads, or stay behind, slow VMs down and nobody knows why."""
    before = threads(ours)
    snapshot = eyes.source.observe()
    vm = eyes.vm("ours", snapshot)
    assert {pcpu.number for pcpu in snapshot.pcpus} == eyes.everywhere()
    assert [(v.number, v.cpus, v.mask_of) for v in vm.vcpus] == [(0, (), "nobody"), (1, (), "nobody")]
    assert [(other.kind, other.number, other.cpus) for other in vm.threads] == [
        ("emulator", 0, ()),
        ("iothread", 1, ()),
    ]
    assert all(v.seat in CPUS and v.delay_ns is not None for v in vm.vcpus)
    eventually("it runs", lambda: eyes.vm("ours").vcpus[0].run_ns > vm.vcpus[0].run_ns)

    assert eyes.pin(vm, "vcpu", 1, CPUS[1]) == "done"
    assert eyes.pin(vm, "iothread", 1, CPUS[0]) == "done"
    moved = changed(before, threads(ours))
    assert {name.split("/")[0]: cpus for name, cpus in moved.items()} == {
        "CPU 1": (CPUS[1],),
        "IO iothread1": (CPUS[0],),
    }
    vm = eyes.vm("ours")
    assert [(v.cpus, v.mask_of) for v in vm.vcpus] == [((), "nobody"), ((CPUS[1],), "vmpack")]
    assert vm.left_alone is None

    assert eyes.pin(vm, "emulator", 0, CPUS[0]) == "done"
    assert threads(ours)[ours.pid][1] == (CPUS[0],)
    assert {outcome.status for outcome in eyes.executor.release()} == {"done"}
    assert changed(before, threads(ours)) == {}
    vm = eyes.vm("ours")
    assert {v.mask_of for v in (*vm.vcpus, *vm.threads)} == {"nobody"}


def test_what_somebody_bound_at_run_time_comes_back_as_it_was(eyes: Eyes, ours: LabGuest) -> None:
    """An administrator's own pin would be lost with the first balance; also one made past libvirt."""
    tid = next(tid for tid, (name, _) in threads(ours).items() if name.startswith("CPU 0"))
    os.sched_setaffinity(tid, {CPUS[0]})
    before = threads(ours)
    vm = eyes.vm("ours")
    assert (vm.vcpus[0].cpus, vm.vcpus[0].mask_of) == ((CPUS[0],), "run_time")
    assert eyes.pin(vm, "vcpu", 0, CPUS[1]) == "done"
    vm = eyes.vm("ours")
    assert (vm.vcpus[0].cpus, vm.vcpus[0].mask_of) == ((CPUS[1],), "vmpack")
    assert eyes.pin(vm, "vcpu", 0, *CPUS) == "done"
    eyes.executor.release()
    assert changed(before, threads(ours)) == {}
    assert eyes.vm("ours").vcpus[0].mask_of == "run_time"
    ours.domain.pinVcpu(0, (True,) * (CPUS[-1] + 1))


def test_an_owner_s_pin_is_his(eyes: Eyes, owned: LabGuest) -> None:
    """The CPUs that an owner chose for his VM would be others'."""
    vm = eyes.vm("owned")
    assert vm.left_alone == "dedicated_cpus"
    assert (vm.vcpus[0].cpus, vm.vcpus[0].mask_of) == ((CPUS[1],), "owner")
    before = threads(owned)
    assert eyes.executor.release() == ()
    assert changed(before, threads(owned)) == {}


def test_a_vcpu_that_is_plugged_in_is_seen_and_may_be_pinned(eyes: Eyes, ours: LabGuest) -> None:
    """It would run where the kernel lets it, on top of others, until the VM's end."""
    vm = eyes.vm("ours")
    assert eyes.pin(vm, "vcpu", 0, CPUS[1]) == "done"
    assert eyes.pin(vm, "emulator", 0, CPUS[0]) == "done"
    before = threads(ours)
    ours.domain.setVcpusFlags(3, 1)
    vm = eyes.vm("ours")
    everywhere = eyes.everywhere()
    assert [(v.number, v.cpus) for v in vm.vcpus] == [(0, (CPUS[1],)), (1, ()), (2, ())]
    assert changed(before, threads(ours)) == {}
    assert eyes.pin(vm, "vcpu", 2, CPUS[0]) == "done"
    eyes.executor.release()
    assert {any_or(cpus, everywhere) for _, cpus in threads(ours).values()} == {()}


def test_a_guest_that_ends_in_between_is_an_outcome(lab: Lab, eyes: Eyes, ours: LabGuest) -> None:
    """One VM that ends would keep all others where they wait."""
    short = start(lab, GuestSpec("short", memory_bytes=SMALL, vcpus=1))
    snapshot = eyes.source.observe()
    short.destroy()
    with pytest.raises(GuestGoneError):
        short.uuid  # noqa: B018 - it is gone
    assert eyes.pin(eyes.vm("short", snapshot), "vcpu", 0, CPUS[1]) == "skipped: the VM is gone"
    assert eyes.pin(eyes.vm("ours", snapshot), "vcpu", 0, CPUS[1]) == "done"
    assert [vm.name for vm in eyes.source.observe().vms if vm.name == "short"] == []


KILLED = """
import os, signal, sys
from vmpack.act import affinity
from vmpack.clock import SystemClock
from vmpack.hypervisor import Hypervisor
from vmpack.model.thread import ThreadKind
from vmpack.model.vcpu import RememberedVcpus, SetAffinity, VcpuPlan
from vmpack.observe.vcpus import VcpuSource

uri, uuid, cpu, other, point = sys.argv[1:]
source = VcpuSource(Hypervisor(uri), SystemClock())
executor = affinity.AffinityExecutor(Hypervisor(uri), everywhere=source.topology.everywhere)
real = getattr(affinity, point)

def plan(*steps):
    return VcpuPlan(tuple(SetAffinity(uuid, "ours", "vcpu", 0, *step) for step in steps), (), 0, 0, (), (),
                    RememberedVcpus())

def dies(*arguments):
    print("struck", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

executor.carry_out(plan(((), (int(cpu),))))
setattr(affinity, point, dies)
executor.carry_out(plan(((int(cpu),), (int(other),))))
"""


@pytest.mark.parametrize("point", ["write_note", "set_mask"])
def test_what_a_killed_agent_left_is_undone_by_the_command_line(
    lab: Lab, eyes: Eyes, ours: LabGuest, tmp_path: Path, point: str
) -> None:
    """VMs would stay bound for good to CPUs that a dead agent chose."""
    before = threads(ours)
    argv = [sys.executable, "-c", KILLED, lab.uri, ours.uuid, str(CPUS[1]), str(CPUS[0]), point]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert (done.returncode, done.stdout) == (-9, "struck\n"), done.stderr
    assert [cpus for name, cpus in changed(before, threads(ours)).items() if "CPU 0" in name] == [(CPUS[1],)]
    assert eyes.vm("ours").vcpus[0].mask_of == "vmpack"

    argv = [sys.executable, "-m", "vmpack.cli.main", "release", "--all", "--json", "--connect", lab.uri]
    argv += ["--state-dir", str(tmp_path), "--socket", str(tmp_path / "none")]
    released = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert [pin["status"] for pin in json.loads(released.stdout)["pins"]] == ["done"], released.stderr
    eventually("all threads run as before", lambda: changed(before, threads(ours)) == {})
    assert eyes.vm("ours").vcpus[0].mask_of == "nobody"
