"""The snapshot of vCPUs, from a libvirt made of captured answers, on a machine of four CPUs."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import pytest
from tests.fake_libvirt import ARRIVING, UUID, WALL_S, FakeDomain, FakeHypervisor
from tests.fake_vms import FakeClock

from vmpack.errors import HypervisorLostError, UnavailableError
from vmpack.model import codec
from vmpack.model.pins import PINS_NAMESPACE, Pin, pins_xml
from vmpack.model.policy_namespace import POLICY_NAMESPACE
from vmpack.model.vcpu import LeftAlone, ThreadMask, VcpuSnapshot, VcpuState, VmVcpus
from vmpack.observe.vcpus import VcpuSource

ONE = "<vcpu placement='static'>1</vcpu>"
TWO = "<vcpu placement='static'>2</vcpu>"
ALL = (0, 1, 2, 3)
NOVA = "<nova:instance xmlns:nova='http://openstack.org/xmlns/libvirt/nova/1.1'/>"


def domain(
    name: str = "g1", uuid: str = UUID, *, vcpu: str = ONE, tune: str = "", inner: str = "", note: str = ""
) -> FakeDomain:
    """One running VM; `tune` is what its XML has in <cputune>, `inner` in <metadata>, `note` of pins."""
    made = FakeDomain(name, uuid)
    metadata = inner + note.replace("<pins", f"<pins xmlns='{PINS_NAMESPACE}'", 1)
    made.xml = (
        f"<domain><name>{name}</name><metadata>{metadata}</metadata>{vcpu}<cputune>{tune}</cputune></domain>"
    )
    return made


def pin(vcpu: int, cpus: str) -> str:
    return f"<vcpupin vcpu='{vcpu}' cpuset='{cpus}'/>"


class Watched:
    """A source over fake domains, with its clock."""

    def __init__(
        self, root: Path, *domains: FakeDomain, placed: Callable[[Element], bool] | None = None
    ) -> None:
        cpus = root / "devices/system/cpu"
        cpus.mkdir(parents=True)
        (cpus / "online").write_text("0-3\n")
        self.online = cpus / "online"
        self.hypervisor = FakeHypervisor(*domains)
        self.clock = FakeClock()
        self.clock.wall_s = lambda: WALL_S - 1000.0 + self.clock.now_s  # type: ignore[method-assign]
        self.reserved: tuple[int, ...] = ()
        self.source = VcpuSource(
            self.hypervisor,  # type: ignore[arg-type]
            self.clock,
            reserved=lambda: self.reserved,
            placed=placed or (lambda _domain: False),
            sys=root,
        )

    def observe(self) -> VcpuSnapshot:
        snapshot = self.source.observe()
        self.clock.wait(10.0)
        return snapshot

    def vm(self) -> VmVcpus:
        (vm,) = self.observe().vms
        return vm


def test_a_vm_is_seen_whole(tmp_path: Path) -> None:
    """Each field feeds a decision; a wrong one moves or spares the wrong vCPU."""
    watched = Watched(tmp_path, domain(tune="<emulatorpin cpuset='0-1'/>"))
    watched.reserved = (3,)
    snapshot = watched.observe()

    assert [pcpu.number for pcpu in snapshot.pcpus] == [0, 1, 2]
    assert (snapshot.time_s, snapshot.wall_s, snapshot.frozen) == (1000.0, WALL_S, False)
    assert snapshot.vms == (
        VmVcpus(
            UUID,
            "g1",
            (VcpuState(0, 3480000000, 152469890, (), "nobody", 1),),
            threads=(ThreadMask("emulator", 0, (0, 1), "run_time"),),
        ),
    )
    assert codec.loads(VcpuSnapshot, codec.dumps(snapshot)) == snapshot


def test_what_the_kernel_does_not_count_is_missing(tmp_path: Path) -> None:
    """A guess at how long vCPUs wait would move them for nothing."""
    made = domain()
    del made.stats["vcpu.0.delay"]
    made.seat = -1
    (vcpu,) = Watched(tmp_path, made).vm().vcpus
    assert (vcpu.delay_ns, vcpu.seat) == (None, None)


def test_vcpus_come_and_go(tmp_path: Path) -> None:
    """An unplugged vCPU would keep its room, and one that is plugged in be left where it is."""
    made = domain(vcpu=TWO)
    watched = Watched(tmp_path, made)
    assert [vcpu.number for vcpu in watched.vm().vcpus] == [0]
    made.stats |= {"vcpu.current": 2, "vcpu.1.time": 7}
    made.masks[1] = (2,)
    assert [(vcpu.number, vcpu.cpus) for vcpu in watched.vm().vcpus] == [(0, ()), (1, (2,))]
    del made.masks[1]
    assert [vcpu.number for vcpu in watched.vm().vcpus] == [0]


def test_the_mask_is_the_kernel_s(tmp_path: Path) -> None:
    """A VM that somebody bound past libvirt would be planned with as if it ran everywhere."""
    made = domain(tune=pin(0, "3"))
    made.masks[0] = (1, 2)
    (vcpu,) = Watched(tmp_path, made).vm().vcpus
    assert (vcpu.cpus, vcpu.mask_of) == ((1, 2), "run_time")


def test_a_cpu_that_goes_off_is_gone(tmp_path: Path) -> None:
    """VMs would be pinned to a CPU that does not run, and all others seem to be bound."""
    made = domain()
    watched = Watched(tmp_path, made)
    watched.observe()
    watched.online.write_text("0-2\n")
    made.masks[0] = (0, 1, 2)
    snapshot = watched.observe()
    assert [pcpu.number for pcpu in snapshot.pcpus] == [0, 1, 2]
    assert snapshot.vms[0].vcpus[0].cpus == ()


OURS = pins_xml([Pin("vcpu", 0, "scheduler", (1,), (2, 3))]) or ""
BY_HAND = pins_xml([Pin("vcpu", 0, "hand", (1,))]) or ""
STALE = pins_xml([Pin("vcpu", 0, "scheduler", (2,))]) or ""
ON_ITS_WAY = pins_xml([Pin("vcpu", 0, "scheduler", (2,), (), (1,))]) or ""


@pytest.mark.parametrize(
    ("options", "lasting", "mask_of", "left_alone"),
    [
        ({}, None, "run_time", None),
        ({"note": OURS}, None, "vmpack", None),
        ({"note": ON_ITS_WAY}, None, "vmpack", None),
        ({"note": STALE}, None, "run_time", None),
        ({"note": BY_HAND}, None, "owner", "dedicated_cpus"),
        ({}, f"<domain>{ONE}<cputune>{pin(0, '1')}</cputune></domain>", "owner", "dedicated_cpus"),
        ({}, "<domain><vcpu cpuset='1-2'>1</vcpu></domain>", "owner", "dedicated_cpus"),
        ({}, f"<domain>{ONE}<cputune>{pin(0, '0-3')}</cputune></domain>", "run_time", None),
        ({}, f"<domain>{ONE}</domain>", "run_time", None),
        ({"inner": NOVA, "tune": pin(0, "1")}, None, "owner", "dedicated_cpus"),
        ({"inner": NOVA, "tune": pin(0, "1"), "note": OURS}, None, "vmpack", None),
        ({"vcpu": "<vcpu cpuset='1'>1</vcpu>"}, None, "owner", "dedicated_cpus"),
        ({"vcpu": "<vcpu cpuset='1'>1</vcpu>", "note": OURS}, None, "vmpack", None),
        ({"vcpu": "<vcpu cpuset='1'>1</vcpu>"}, f"<domain>{ONE}</domain>", "run_time", None),
        ({"tune": pin(0, "1")}, None, "run_time", None),
        ({"vcpu": "<vcpu placement='auto'>1</vcpu>"}, None, "owner", "dedicated_cpus"),
        ({"tune": "<vcpusched vcpus='0' scheduler='fifo' priority='1'/>"}, None, "run_time", "real_time"),
    ],
)
def test_whose_a_mask_is(
    tmp_path: Path,
    options: dict[str, str],
    lasting: str | None,
    mask_of: str,
    left_alone: LeftAlone | None,
) -> None:
    """What an owner, a cloud or an administrator chose would be changed, or vmpack's own stay for ever."""
    made = domain(**options)
    made.lasting_xml = lasting
    made.masks[0] = (1,)
    vm = Watched(tmp_path, made).vm()
    assert (vm.vcpus[0].cpus, vm.vcpus[0].mask_of, vm.left_alone) == ((1,), mask_of, left_alone)


