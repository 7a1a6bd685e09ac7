"""VMs of OpenNebula on real guests: our actions from deploy to cancel, with agents and without any."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.opennebula import remotes
from tests.opennebula.executor import Result, VmOrder
from tests.real.agent_process import QUICK, AgentProcess, balloon_bytes
from tests.real.one_node import OneNode, policy
from tests.real.tiny_qcow2 import write_tiny_qcow2
from tests.waiting import eventually
from vmpack.lab.lab import LabGuest
from vmpack.lab.pair import Pair
from vmpack.model.policy_namespace import ACTION_HOLD_S
from vmpack.units import MIB

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a pair of hosts needs root")

SMALL, LARGE, MOST = 160, 208, 256
"""MiB: what is paid for first and after a resize, and what QEMU is built with."""

Nodes = tuple[OneNode, OneNode]


@pytest.fixture
def nodes(pair: Pair, tmp_path: Path) -> Iterator[Nodes]:
    """Both hosts as nodes of one OpenNebula. Its VMs end with the test."""
    hosts = remotes.hosts_file(tmp_path / "hosts", {"node-a": pair.a.uri, "node-b": pair.b.uri})
    made = []
    for name, host in (("node-a", pair.a), ("node-b", pair.b)):
        (tmp_path / name).mkdir()
        made.append(OneNode(tmp_path / name, name, host, hosts))
    yield made[0], made[1]
    for host in pair.hosts:
        for guest in host.guests():
            if guest.name.startswith("one-"):
                guest.destroy()


def fine(result: Result) -> None:
    assert result.success, result
    assert not [line for line in result.log if "vmpack" in line], result


def held(guest: LabGuest) -> bool:
    """Is it left alone, and for longer than an action may ask for?"""
    until_s = policy(guest).action_until_s
    assert until_s is None or until_s <= time.time() + ACTION_HOLD_S
    return until_s is not None and until_s > time.time()


def pin(node: OneNode, vm: VmOrder) -> None:
    command = [str(node.executor.actions / "pin"), str(vm.id), "0", "0"]
    subprocess.run(command, check=True, env=node.executor.environment, timeout=300)
    assert not all(node.host.guest(f"one-{vm.id}").domain.vcpuPinInfo()[0])


def packed(guest: LabGuest, paid_mib: int) -> bool:
    return balloon_bytes(guest) < (paid_mib - 16) * MIB


@pytest.mark.long
@pytest.mark.parametrize("with_agents", [True, False], ids=["agents", "no agents"])
def test_a_vm_lives_under_our_driver(nodes: Nodes, tmp_path: Path, with_agents: bool) -> None:
    """An owner's VM would fail one of its actions, get unpaid memory, lose some, or never be packed again."""
    a, b = nodes
    vm = VmOrder(12, SMALL, tmp_path / "datastores/0/12", user_template="<VMPACK_SHARES>900</VMPACK_SHARES>")
    with ExitStack() as stack:
        agents = [
            stack.enter_context(AgentProcess(node.agent_folder, node.host.uri, config=QUICK))
            for node in nodes[: 2 * with_agents]
        ]
        for agent in agents:
            agent.ready()
        guest = a.deploy(vm, MOST)
        assert (policy(guest).nominal_bytes, policy(guest).shares) == (SMALL * MIB, 900)
        assert "autodeflate='on'" in guest.domain.XMLDesc(
            0
        ) and "<stats period='1'/>" in guest.domain.XMLDesc(0)
        settle(guest, SMALL, with_agents)
        if with_agents:
            guest.control.load_tmpfs((SMALL - 70) * MIB)
            eventually("it gets all that is paid for", lambda: balloon_bytes(guest) >= (SMALL - 2) * MIB)
            agents[0].pass_turns(3)
            assert balloon_bytes(guest) <= SMALL * MIB
            guest.control.free()

        fine(a.executor.resize(vm, LARGE))
        assert policy(guest).nominal_bytes == LARGE * MIB and not held(guest)
        settle(guest, LARGE, with_agents)

        pin(a, vm)
        before = balloon_bytes(guest)
        fine(a.executor.save(vm))
        assert [other.name for other in a.host.guests()] == []
        fine(a.executor.restore(vm))
        assert balloon_bytes(guest) <= before + 32 * MIB
        assert policy(guest).nominal_bytes == LARGE * MIB and guest.uuid == vm.deploy_id
        eventually("no hold stays", lambda: not held(guest))
        assert all(guest.domain.vcpuPinInfo()[0])
        settle(guest, LARGE, with_agents)

        pin(a, vm)
        uptime_s = guest.control.ping()
        fine(a.executor.migrate(vm, "node-b"))
        there = b.host.guest("one-12")
        assert a.host.guests() == [] and there.control.ping() > uptime_s
        assert (policy(there).nominal_bytes, policy(there).shares) == (LARGE * MIB, 900)
        eventually("no hold stays", lambda: not held(there))
        settle(there, LARGE, with_agents)

        assert all(there.domain.vcpuPinInfo()[0])
        pin(b, vm)
        failed = b.executor.migrate(vm, "node-c")
        assert not failed.success and "Error migrating" in failed.info
        assert not held(there) and not all(there.domain.vcpuPinInfo()[0])
        fine(b.executor.cancel(vm))
        assert b.host.guests() == []


