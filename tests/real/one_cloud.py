"""A pair of labs as an OpenNebula cloud: doubles of oned and monitord around our real probes and actions.

The front-end's commands run as processes, and reach nodes by a stand-in for ssh that runs the node's vmpack.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.opennebula import oned_objects, remotes
from tests.opennebula.executor import Executor, Result, VmOrder
from tests.opennebula.host_record import HostRecord
from tests.opennebula.monitord import Client, Monitord
from tests.opennebula.oned import ADMIN, Oned
from tests.opennebula.oned_objects import OnedHost, OnedVm
from tests.real.one_node import OneNode
from vmpack.lab.pair import Pair

KNOWN_DRIVERS = "".join(f"<VM_MAD><NAME><![CDATA[{name}]]></NAME></VM_MAD>" for name in ("kvm", "vmpack"))
CONFIGURATION = f"<OPENNEBULA_CONFIGURATION>{KNOWN_DRIVERS}</OPENNEBULA_CONFIGURATION>"
SSH = """#!/bin/sh
# A stand-in for ssh: "-o"s, then HOST and the words of one command.
while [ "$1" != "--" ]; do shift; done
host=$2
shift 3
exec "{nodes}/$host/vmpack" "$@"
"""
NO_PYONE = "raise ModuleNotFoundError(\"No module named 'pyone'\", name='pyone')\n"


class OneCloud:
    """The cloud; `oned` must be served at `endpoint`."""

    def __init__(self, folder: Path, pair: Pair, oned: Oned, endpoint: str) -> None:
        self.oned, self.monitord, self._folder = oned, Monitord({}), folder
        hosts = remotes.hosts_file(folder / "hosts", {"node-a": pair.a.uri, "node-b": pair.b.uri})
        self.nodes: dict[str, OneNode] = {}
        for name, host in (("node-a", pair.a), ("node-b", pair.b)):
            (folder / name).mkdir()
            self.nodes[name] = OneNode(folder / name, name, host, hosts)
        self._orders: dict[int, VmOrder] = {}
        self._environment = self._front_end(endpoint)
        oned.deploy_hook, oned.migrate_hook = self._deploy, self._migrate
        oned.raw["one.system.config"] = [True, CONFIGURATION, 0]
        oned.before["one.host.info"] = self._start_new_ones

    def create_host(self, name: str) -> OnedHost:
        """`onehost create NAME -i vmpack -v vmpack`: first its monitoring is started."""
        host = OnedHost(len(self.oned.hosts), name, HostRecord())
        self.oned.hosts[host.id] = host
        self.monitord.hosts[host.id] = host.record
        self._start_new_ones()
        return host

    def monitor(self) -> None:
        """One turn of all probes on all hosts; what is told of VMs is in `onevm show` afterwards."""
        for host in self.oned.hosts.values():
            self.client(host).turn()
            for number, record in host.record.vms.items():
                self.oned.vms[number].monitoring = record.monitoring

    def client(self, host: OnedHost, **environment: str) -> Client:
        """The monitoring client of this host, with its present driver."""
        node = self.nodes[host.name]
        return Client(
            node.remotes,
            self.monitord,
            im_mad=host.im_mad,
            host_id=host.id,
            hostname=host.name,
            environment={**node.environment, **environment},
        )

    def executor(self, host: OnedHost) -> Executor:
        """oned's side of this host's actions, with its present driver."""
        node = self.nodes[host.name]
        return Executor(node.remotes, host.name, node.environment, host.vm_mad)

    def place(self, vm: OnedVm) -> str | None:
        """Let the scheduler place a pending VM, and wait for its start: the host's name, None for no room."""
        host = self.oned.schedule(vm)
        self.oned.settle()
        return host.name if host and vm.running else None

    def host_of(self, vm: OnedVm) -> OnedHost:
        """Where it is for oned."""
        return self.oned.hosts[vm.stays[-1].host_id]

    def order(self, vm: OnedVm) -> VmOrder:
        """The VM as actions are told of it."""
        return self._orders[vm.id]

    def resize(self, vm: OnedVm, memory_mib: int) -> Result:
        """`onevm resize` of a running VM."""
        result = self.executor(self.host_of(vm)).resize(self.order(vm), memory_mib)
        kept = [entry for entry in vm.template if entry[0] != "MEMORY"]
        vm.template = [*kept, ("MEMORY", str(self.order(vm).memory_mib))]
        self.host_of(vm).record.vms[vm.id].memory_mib = vm.memory_mib
        return result

    def terminate(self, vm: OnedVm) -> Result:
        """`onevm terminate`."""
        result = self.executor(self.host_of(vm)).cancel(self.order(vm))
        self.oned.one_vm_action(ADMIN, "terminate", vm.id)
        return result

    def run(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """`vmpack WORDS` on the front-end."""
        return subprocess.run(
            [sys.executable, "-m", "vmpack.cli.main", *words, "--config", str(self._folder / "front.toml")],
            env=self._environment | environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def ask(self, *words: str) -> Any:
        """`vmpack WORDS --json`, which must succeed."""
        done = self.run(*words, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    def without_pyone(self) -> Mapping[str, str]:
        """The environment of a machine where it is not installed."""
        folder = self._folder / "no-pyone"
        folder.mkdir(exist_ok=True)
        (folder / "pyone.py").write_text(NO_PYONE)
        return {"PYTHONPATH": str(folder)}

    def _front_end(self, endpoint: str) -> dict[str, str]:
        home, programs = self._folder / "home", self._folder / "bin"
        (home / ".one").mkdir(parents=True)
        programs.mkdir()
        auth = home / ".one/one_auth"
        auth.write_text(f"{ADMIN}\n")
        auth.chmod(0o600)
        (programs / "ssh").write_text(SSH.format(nodes=self._folder))
        (programs / "ssh").chmod(0o755)
        (self._folder / "front.toml").write_text('[grant]\nstep_bytes = "1MiB"\n')
        return {"HOME": str(home), "PATH": f"{programs}:{os.defpath}", "ONE_XMLRPC": endpoint}

    def _start_new_ones(self) -> None:
        for host in self.oned.hosts.values():
            if host.record.state == "INIT":
                self.client(host).start()
                oned_objects.recompute(host, self.oned.clusters)

    def _deploy(self, vm: OnedVm, host: OnedHost) -> bool:
        order = VmOrder(vm.id, vm.memory_mib, self._folder / f"datastores/0/{vm.id}")
        self._orders[vm.id] = order
        node = self.nodes[host.name]
        return self.executor(host).deploy(order, node.domain_xml(order, vm.memory_mib)).success

    def _migrate(self, vm: OnedVm, source: OnedHost, destination: OnedHost) -> bool:
        return self.executor(source).migrate(self._orders[vm.id], destination.name).success
