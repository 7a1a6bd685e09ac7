"""An empty qcow2 image, for guests whose snapshots need one; made by hand so that no tool is needed."""

from __future__ import annotations

import struct
from pathlib import Path

from vmpack.units import KIB, MIB

_CLUSTER_BITS = 16
_CLUSTER_BYTES = 64 * KIB
_HEADER, _REFERENCE_TABLE, _REFERENCES, _FIRST_TABLE = range(4)
"""The clusters in use, by number."""


def write_tiny_qcow2(path: Path, size_bytes: int = MIB) -> Path:
    """Write an image (version 2, nothing allocated) of this virtual size, 512 MiB at most; returns `path`."""
    header = struct.pack(
        ">4sIQIIQIIQQIIQ",
        b"QFI\xfb", 2, 0, 0, _CLUSTER_BITS, size_bytes, 0, 1, _FIRST_TABLE * _CLUSTER_BYTES,
        _REFERENCE_TABLE * _CLUSTER_BYTES, 1, 0, 0,
    )  # fmt: skip
    image = bytearray(4 * _CLUSTER_BYTES)
    image[: len(header)] = header
    struct.pack_into(">Q", image, _REFERENCE_TABLE * _CLUSTER_BYTES, _REFERENCES * _CLUSTER_BYTES)
    struct.pack_into(">4H", image, _REFERENCES * _CLUSTER_BYTES, 1, 1, 1, 1)
    path.write_bytes(image)
    return path