def settle(guest: LabGuest, paid_mib: int, with_agents: bool) -> None:
    """The agent has packed it; or, without one, somebody has."""
    if not with_agents:
        guest.domain.setMemory((paid_mib - 32) * 1024)
    eventually("it is packed", lambda: packed(guest, paid_mib))
    assert balloon_bytes(guest) <= paid_mib * MIB


@pytest.mark.long
def test_a_killed_migration_leaves_no_hold(nodes: Nodes, tmp_path: Path) -> None:
    """A VM whose migration was killed would be left alone for ever, with what it lent gone."""
    a, _ = nodes
    vm = VmOrder(13, SMALL, tmp_path / "datastores/0/13")
    guest = a.deploy(vm, SMALL)
    (a.executor.actions.parent / "kvm/migrate").write_text("#!/bin/sh\nexec sleep 1000\n")
    process = subprocess.Popen(
        [a.executor.actions / "migrate", vm.deploy_id, "node-b", "node-a", "13", "node-a"],
        stdin=subprocess.PIPE,
        env=a.executor.environment,
        start_new_session=True,
    )
    assert process.stdin is not None
    process.stdin.close()
    eventually("it is held", lambda: held(guest))
    os.killpg(process.pid, 9)
    process.wait()
    eventually("no hold stays", lambda: not held(guest))


def test_by_hand_without_an_agent(nodes: Nodes, tmp_path: Path) -> None:
    """With the agent dead nobody could help a VM, or a slip would take what its guest uses."""
    a, _ = nodes
    vm = VmOrder(14, SMALL, tmp_path / "datastores/0/14")
    guest = a.deploy(vm, SMALL)

    def act(*words: str) -> subprocess.CompletedProcess[str]:
        command = [str(a.executor.actions / words[0]), *words[1:]]
        done = subprocess.run(
            command, capture_output=True, text=True, env=a.executor.environment, timeout=300
        )
        assert done.stdout == ""
        return done

    refused = act("balloon", "14", "32")
    assert refused.returncode == 2 and "one-14 needs" in refused.stderr
    refused = act("balloon", "14", "4096")
    assert refused.returncode == 2 and "was promised" in refused.stderr
    assert balloon_bytes(guest) == SMALL * MIB
    done = act("balloon", "14", str(SMALL - 16))
    assert done.returncode == 0, done.stderr
    eventually("it is there", lambda: balloon_bytes(guest) == (SMALL - 16) * MIB)
    assert policy(guest).nominal_bytes == SMALL * MIB

    assert act("pin", "14", "0", "9999").returncode == 2
    assert act("pin", "14", "7", "0").returncode == 2
    done = act("pin", "14", "0", "0")
    assert done.returncode == 0, done.stderr
    assert guest.domain.vcpuPinInfo()[0][0] and not any(guest.domain.vcpuPinInfo()[0][1:])
    assert act("pin", "14", "0", "all").returncode == 0
    assert all(guest.domain.vcpuPinInfo()[0])
    pinned = vm.vm_xml().replace("</MEMORY>", "</MEMORY><TOPOLOGY><PIN_POLICY>CORE</PIN_POLICY></TOPOLOGY>")
    (vm.folder / "vm.xml").write_text(pinned)
    refused = act("pin", "14", "0", "0")
    assert refused.returncode == 2 and "placed by OpenNebula" in refused.stderr


def test_a_revert_brings_no_old_nominal_back(nodes: Nodes, tmp_path: Path) -> None:
    """A VM that was resized would be held to its old size, or an old hold come back, with every revert."""
    a, _ = nodes
    vm = VmOrder(15, SMALL, tmp_path / "datastores/0/15")
    vm.folder.mkdir(parents=True)
    guest = a.deploy(vm, MOST, disks=(write_tiny_qcow2(vm.folder / "disk.0.qcow2"),))
    taken = a.executor.snapshot_create(vm, 0)
    assert taken == Result(True, "snap-0\n", ())
    fine(a.executor.resize(vm, LARGE))
    fine(a.executor.snapshot_revert(vm, "snap-0"))
    assert policy(guest).nominal_bytes == LARGE * MIB and not held(guest)
    assert guest.control.ping() > 0
