"""Builds the double of NVIDIA's library and steers the machine that it shows. Called by conftest.py."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from vmpack.units import GIB, MIB

SOURCE = Path(__file__).parent / "nvml_double.c"
NAME = "libnvidia-ml.so.1"
Value = str | int | Sequence[str | int]

VM = "1d5ae572-11fd-45bb-9a4f-dbfb62edcd5c"
OTHER_VM = "2d5ae572-11fd-45bb-9a4f-dbfb62edcd5c"


def build(folder: Path) -> Path:
    """Compile the double under the name and the soname of the real library."""
    library = folder / NAME
    options = ["-std=c11", "-D_POSIX_C_SOURCE=200809L", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run(["cc", *options, f"-Wl,-soname,{NAME}", "-o", library, SOURCE], check=True)
    return library


def uuid_of(gpu: int) -> str:
    """The UUID that `gpu` gives its GPU."""
    return f"GPU-{gpu:08x}-0000-4000-8000-000000000000"


def gpu(number: int, **changes: Value) -> dict[str, Value]:
    """Everything that an idle data centre GPU tells."""
    told: dict[str, Value] = {
        "name": "NVIDIA Double 80GB", "uuid": uuid_of(number), "pci": f"00000000:{0x3B + number:02X}:00.0",
        "cores": 6912, "memory_total": 80 * GIB, "memory_used": 512 * MIB, "utilization": 0,
        "memory_utilization": 0, "encoder": 0, "decoder": 0, "temperature": 31, "power_mw": 61250,
        "power_limit_mw": 300000, "ecc_corrected": 0, "ecc_uncorrected": 0, "mig": 0,
    }  # fmt: skip
    return {f"{number}.{key}": value for key, value in (told | changes).items()}


def mig_uuid_of(gpu: int, part: int) -> str:
    """The UUID that `mig` gives its MIG instance."""
    return f"MIG-{gpu:08x}-0000-4000-8000-{part:012x}"


def mig(number: int, part: int, **changes: Value) -> dict[str, Value]:
    """Everything that an idle MIG instance tells."""
    told: dict[str, Value] = {
        "name": "NVIDIA Double 80GB MIG 1g.10gb", "uuid": mig_uuid_of(number, part), "multiprocessors": 14,
        "memory_total": 10 * GIB, "memory_used": 16 * MIB, "gpu_instance": part + 7,
    }  # fmt: skip
    return {f"{number}.{part}.{key}": value for key, value in (told | changes).items()}


class NvmlDouble:
    """The machine that the double shows: keys and values as the C file explains them."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "machine"
        self._keys: dict[str, Value] = {}

    def show(self, *parts: Mapping[str, Value], **keys: Value) -> None:
        """Show this too; None of it is seen half."""
        for part in (*parts, keys):
            self._keys.update(part)
        self._write()

    def hide(self, *keys: str) -> None:
        """Show these keys no more."""
        for key in keys:
            del self._keys[key]
        self._write()

    def calls(self) -> list[str]:
        """Names of the calls so far, in order."""
        record = Path(f"{self.path}.calls")
        return record.read_text().split() if record.exists() else []

    def _write(self) -> None:
        lines = []
        for key, value in self._keys.items():
            for one in value if isinstance(value, list | tuple) else [value]:
                lines.append(f"{key} {one}\n")
        half = self.path.with_suffix(".half")
        half.write_bytes("".join(lines).encode("utf-8", "surrogateescape"))
        os.replace(half, self.path)
