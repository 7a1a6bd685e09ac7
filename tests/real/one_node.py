"""A lab as a node of OpenNebula: stand-ins of the stock actions and ours, and VMs as oned describes them."""

from __future__ import annotations

import os
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from tests.opennebula import remotes
from tests.opennebula.executor import Executor, VmOrder
from tests.real.agent_process import AgentProcess, balloon_bytes
from tests.waiting import eventually
from vmpack.lab.guest_spec import GuestSpec
from vmpack.lab.lab import Lab, LabGuest
from vmpack.model.guest import GuestPolicy
from vmpack.observe.policy import read_policy
from vmpack.units import KIB, MIB

_ONE = "http://opennebula.org/xmlns/libvirt/1.0"


class OneNode:
    """One host. `hosts`, a file made with remotes.hosts_file, tells where VMs can migrate to."""

    def __init__(self, folder: Path, name: str, host: Lab, hosts: Path) -> None:
        self.host, self.name, self.folder = host, name, folder
        r = remotes.add_probes(remotes.add_drivers(remotes.front_end(folder / "R")))
        self.remotes = remotes.synchronize(r, folder / "N")
        self.agent_folder = folder / "agent"
        self.agent_folder.mkdir()
        self.agent: AgentProcess | None = None
        self.program = folder / "vmpack"
        self.environment = self._environment(hosts)
        self.executor = Executor(self.remotes, name, self.environment)

    def _environment(self, hosts: Path) -> dict[str, str]:
        config, program = self.folder / "vmpack.toml", self.program
        config.write_text(
            f'[agent]\nconnect_uri = "{self.host.uri}"\nrun_dir = "{self.agent_folder}/run"\n'
            f'state_dir = "{self.agent_folder}/state"\n'
        )
        program.write_text(
            "#!/bin/sh\ncommand=$1\nshift\n"
            f'exec {sys.executable} -m vmpack.cli.main "$command" --config {config} "$@"\n'
        )
        program.chmod(0o755)
        return {
            "PATH": os.environ["PATH"],
            "LIBVIRT_DEFAULT_URI": self.host.uri,
            "ONE_DOUBLE_HOSTS": str(hosts),
            "ONE_DOUBLE_STATE": str(self.folder / "state.db"),
            "VMPACK_PROGRAM": str(program),
            "VMPACK_RUN_DIR": str(self.agent_folder / "run"),
            "VMPACK_CONFIG_DIR": str(self.agent_folder / "etc"),
        }

    def deploy(self, vm: VmOrder, most_mib: int, **options: object) -> LabGuest:
        """Deploy a VM that can be resized up to `most_mib`, and wait until it has booted and shrunk."""
        result = self.executor.deploy(vm, self.domain_xml(vm, most_mib, **options))
        assert result.success and not result.log, result
        guest = self.host.guest(f"one-{vm.id}")
        assert guest.uuid == vm.deploy_id
        self.host.wait_ready()
        eventually("it has what is paid for", lambda: balloon_bytes(guest) <= vm.memory_mib * MIB)
        return guest

    def domain_xml(self, vm: VmOrder, most_mib: int, **options: object) -> str:
        """What oned would write for such a lab guest: no balloon, no period, its own metadata."""
        spec = GuestSpec(f"one-{vm.id}", most_mib * MIB, vcpus=1, **options)  # type: ignore[arg-type]
        domain = ElementTree.fromstring(self.host.describe(spec))
        devices, current = domain.find("devices"), domain.find("currentMemory")
        assert devices is not None and current is not None
        balloon = devices.find("memballoon")
        assert balloon is not None
        devices.remove(balloon)
        current.text = str(vm.memory_mib * MIB // KIB)
        ElementTree.register_namespace("one", _ONE)
        metadata = ElementTree.SubElement(ElementTree.SubElement(domain, "metadata"), f"{{{_ONE}}}vm")
        ElementTree.SubElement(metadata, f"{{{_ONE}}}system_datastore").text = str(vm.folder)
        return ElementTree.tostring(domain, encoding="unicode")


def policy(guest: LabGuest) -> GuestPolicy:
    """The guest's own policy, asked of libvirt and not of vmpack."""
    return read_policy(ElementTree.fromstring(guest.domain.XMLDesc(0)))[0]
