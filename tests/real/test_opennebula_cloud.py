"""A whole cloud on real guests and OpenNebula's doubles, from `onehost create` to the last VM's end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.opennebula.oned import Oned, served
from tests.opennebula.oned_objects import OnedHost, OnedVm
from tests.real.agent_process import QUICK, AgentProcess, balloon_bytes
from tests.real.one_cloud import OneCloud
from tests.real.one_node import policy
from tests.real.test_opennebula_vmm import fine, held
from tests.waiting import eventually
from vmpack.errors import UnavailableError
from vmpack.lab.control import GuestControl
from vmpack.lab.lab import LabGuest
from vmpack.lab.pair import Pair
from vmpack.units import KIB, MIB

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a pair of hosts needs root")

HOST_MIB, VM_MIB, RESIZED_MIB = 1536, 480, 320
"""Three such VMs fit by what they were promised; a fourth does not."""

CONFIG = QUICK + f'[host]\nmemory_bytes = "{HOST_MIB}MiB"\n'


@pytest.fixture
def cloud(pair: Pair, tmp_path: Path) -> Iterator[OneCloud]:
    """Both hosts with an agent each, and no host in oned yet. VMs end with the test."""
    oned = Oned()
    with served(oned) as endpoint, ExitStack() as stack:
        cloud = OneCloud(tmp_path, pair, oned, endpoint)
        for node in cloud.nodes.values():
            agent = AgentProcess(node.agent_folder, node.host.uri, config=CONFIG)
            node.agent = stack.enter_context(agent)
            agent.ready()
        yield cloud
    for host in pair.hosts:
        for guest in host.guests():
            if guest.name.startswith("one-"):
                guest.destroy()


def guest_of(cloud: OneCloud, vm: OnedVm) -> LabGuest:
    return cloud.nodes[cloud.host_of(vm).name].host.guest(f"one-{vm.id}")


def lent_bytes(cloud: OneCloud, vm: OnedVm) -> int:
    return vm.memory_mib * MIB - balloon_bytes(guest_of(cloud, vm))


def start(cloud: OneCloud, name: str) -> OnedVm:
    """A VM that the scheduler has room for; it has booted and is packed."""
    vm = cloud.oned.add_vm(name, VM_MIB, None)
    assert cloud.place(vm) == "node-a"
    cloud.nodes["node-a"].host.wait_ready()
    eventually("it is packed", lambda: lent_bytes(cloud, vm) >= 64 * MIB)
    return vm


def reserved(cloud: OneCloud, host: OnedHost) -> str | None:
    return cloud.oned.told(host, "RESERVED_MEM")


def test_from_the_first_host_to_the_last_vm(cloud: OneCloud) -> None:
    """Some step of an administrator's day would fail, or a VM be lost on the way."""
    a = cloud.create_host("node-a")
    assert a.record.state == "MONITORED" and a.record.max_kib == HOST_MIB * KIB
    vms = [start(cloud, f"web-{number}") for number in range(3)]
    one_more = cloud.oned.add_vm("one-more", VM_MIB, None)
    assert cloud.place(one_more) is None

    granted_room(cloud, a)
    assert cloud.place(one_more) == "node-a"
    vms.append(one_more)
    cloud.nodes["node-a"].host.wait_ready()
    assert sum(vm.memory_mib for vm in vms) > HOST_MIB
    assert all(guest_of(cloud, vm).control.ping() > 0 for vm in vms)

    of_its_owner(cloud, vms[0])
    b = cloud.create_host("node-b")
    moved(cloud, vms[1], b)
    for vm in vms[2:]:
        fine(cloud.terminate(vm))
    there_and_back(cloud, a, vms[0])
    without_an_agent(cloud, a, vms[0])
    without_pyone(cloud, a, vms[0])
    for vm in vms[:2]:
        fine(cloud.terminate(vm))
    assert not [guest for node in cloud.nodes.values() for guest in node.host.guests()]


def granted_room(cloud: OneCloud, host: OnedHost) -> None:
    """What is packed is told, and granted to the scheduler."""
    cloud.monitor()
    assert int(cloud.oned.told(host, "PACKEDMEMORY") or 0) >= 3 * 64 * KIB
    missing_bytes = (4 * VM_MIB - HOST_MIB) * MIB

    def enough() -> bool:
        (granted,) = cloud.ask("grant", "--dry-run")["hosts"]
        return bool(granted["granted_bytes"] >= missing_bytes)

    eventually("there is room for one more", enough)
    (granted,) = cloud.ask("grant")["hosts"]
    assert granted["status"] == "written"
    assert host.record.max_kib == HOST_MIB * KIB + granted["granted_bytes"] // KIB