@pytest.mark.parametrize("answer", [True, UnavailableError("cannot be known")])
def test_a_vm_that_its_cloud_placed_is_left_alone(tmp_path: Path, answer: Any) -> None:
    """CPUs that an owner pays for would be shared, where the cloud is the only one that knows."""

    def placed(_domain: Element) -> bool:
        if isinstance(answer, Exception):
            raise answer
        return bool(answer)

    made = domain()
    assert Watched(tmp_path / "a", made, placed=placed).vm().left_alone == "owner_mask"
    made.masks[0] = (1,)
    assert Watched(tmp_path / "b", made, placed=placed).vm().vcpus[0].mask_of == "owner"


def test_dedicated_is_whom_its_owner_gave_cpus_of_its_own(tmp_path: Path) -> None:
    """A VM with CPUs of its own would get company; or VMs that are stacked by mistake stay so, beside idle
    CPUs on which others happen to be alone."""
    alone, pair = domain("alone", "1", vcpu=TWO), [domain("p1", "2"), domain("p2", "3")]
    alone.stats |= {"vcpu.1.time": 7}
    alone.masks = {0: (0,), 1: (1,)}
    alone.lasting_xml = f"<domain>{TWO}<cputune>{pin(0, '0')}{pin(1, '1')}</cputune></domain>"
    for made in pair:
        made.masks = {0: (2,)}
    chance, wide = domain("chance", "4"), domain("wide", "5")
    chance.masks, wide.masks = {0: (3,)}, {0: (1, 2)}
    found = {vm.name: vm.left_alone for vm in Watched(tmp_path, alone, *pair, chance, wide).observe().vms}
    assert found == {"alone": "dedicated_cpus", "p1": None, "p2": None, "chance": None, "wide": None}


