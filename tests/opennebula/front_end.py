"""A double of an OpenNebula front-end for install.sh: a remotes tree, a configuration, stub CLI commands.

The machine of tests/unit/install_machine.py with ONE_LOCATION set. The stubs print what is put into the files
`hosts.xml`, `vms.xml` and `templates.xml` beside them, and write down how they were called; oneimage is a
double.
"""

from __future__ import annotations

import getpass
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.opennebula import images, remotes
from tests.unit.install_machine import ROOT, Machine, debian_machine, installed_release

MORE_PROGRAMS = "chown cmp date getent mktemp printf python3 sleep stat"
OURS = ("probes", "drivers", "onegate_scripts")
MONITORD = 'IM_MAD = [\n    NAME = "kvm",\n    ARGUMENTS = "-r 3 -t 15 -w 90 kvm" ]\n'
ONED = """ONEGATE_ENDPOINT = "http://169.254.16.9:5030"
VM_MAD = [
    NAME = "kvm",
    ARGUMENTS = "-t 15 -r 0 kvm -p",
    TYPE = "kvm" ]
"""
COMMANDS = {"onehost": "hosts", "onevm": "vms", "onetemplate": "templates"}
EXECRC = 'LIVE_DISK_SNAPSHOTS="kvm-qcow2 kvm-ssh"\n'


@dataclass
class FrontEnd:
    """The machine, and where its OpenNebula is."""

    machine: Machine
    one: Path
    prefix: Path

    @property
    def remotes(self) -> Path:
        """R."""
        return self.one / "var/remotes"

    @property
    def etc(self) -> Path:
        """OpenNebula's configuration."""
        return self.one / "etc"

    def install(self, *arguments: str) -> tuple[int, str]:
        """./install.sh opennebula below a prefix: exit code and all it said."""
        return self.run("opennebula", *arguments)

    def run(self, command: str, *arguments: str) -> tuple[int, str]:
        """./install.sh COMMAND below a prefix: exit code and all it said."""
        done = self.machine.install(command, "--prefix", str(self.prefix), *arguments)
        return done.returncode, done.stdout + done.stderr

    def answers(self, name: str, body: str) -> None:
        """What `onehost list -x` (hosts), `onevm list -x` (vms)... print from now on."""
        (self.one / f"{name}.xml").write_text(body)

    def hosts(self, *entries: tuple[str, str, str], granted: bool = False) -> None:
        """Hosts as name, IM_MAD, VM_MAD."""
        more = (
            "<VMPACK_RESERVED_SET>-1024</VMPACK_RESERVED_SET><RESERVED_MEM>-1024</RESERVED_MEM>"
            if granted
            else ""
        )
        self.answers(
            "hosts",
            _pool(
                "HOST",
                (
                    f"<NAME>{name}</NAME><IM_MAD><![CDATA[{im}]]></IM_MAD><VM_MAD><![CDATA[{vm}]]></VM_MAD>"
                    f"<TEMPLATE>{more}</TEMPLATE>"
                    for name, im, vm in entries
                ),
            ),
        )

    def vms(self, *entries: tuple[str, str]) -> None:
        """VMs as STATE, VM_MAD of the last record."""
        self.answers(
            "vms",
            _pool(
                "VM",
                (
                    f"<NAME>v</NAME><STATE>{state}</STATE><HISTORY_RECORDS><HISTORY><SEQ>0</SEQ>"
                    f"<HOSTNAME>a</HOSTNAME><VM_MAD>{mad}</VM_MAD></HISTORY></HISTORY_RECORDS>"
                    for state, mad in entries
                ),
            ),
        )

    def tree(self) -> dict[str, tuple[str, int]]:
        """Every file and link below R and etc: content or target, and mode."""
        found = {}
        for top in (self.remotes, self.etc):
            for path in sorted(top.rglob("*")):
                if path.is_symlink():
                    found[str(path.relative_to(self.one))] = (f"-> {path.readlink()}", 0)
                elif path.is_file():
                    found[str(path.relative_to(self.one))] = (path.read_text(), path.stat().st_mode & 0o777)
        return found


def _pool(tag: str, bodies: Iterable[str]) -> str:
    members = "".join(f"<{tag}><ID>{index}</ID>{body}</{tag}>" for index, body in enumerate(bodies))
    return f"<{tag}_POOL>{members}</{tag}_POOL>"


def front_end(tmp_path: Path, *, location: str = "one") -> FrontEnd:
    """An OpenNebula front-end of this user's own, with no host yet; vmpack's own program is a fake."""
    machine = debian_machine(tmp_path)
    for name in MORE_PROGRAMS.split():
        link = tmp_path / "bin" / name
        if not link.is_symlink():
            link.symlink_to(str(shutil.which(name)))
    machine.has("id", f'case "$1" in -un) echo {getpass.getuser()} ;; *) echo 1000 ;; esac')
    for name in OURS:
        shutil.copytree(ROOT / name, machine.checkout / name)
    for name in ("README.md", "LICENSE"):
        shutil.copy(ROOT / name, machine.checkout / name)
    one = tmp_path / location
    (one / "etc/vmm_exec").mkdir(parents=True)
    (one / "etc/monitord.conf").write_text(MONITORD)
    (one / "etc/oned.conf").write_text(ONED)
    (one / "etc/vmm_exec/vmm_execrc").write_text(EXECRC)
    (one / "etc/oned.conf").chmod(0o640)
    (one / "var").mkdir()
    (one / "bin").mkdir()
    remotes.front_end(one / "var/remotes")
    machine.environment["ONE_LOCATION"] = str(one)
    place = FrontEnd(machine, one, tmp_path / "prefix")
    for command, pool in COMMANDS.items():
        _stub(machine, one, command, pool)
    oneimage = one / "bin/oneimage"
    oneimage.write_text(f"#!{sys.executable}\n{Path(images.__file__).read_text()}")
    oneimage.chmod(0o755)
    place.hosts()
    place.vms()
    place.answers("templates", "<VMTEMPLATE_POOL/>")
    if not location.count(" "):
        installed_release(machine, str(place.prefix), command="opennebula")
    return place


def program_does(place: FrontEnd, body: str) -> None:
    """What the installed fake vmpack does from now on."""
    program = place.prefix / "lib/vmpack/current/bin/vmpack"
    program.write_text(f'#!/bin/sh\necho "vmpack $*" >>"{place.machine.base}/calls"\n{body}\n')


def _stub(machine: Machine, one: Path, command: str, pool: str) -> None:
    path = one / "bin" / command
    path.write_text(
        f'#!/bin/sh\necho "{command} $*" >>"{machine.base}/calls"\n'
        f'case "$1" in list) cat "{one}/{pool}.xml" ;; *) test ! -e "{one}/{command}-fails" ;; esac\n'
    )
    path.chmod(0o755)
