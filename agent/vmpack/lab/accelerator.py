"""What runs the lab's guests: KVM where it really works, else QEMU's own translation (TCG).

Called by the lab before it writes a domain's XML. A /dev/kvm that opens proves nothing (nested hosts have
one that cannot run a guest), so KVM must also make a virtual machine.
"""

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_KVM_CREATE_VM = 0xAE01


@dataclass(frozen=True, slots=True)
class Accelerator:
    """How guests run here, and why."""

    kind: Literal["kvm", "tcg"]
    reason: str


def detect_accelerator(device: Path = Path("/dev/kvm"), cpuinfo: Path = Path("/proc/cpuinfo")) -> Accelerator:
    """Find the best accelerator that works. Never raises: the reason says what was missing."""
    if not _cpu_virtualizes(cpuinfo):
        return Accelerator("tcg", "the CPU shows neither vmx nor svm")
    try:
        kvm = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        return Accelerator("tcg", f"{device} does not open: {error.strerror}")
    try:
        os.close(fcntl.ioctl(kvm, _KVM_CREATE_VM, 0))
    except OSError as error:
        return Accelerator("tcg", f"{device} opens but makes no virtual machine: {error.strerror}")
    finally:
        os.close(kvm)
    return Accelerator("kvm", f"{device} makes virtual machines")


def _cpu_virtualizes(cpuinfo: Path) -> bool:
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.startswith("flags")), "")
    return not {"vmx", "svm"}.isdisjoint(flags.split())