def test_a_stack_that_is_taken_apart_does_not_become_dedicated(tmp_path: Path) -> None:
    """The last of VMs that were all bound to one CPU would be out of the scheduler's reach for good."""
    note = pins_xml([Pin("vcpu", 0, "scheduler", (3,), (2,))]) or ""
    moved, left = domain("moved", "1", note=note), domain("left", "2")
    moved.masks, left.masks = {0: (3,)}, {0: (2,)}
    assert [vm.left_alone for vm in Watched(tmp_path, moved, left).observe().vms] == [None, None]


@pytest.mark.parametrize(
    ("attributes", "left_alone"),
    [
        ("opt_out='yes'", "opt_out"),
        (f"hold_until='{WALL_S + 60}'", "held"),
        (f"hold_until='{WALL_S - 60}'", None),
        (f"action_until='{WALL_S + 20}'", "held"),
        (f"action_until='{WALL_S + 86400}'", None),
    ],
)
def test_its_policy_holds_for_its_cpus_too(
    tmp_path: Path, attributes: str, left_alone: LeftAlone | None
) -> None:
    """A VM that is held or that wants to be left alone would be moved about."""
    policy = f"<v:policy xmlns:v='{POLICY_NAMESPACE}' {attributes}/>"
    assert Watched(tmp_path, domain(inner=policy)).vm().left_alone == left_alone