def of_its_owner(cloud: OneCloud, vm: OnedVm) -> None:
    """Resized, saved and restored."""
    guest = guest_of(cloud, vm)
    fine(cloud.resize(vm, RESIZED_MIB))
    assert policy(guest).nominal_bytes == RESIZED_MIB * MIB
    eventually("no more than is paid for", lambda: balloon_bytes(guest) <= RESIZED_MIB * MIB)
    executor, uptime_s = cloud.executor(cloud.host_of(vm)), guest.control.ping()
    fine(executor.save(cloud.order(vm)))
    fine(executor.restore(cloud.order(vm)))
    assert guest.control.ping() >= uptime_s
    eventually("no hold stays", lambda: not held(guest))
    eventually("it is packed", lambda: lent_bytes(cloud, vm) > 16 * MIB)


def moved(cloud: OneCloud, vm: OnedVm, destination: OnedHost) -> None:
    """By the cloud, live, while it lends memory."""
    uptime_s = guest_of(cloud, vm).control.ping()
    eventually("it lends", lambda: lent_bytes(cloud, vm) >= 64 * MIB)
    outcome = cloud.ask("migrate", vm.name, destination.name)
    assert outcome["status"] == "done" and not cloud.oned.cold_migrations
    guest = guest_of(cloud, vm)
    assert cloud.host_of(vm) is destination
    eventually("it goes on", lambda: goes_on(guest, uptime_s))
    assert balloon_bytes(guest) <= vm.memory_mib * MIB
    eventually("packed there too", lambda: not held(guest) and lent_bytes(cloud, vm) >= 64 * MIB)


def goes_on(guest: LabGuest, uptime_s: float) -> bool:
    """Has it been up for longer? What is asked of it in the moment of its move may get lost."""
    try:
        return GuestControl(guest.control.path, timeout_s=10).ping() > uptime_s
    except UnavailableError:
        return False


def there_and_back(cloud: OneCloud, host: OnedHost, vm: OnedVm) -> None:
    """To the stock drivers and to ours again, while a VM runs; first the grant goes."""
    refused = cloud.run("opennebula", "convert", host.name, "--back")
    assert refused.returncode == 1 and f"vmpack grant {host.name} --off" in refused.stdout
    cloud.ask("grant", host.name, "--off")
    assert not reserved(cloud, host) and host.record.max_kib == HOST_MIB * KIB
    host.record.template.append(("VMPACK_IM_MAD_BEFORE", "kvm"))
    uptime_s = guest_of(cloud, vm).control.ping()
    assert cloud.ask("opennebula", "convert", host.name, "--back")["status"] == "done"
    assert (host.im_mad, host.vm_mad, host.record.state) == ("kvm", "kvm", "MONITORED")
    assert cloud.ask("opennebula", "convert", host.name)["status"] == "done"
    assert (host.im_mad, host.vm_mad, host.record.state) == ("vmpack", "vmpack", "MONITORED")
    assert guest_of(cloud, vm).control.ping() > uptime_s and vm.running


def without_an_agent(cloud: OneCloud, host: OnedHost, vm: OnedVm) -> None:
    """It was killed: monitoring goes on, nothing old is told, actions work, nothing more is granted."""
    cloud.nodes[host.name].agent.process.kill()
    cloud.nodes[host.name].agent.process.wait()

    def told_so() -> bool:
        cloud.monitor()
        told = cloud.oned.told(host, "VMPACK_STATE"), host.record.vm_told(vm.id, "VMPACK_STATE")
        return told == ("NO_AGENT", "NO_AGENT")

    eventually("its end is seen", told_so)
    assert host.record.state == "MONITORED" and host.record.max_kib > 0
    fine(cloud.resize(vm, RESIZED_MIB - 16))
    executor = cloud.executor(host)
    fine(executor.save(cloud.order(vm)))
    fine(executor.restore(cloud.order(vm)))
    done = cloud.run("grant", "--json")
    assert done.returncode == 0, done.stderr
    assert not reserved(cloud, host)


def without_pyone(cloud: OneCloud, host: OnedHost, vm: OnedVm) -> None:
    """Nodes never need it; a front-end says how to get it."""
    nowhere = cloud.without_pyone()
    assert cloud.client(host, **nowhere).start() is None
    cloud.nodes[host.name].environment.update(nowhere)
    fine(cloud.resize(vm, RESIZED_MIB))
    done = cloud.run("hosts", **nowhere)
    assert done.returncode == 69 and "pyone" in done.stderr and "Traceback" not in done.stderr
