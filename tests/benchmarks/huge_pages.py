"""What ballooning does to the host's huge pages under a guest, by step, by how the guest's free memory lies.

Real guests, one at a time. Each fills memory and frees it: whole; whole, and reports the free pages to the
host; scattered (every second piece of 64 KiB stays); or scattered, and compacted by its own kernel. Then it
is packed in steps of some size, left alone, and given all back and filled again. Printed: which part of its
process's memory huge pages make up at each point, how many the kernel split, what came back, and how long
reading that takes.
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.calibration import report
from tests.waiting import eventually
from vmpack.clock import SystemClock
from vmpack.lab.guest_spec import GuestSpec
from vmpack.lab.lab import Lab, LabGuest
from vmpack.units import KIB, MIB

NOMINAL_BYTES = 512 * MIB
PACKED_BYTES = 256 * MIB
FILLED_MIB = 360
SCATTERED_MIB = 128
CALM_S = 40.0
"""For the host's khugepaged."""
CASES = (
    ("whole", 2),
    ("whole", 256),
    ("reported", 256),
    ("scattered", 2),
    ("scattered", 256),
    ("compacted", 256),
)
"""How what is free lies, and steps in MiB."""
REPORT_S = 10.0
"""A guest reports free pages two seconds after they became free, a part at a time."""
# Without a process for each file: the guest's processor is emulated.
SCATTER = (
    "cd /load; x=$(printf '%065535d' 0); n=0; while [ $n -lt {count} ]; do echo $x > f$n; n=$((n+1)); done; "
    "rm f*1 f*3 f*5 f*7 f*9"
)
SPLITS = ("thp_split_pmd", "thp_split_page", "thp_deferred_split_page")


def smaps(pid: int) -> dict[str, int]:
    """Bytes by name, of the whole process."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return {name: int(kib) * KIB for name, kib in re.findall(r"^(\w+): +(\d+) kB$", text, re.MULTILINE)}


def ratio(found: dict[str, int]) -> float:
    """Which part of it are huge pages."""
    return round(found["AnonHugePages"] / found["Rss"], 3)


def huge_ratio(pid: int) -> float:
    """Which part of the process's memory are huge pages now."""
    return ratio(smaps(pid))


def splits() -> dict[str, int]:
    """How many huge pages the kernel of this machine has split so far, by kind."""
    text = Path("/proc/vmstat").read_text()
    return {name: int(re.findall(rf"^{name} (\d+)$", text, re.MULTILINE)[0]) for name in SPLITS}


def pack(guest: LabGuest, step_bytes: int) -> None:
    """Shrink the balloon to PACKED_BYTES, waiting for each step."""
    size, clock = NOMINAL_BYTES, SystemClock()
    while size > PACKED_BYTES:
        size = max(PACKED_BYTES, size - step_bytes)
        guest.domain.setMemory(size // KIB)
        deadline_s = clock.time_s() + 20.0
        while guest.domain.memoryStats()["actual"] * KIB > size and clock.time_s() < deadline_s:
            clock.wait(0.02)


def fill(guest: LabGuest, mib: int) -> None:
    """Take memory in the guest and free it again."""
    guest.control.load_anonymous(mib * MIB)
    eventually("it is full", lambda: guest.control.progress()[-1].state == "done")
    guest.control.free()


def measure_one(lab: Lab, layout: str, step_mib: int) -> dict[str, Any]:
    """Boot, fill, free, pack, wait, give back and fill again: one guest."""
    (guest,) = lab.start(GuestSpec("huge", NOMINAL_BYTES, vcpus=1, free_page_reporting=layout == "reported"))
    try:
        lab.wait_ready()
        fill(guest, FILLED_MIB)
        if layout == "reported":
            SystemClock().wait(REPORT_S)
        elif layout != "whole":
            guest.control.run(["sh", "-c", SCATTER.format(count=SCATTERED_MIB * 16)], timeout_s=100)
        if layout == "compacted":
            guest.control.run(["sh", "-c", "echo 1 > /proc/sys/vm/compact_memory"])
        before, split = huge_ratio(guest.pid), splits()
        rss = smaps(guest.pid)["Rss"]
        pack(guest, step_mib * MIB)
        began = time.perf_counter()
        packed = smaps(guest.pid)
        read_ms = round(1000 * (time.perf_counter() - began), 2)
        split = {name: count - split[name] for name, count in splits().items()}
        SystemClock().wait(CALM_S)
        calm = smaps(guest.pid)
        guest.domain.setMemory(NOMINAL_BYTES // KIB)
        fill(guest, FILLED_MIB - SCATTERED_MIB)
        return {
            "huge_ratio": before,
            "packed": ratio(packed),
            "calm": ratio(calm),
            "given_back": huge_ratio(guest.pid),
            "freed_mib": (rss - packed["Rss"]) // MIB,
            "refilled_while_calm_mib": (calm["Rss"] - packed["Rss"]) // MIB,
            "read_ms": read_ms,
            **split,
        }
    finally:
        guest.destroy()


def measure() -> dict[str, Any]:
    """One line a case."""
    with Lab.private() as lab:
        return {f"{layout}_{step}mib": measure_one(lab, layout, step) for layout, step in CASES}


if __name__ == "__main__":
    report(__doc__ or "", measure)
