"""A node with our probes, as an installation leaves it, and the texts of an agent; for tests of probes."""

from __future__ import annotations

import base64
import os
import subprocess
from pathlib import Path

from tests import builders, intervals
from tests.opennebula import remotes, template
from tests.opennebula.host_record import HostRecord, VmRecord
from tests.opennebula.monitord import Client, Monitord
from vmpack.model.interval import Interval
from vmpack.publish.probe_file import write_probe_file
from vmpack.publish.probe_text import ProbeSettings, render

HOST_SYSTEM = "host/system"
VM_SNAPSHOT = "vm/snapshot"
SETTINGS = ProbeSettings(builders.MACHINE, 0, intervals.VERSION, observe_only=False)
NO_LIBVIRT = "qemu+unix:///system?socket=/nonexistent/libvirt-sock"


class ProbeNode:
    """One node whose stock probes are stand-ins and whose libvirt does not run, unless `uri` names one."""

    def __init__(self, folder: Path, uri: str = NO_LIBVIRT) -> None:
        self.folder = folder
        self.run_dir = folder / "run"
        self.remotes = remotes.add_probes(remotes.front_end(folder / "R"))
        self.node = remotes.synchronize(self.remotes, folder / "N")
        (self.run_dir / "probe").mkdir(parents=True)
        self.environment = {
            "PATH": os.defpath,
            "VMPACK_RUN_DIR": str(self.run_dir),
            "VMPACK_CONFIG_DIR": str(folder / "etc"),
            "LIBVIRT_DEFAULT_URI": uri,
        }

    def text_path(self, category: str) -> Path:
        """Where the agent writes what a category's probe prints."""
        return self.run_dir / "probe" / category.replace("/", "-")

    def publish(self, interval: Interval, holds_s: float = 3600.0) -> None:
        """Write what an agent writes in this interval; negative `holds_s`: it died so long ago."""
        for category, text in render(interval, SETTINGS).items():
            write_probe_file(self.run_dir / "probe" / category, text, holds_s)

    def probe(self, category: str) -> Path:
        """Our probe of a category, where the client runs it."""
        return self.node / "im/vmpack.d/../vmpack-probes.d" / category / "vmpack.sh"

    def print(self, category: str, **options: object) -> str:
        """What our probe prints, which must be ASCII and end with a line; it must exit with 0."""
        done = subprocess.run(
            [str(self.probe(category)), "vmpack", "0", "node-1"],
            cwd=self.node / "im/vmpack.d",
            env=self.environment,
            stdout=subprocess.PIPE,
            encoding="ascii",
            check=True,
            timeout=120,
            **options,  # type: ignore[call-overload]
        )
        assert done.stdout == "" or done.stdout.endswith("\n")
        return str(done.stdout)

    def tells_nothing_old(self) -> bool:
        """Is nothing said of VMs but that nobody knows?"""
        return nothing_old(self.print(VM_SNAPSHOT))

    def cloud(
        self, *vm_ids: int, order: int = 1, forgets_capacity: bool = False
    ) -> tuple[HostRecord, Client]:
        """A front-end that has such VMs of 256 MiB on this node, and the client that it starts here."""
        host = HostRecord(forgets_capacity, vms={number: VmRecord(256) for number in vm_ids})
        state = self.folder / "state.db"
        environment = {**self.environment, "ONE_DOUBLE_STATE": str(state)}
        return host, Client(self.node, Monitord({0: host}), environment=environment, order=order)


def nothing_old(text: str) -> bool:
    """Does this tell of VMs only that nobody knows? Other tests' VMs may run on this machine, too."""
    blocks = template.vectors(template.parse(text), "VM")
    told = [template.parse(base64.b64decode(block["MONITOR"]).decode()) for block in blocks]
    return all(one == [("VMPACK_STATE", "NO_LIBVIRT"), ("VMPACK_REASON", "no_libvirt")] for one in told)
