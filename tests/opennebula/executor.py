"""A double of OpenNebula's VMM executor: calls a node's actions as the real one does, and reads their output.

Made after the driver contract of 7.x. Actions of the ssh stream run below `bash -s` with a quoted heredoc,
the others as one remote command; the VM's number and the host's name are appended to every call. What would
corrupt the driver protocol is an AssertionError here.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

_LOG_LINE = re.compile(r"^(ERROR|INFO|WARN|DEBUG):\s+(\d+)?\s*(.*)$")
_NOT_THERE = 42
DEADLINE_S = 600


@dataclass(frozen=True, slots=True)
class Result:
    """What oned learns of one action."""

    success: bool
    info: str
    """The stdout of a success; of a failure the plain lines of stderr, glued."""
    log: tuple[str, ...]


@dataclass(slots=True)
class VmOrder:
    """One VM as oned describes it to an action."""

    id: int
    memory_mib: int
    folder: Path
    """Its folder in the system datastore."""
    deploy_id: str = "-"
    old_memory_mib: int | None = None
    user_template: str = ""

    def vm_xml(self) -> str:
        resize = f"<RESIZE><MEMORY>{self.old_memory_mib}</MEMORY></RESIZE>" if self.old_memory_mib else ""
        return (
            f"<VM><ID>{self.id}</ID><NAME>it's &quot;{self.id}&quot; $HOME `id`</NAME><STATE>3</STATE>"
            f"<LCM_STATE>3</LCM_STATE><DEPLOY_ID>{self.deploy_id}</DEPLOY_ID>"
            f"<TEMPLATE><MEMORY><![CDATA[{self.memory_mib}]]></MEMORY>{resize}</TEMPLATE>"
            f"<USER_TEMPLATE>{self.user_template}</USER_TEMPLATE></VM>"
        )

    def action_xml(self, host: str, destination: str = "") -> str:
        folder = escape(str(self.folder))
        return (
            f"<VMM_DRIVER_ACTION_DATA><HOST>{host}</HOST><MIGR_HOST>{destination}</MIGR_HOST>"
            f"<DEPLOY_ID>{self.deploy_id}</DEPLOY_ID><DISK_TARGET_PATH>{folder}</DISK_TARGET_PATH>"
            f"{self.vm_xml()}<DATASTORE><TEMPLATE><SHARED>YES</SHARED></TEMPLATE></DATASTORE>"
            "</VMM_DRIVER_ACTION_DATA>"
        )


class Executor:
    """oned's side of one node's actions. `node` is N, the node's copy of the remotes tree."""

    def __init__(self, node: Path, name: str, environment: Mapping[str, str], vm_mad: str = "vmpack") -> None:
        self.name = name
        self.actions = node / "vmm" / vm_mad
        self.environment = dict(environment)

    def deploy(self, vm: VmOrder, domain_xml: str) -> Result:
        """Writes vm.xml first, as oned does; a success gives the VM its deploy id."""
        vm.folder.mkdir(parents=True, exist_ok=True)
        (vm.folder / "vm.xml").write_text(vm.vm_xml())
        result = self.stream("deploy", vm, [f"{vm.folder}/deployment.0", self.name], domain_xml)
        if result.success:
            assert result.info.strip(), "Empty deploy ID"
            vm.deploy_id = result.info.strip()
        return result

    def save(self, vm: VmOrder) -> Result:
        return self._data("save", vm, [vm.deploy_id, f"{vm.folder}//checkpoint", self.name])

    def restore(self, vm: VmOrder) -> Result:
        return self._data("restore", vm, [f"{vm.folder}//checkpoint", self.name, vm.deploy_id])

    def migrate(self, vm: VmOrder, destination: str) -> Result:
        """Runs on the source; after a failure oned takes the VM to be there still."""
        given = vm.action_xml(self.name, destination)
        return self.stream("migrate", vm, [vm.deploy_id, destination, self.name], given)

    def cancel(self, vm: VmOrder) -> Result:
        return self._data("cancel", vm, [vm.deploy_id, self.name])

    def resize(self, vm: VmOrder, memory_mib: int) -> Result:
        """A failure takes the VM's memory back to what it was."""
        vm.old_memory_mib, vm.memory_mib = vm.memory_mib, memory_mib
        result = self.remote("resize", vm, [vm.deploy_id], vm.action_xml(self.name))
        if not result.success:
            vm.memory_mib = vm.old_memory_mib
        vm.old_memory_mib = None
        return result

    def snapshot_create(self, vm: VmOrder, number: int) -> Result:
        given = vm.action_xml(self.name)
        return self.remote("snapshot_create", vm, [vm.deploy_id, str(number)], given)

    def snapshot_revert(self, vm: VmOrder, snapshot: str) -> Result:
        return self._data("snapshot_revert", vm, [vm.deploy_id, snapshot])

    def stream(self, action: str, vm: VmOrder, parameters: list[str], given: str) -> Result:
        """A step over the ssh stream. Parameters are put in quotes, and not escaped, as the real one does."""
        script = self.actions / action
        words = " ".join(f"'{parameter}'" for parameter in parameters)
        text = (
            f'if [ ! -x "{script}" ]; then exit {_NOT_THERE} 1>&2; fi\n'
            f"(cat << 'EOT' | {script} {words} {vm.id} {self.name})\n{given}\nEOT\n"
        )
        return self._read(self._run(["bash", "-s"], text))

    def remote(self, action: str, vm: VmOrder, parameters: list[str], given: str) -> Result:
        """An action that is one remote command, its input raw."""
        script = self.actions / action
        words = " ".join([*map(shlex.quote, parameters), str(vm.id), self.name])
        text = f"if [ -x {script} ]; then {script} {words}; else exit {_NOT_THERE}; fi"
        return self._read(self._run(["sh", "-c", text], given))

    def _data(self, action: str, vm: VmOrder, parameters: list[str]) -> Result:
        return self.stream(action, vm, parameters, vm.action_xml(self.name))

    def _run(self, command: list[str], given: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, input=given, capture_output=True, text=True, env=self.environment, timeout=DEADLINE_S
        )

    def _read(self, done: subprocess.CompletedProcess[str]) -> Result:
        assert done.returncode != _NOT_THERE, "the action is not there, or not executable"
        log, error = [], ""
        for line in done.stderr.splitlines():
            match = _LOG_LINE.match(line.strip())
            if match is None:
                error += line.strip()
            else:
                log.append(f"{match[1]}: {match[3]}")
        assert len(done.stdout.split()) <= 1, f"this corrupts the driver protocol: {done.stdout!r}"
        info = done.stdout if done.returncode == 0 else error
        return Result(done.returncode == 0, info or "-", tuple(log))
