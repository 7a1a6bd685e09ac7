"""Which GPUs the administrator wants looked at: the words of the configuration key gpu.devices."""

from __future__ import annotations

import re
from dataclasses import dataclass

_UUID = re.compile(r"GPU-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
_PCI_ADDRESS = re.compile(r"(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}:[0-9a-f]{2}\.[0-7])\Z")
_INDEX = re.compile(r"[0-9]{1,3}\Z")


@dataclass(frozen=True, slots=True)
class GpuSelection:
    """Which of the host's GPUs are looked at."""

    all: bool = True
    indexes: tuple[int, ...] = ()
    uuids: tuple[str, ...] = ()
    pci_addresses: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> GpuSelection:
        """Read "all", "none", or indexes, UUIDs and PCI addresses with commas between. Raises ValueError."""
        if text in ("all", "none"):
            return cls(all=text == "all")
        indexes: list[int] = []
        uuids: list[str] = []
        addresses: list[str] = []
        for word in text.split(","):
            name = word.strip()
            if _INDEX.match(name):
                indexes.append(int(name))
            elif _UUID.match("GPU-" + name.lower().removeprefix("gpu-")):
                uuids.append("GPU-" + name.lower().removeprefix("gpu-"))
            elif (address := pci_address(name)) is not None:
                addresses.append(address)
            else:
                raise ValueError(f"{name!r} is no GPU's index, UUID or PCI address")
        return cls(False, tuple(indexes), tuple(uuids), tuple(addresses))

    @property
    def none(self) -> bool:
        """True when no GPU is to be looked at."""
        return self == GpuSelection(all=False)

    def takes_address(self, address: str | None) -> bool:
        """True for a GPU that is known by its PCI address alone."""
        return self.all or address in self.pci_addresses


def pci_address(text: str) -> str | None:
    """A PCI address as sysfs writes it, from any common way to write it; None for anything else."""
    match = _PCI_ADDRESS.match(text.lower())
    return None if match is None else f"{int(match[1] or '0', 16):04x}:{match[2]}"
