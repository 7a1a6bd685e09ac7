"""Lab guests with what the reporter needs: a network, curl, a shell of choice as /bin/sh, and a context.

Used by test_onegate_reporter.py. curl and dash are this machine's own, in an archive behind the lab's that
only these guests are booted with: no image that others use carries curl's many libraries.
"""

from __future__ import annotations

import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

from tests.opennebula.onegate import Vm
from tests.opennebula.reporter import INIT, PUBLISHER
from tests.waiting import eventually
from vmpack.lab.guest_spec import GuestSpec
from vmpack.lab.image import build_image
from vmpack.lab.initramfs import Initramfs
from vmpack.lab.lab import Lab, LabGuest
from vmpack.lab.packages import shared_libraries
from vmpack.units import MIB

PROGRAM = "/usr/local/sbin/vmpack-onegate-publisher"
APPLIED = "/run/vmpack/applied"
STATUS = "/run/vmpack/reporter.status"

_HOST = "10.0.2.2"
"""What QEMU's user-mode network calls the loopback interface of the network that QEMU is in."""
_CONTEXT_DISK = "/mnt"
_CONTEXT = "/var/run/one-context"


class OneGateGuest:
    """One guest. `network_of` is the process in whose network a server must listen to be reached."""

    def __init__(self, guest: LabGuest, shell: str) -> None:
        self.shell = shell
        self.control = guest.control
        self.network_of = guest.pid
        eventually("its network is up", lambda: "inet 10.0.2." in self.sh("ip address"))
        if shell != "busybox":
            self.sh(f"ln -sf {shell} /bin/sh")

    def sh(self, script: str) -> str:
        """What a script prints, which must succeed."""
        result = self.control.run(["sh", "-c", script])
        assert result.exit_code == 0, result.output
        return result.output

    def set_context(self, port: int, vm: Vm, period_s: int) -> None:
        """Write one_env as the guest's context package does."""
        names = {
            "TOKENTXT": vm.token,
            "VMID": vm.number,
            "ONEGATE_ENDPOINT": f"http://{_HOST}:{port}",
            "VMPACK_REPORT_INTERVAL": period_s,
        }
        lines = "\n".join(f'export {name}="{value}"' for name, value in names.items())
        self.sh(f"umask 377 && cat > {_CONTEXT}/one_env << 'END'\n{lines}\nEND\n")

    def init(self, command: str = "") -> None:
        """Run the installer from the context's disk, as the context package does."""
        self.sh(f"cd {_CONTEXT_DISK} && MOUNT_DIR={_CONTEXT_DISK} /bin/sh ./{INIT.name} {command}")

    def text(self, path: str) -> str:
        """A file's text; empty where there is none."""
        return self.sh(f"cat {path} 2> /dev/null || true")

    def files(self) -> dict[str, int]:
        """Files and folders with their bytes, less those in mounted file systems."""
        rows = [row.partition(" ") for row in self.sh("find / -xdev -exec stat -c '%s %n' {} +").splitlines()]
        return {name: int(size) for size, _, name in rows}

    def processes(self) -> dict[int, str]:
        """Process ids and command lines, less the kernel's own."""
        rows = [row.split(maxsplit=1) for row in self.sh("ps -o pid,args").splitlines()[1:]]
        return {int(row[0]): row[1] for row in rows if len(row) == 2 and not row[1].startswith("[")}


def boot(lab: Lab, folder: Path, shells: Sequence[str]) -> list[OneGateGuest]:
    """Start one guest for each shell, and wait until they have their network; `end` is for the caller."""
    initramfs = folder / "initramfs"
    initramfs.write_bytes(build_image().initramfs.read_bytes() + _more_files())
    for shell in shells:
        spec = GuestSpec(_name(shell), 256 * MIB, vcpus=1, network=True, zram_swap_bytes=32 * MIB)
        domain = ElementTree.fromstring(lab.describe(spec))
        next(domain.iter("initrd")).text = str(initramfs)
        lab.hypervisor.connection().createXML(ElementTree.tostring(domain, encoding="unicode"), 0)
    lab.wait_ready()
    return [OneGateGuest(lab.guest(_name(shell)), shell) for shell in shells]


def end(lab: Lab, shells: Sequence[str]) -> None:
    """End these guests, where they run."""
    for shell in shells:
        LabGuest(lab, _name(shell)).destroy()


def _name(shell: str) -> str:
    return f"one-{shell}"


def _more_files() -> bytes:
    """An archive that the kernel unpacks over the lab's."""
    archive = Initramfs()
    for name in ("curl", "dash"):
        program = Path(str(shutil.which(name)))
        archive.add_file(f"bin/{name}", program.read_bytes(), executable=True)
        for library in shared_libraries(program):
            archive.add_file(f"lib64/{library.name}", library.read_bytes(), executable=True)
    for script in (INIT, PUBLISHER):
        archive.add_file(f"{_CONTEXT_DISK}/{script.name}", script.read_bytes(), executable=True)
    archive.add_folder(_CONTEXT)
    archive.add_folder("usr/local/sbin")
    return archive.to_bytes()
