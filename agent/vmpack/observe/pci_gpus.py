"""GPUs as the kernel's PCI tree has them: where each sits, and those set aside for a VM of their own.

Called by gpu.py and nvml.py. NVIDIA's driver does not see a GPU that is bound to vfio; sysfs does. Nothing
here touches the hardware, and what cannot be read is None or absent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from vmpack.model.gpu import Gpu

_NVIDIA = "0x10de"
_DISPLAY_CLASS = "0x03"
_ADDRESS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]\Z")
_VIRTUAL_FUNCTION_OF = "physfn"


def passthrough_gpus(sys: Path, owned: Iterable[str]) -> tuple[Gpu, ...]:
    """NVIDIA's whole GPUs that are bound to vfio, or are among these PCI addresses that VMs own; in order."""
    addresses = {path.name for path in sys.glob("bus/pci/drivers/*vfio*/*:*") if _ADDRESS.match(path.name)}
    addresses.update(address for address in owned if _ADDRESS.match(address))
    found = [_passthrough_gpu(sys, address) for address in sorted(addresses)]
    return tuple(gpu for gpu in found if gpu is not None)


def parent_gpu(sys: Path, device: str) -> str | None:
    """PCI address of the GPU that a vGPU (a virtual function's address, or an mdev's uuid) is a part of."""
    link = (
        sys / "bus/pci/devices" / device / _VIRTUAL_FUNCTION_OF
        if _ADDRESS.match(device)
        else sys / "bus/mdev/devices" / device
    )
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError):
        return None
    name = target.name if _ADDRESS.match(device) else target.parent.name
    if not _ADDRESS.match(name):
        return None
    of_gpu = sys / "bus/pci/devices" / name / _VIRTUAL_FUNCTION_OF
    return of_gpu.resolve().name if of_gpu.exists() else name


def numa_node(sys: Path, address: str | None) -> int | None:
    """The NUMA node next to this PCI device; None where the machine has no such thing."""
    text = "" if address is None else _text(sys / "bus/pci/devices" / address / "numa_node")
    return int(text) if text.isdecimal() else None


def has_gpus(sys: Path) -> bool:
    """True where there is a GPU of NVIDIA's, whoever has it."""
    return any(map(_is_gpu, sys.glob("bus/pci/devices/*")))


def _is_gpu(device: Path) -> bool:
    return _text(device / "vendor") == _NVIDIA and _text(device / "class").startswith(_DISPLAY_CLASS)


def _passthrough_gpu(sys: Path, address: str) -> Gpu | None:
    device = sys / "bus/pci/devices" / address
    if not _is_gpu(device):
        return None
    if (device / _VIRTUAL_FUNCTION_OF).exists():
        return None
    model = _text(device / "device").removeprefix("0x")
    return Gpu(
        name=f"NVIDIA {model}" if model else None,
        pci_address=address,
        numa_node=numa_node(sys, address),
        is_passthrough=True,
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
