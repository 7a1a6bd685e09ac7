"""The threads of a VM that have CPU masks of their own (vCPUs, emulator, I/O threads), and their names."""

from __future__ import annotations

from typing import Literal

ThreadKind = Literal["vcpu", "emulator", "iothread"]
ThreadKey = tuple[ThreadKind, int]
"""Kind and number; that of the emulator is 0."""


def thread_name(key: ThreadKey) -> str:
    """For people: "vCPU 3", "I/O thread 1", "emulator"."""
    kind, number = key
    return {"vcpu": f"vCPU {number}", "iothread": f"I/O thread {number}", "emulator": "emulator"}[kind]