def test_a_vm_with_a_job_and_one_that_does_not_run_are_left_alone(tmp_path: Path) -> None:
    """libvirt would let a pin wait for the end of a migration."""
    made = domain()
    made.job = {"type": 1, "operation": 5}
    watched = Watched(tmp_path, made)
    assert watched.vm().left_alone == "job"
    made.job = {"type": 0}
    assert watched.vm().left_alone is None
    made.busy_ms = 5
    assert watched.vm().left_alone is None
    made.busy_ms = 60_000
    assert watched.vm().left_alone == "job"
    made.stats = ARRIVING
    assert watched.vm().left_alone == "not_running"


def test_a_vm_that_ends_or_is_odd_costs_the_others_nothing(tmp_path: Path) -> None:
    """One broken VM would keep all others where they wait."""
    ended, odd, broken = domain("ended", "2"), domain("odd", "3"), domain("broken", "4")
    ended.vanishes = True
    odd.xml = "<domain><name>odd</name><cputune><vcpupin vcpu='x' cpuset='1'/></cputune></domain>"
    broken.xml = "<domain"
    assert [vm.name for vm in Watched(tmp_path, domain(), ended, odd, broken).observe().vms] == ["g1"]


def test_a_vm_that_hangs_costs_the_others_nothing(tmp_path: Path) -> None:
    """All VMs behind it would be left alone as long as it hangs."""
    vms = [domain(name, name) for name in ("a", "b", "c", "d")]
    vms[1].hangs = vms[2].hangs = True
    found = {vm.name: vm.left_alone for vm in Watched(tmp_path, *vms).observe().vms}
    assert found == {"a": None, "b": "job", "c": "job", "d": None}


def test_a_libvirt_that_is_silent_for_good_is_an_error(tmp_path: Path) -> None:
    """An empty host would be planned, and all that was remembered of its VMs forgotten."""
    watched = Watched(tmp_path, domain())
    watched.hypervisor.silent_for = "statistics"
    with pytest.raises(HypervisorLostError):
        watched.observe()


@pytest.mark.parametrize("event", ["TUNABLE", "METADATA_CHANGE"])
def test_a_change_is_seen_when_libvirt_tells_of_it(tmp_path: Path, event: str) -> None:
    """For a minute a VM's new definition or hold would not be known."""
    made = domain()
    watched = Watched(tmp_path, made)
    watched.observe()
    watched.observe()
    assert made.xml_reads == 1
    made.xml = domain(tune=f"{pin(0, '1')}<emulatorpin cpuset='1'/>").xml
    assert watched.vm().threads[0].cpus == ()
    watched.hypervisor.notes[event](UUID)
    assert watched.vm().threads[0].cpus == (1,)
    made.xml = domain().xml
    watched.source.read_again(UUID)
    assert watched.vm().threads[0].cpus == ()


def test_facts_age_where_libvirt_tells_nothing(tmp_path: Path) -> None:
    """A definition that is changed for later starts makes no event."""
    made = domain()
    watched = Watched(tmp_path, made)
    watched.observe()
    made.lasting_xml = "<domain><vcpu cpuset='1-2'>1</vcpu></domain>"
    assert watched.vm().left_alone is None
    watched.clock.wait(60.0)
    assert watched.vm().left_alone == "owner_mask"


def test_io_threads_and_nodes_are_seen(tmp_path: Path) -> None:
    """The disks' threads would stay behind when their VM is grouped; memory be left on another node."""
    made = domain(tune="<iothreadpin iothread='2' cpuset='2-3'/>")
    tree = ElementTree.fromstring(made.xml)
    tree.append(ElementTree.fromstring("<iothreads>2</iothreads>"))
    tree.append(ElementTree.fromstring("<iothreadids><iothread id='2'/></iothreadids>"))
    tree.append(ElementTree.fromstring("<numatune><memory mode='strict' nodeset='1'/></numatune>"))
    made.xml = ElementTree.tostring(tree, encoding="unicode")
    vm = Watched(tmp_path, made).vm()
    assert vm.nodes == (1,)
    assert vm.threads == (
        ThreadMask("emulator", 0, ()),
        ThreadMask("iothread", 1, ()),
        ThreadMask("iothread", 2, (2, 3), "run_time"),
    )
