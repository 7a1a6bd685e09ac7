"""What never changes about the machine while it is up."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Machine:
    """One host's machine, as a cloud wants to know it."""

    cpus: int
    """Logical CPUs that are there, switched off ones too."""
    cpu_mhz: int
    """0 where the machine does not tell."""
    cgroups_version: int | None
    """1 where any controller is of that version, None without control groups."""
    has_gpus: bool = False
    """A GPU of NVIDIA's is built in, whether it can be read or not."""
