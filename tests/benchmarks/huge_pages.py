"""What ballooning does to the host's huge pages under a guest, by step, by how the guest's free memory lies.

Real guests, one at a time. Each fills its memory, frees it (whole, or every second piece of 64 KiB: then
what is free lies scattered), and is packed to a half in steps of some size. Printed: which part of its
process's memory huge pages make up before and after, how many the kernel split, and how long reading takes.
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
SCATTERED_MIB = 192
"""tmpfs takes no more than half of the guest."""
STEPS_MIB = (2, 256)
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


def huge_ratio(pid: int) -> float:
    """Which part of the process's memory are huge pages."""
    found = smaps(pid)
    return round(found["AnonHugePages"] / found["Rss"], 3)


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


def measure_one(lab: Lab, scattered: bool, step_mib: int) -> dict[str, Any]:
    """Boot, fill, free, pack one guest."""
    (guest,) = lab.start(GuestSpec("huge", NOMINAL_BYTES, vcpus=1, free_page_reporting=False))
    try:
        lab.wait_ready()
        if scattered:
            guest.control.run(["sh", "-c", SCATTER.format(count=SCATTERED_MIB * 16)], timeout_s=100)
        else:
            guest.control.load_anonymous(FILLED_MIB * MIB)
            eventually("it is full", lambda: guest.control.progress()[0].state == "done")
            guest.control.free()
        before, split, rss = huge_ratio(guest.pid), splits(), smaps(guest.pid)["Rss"]
        pack(guest, step_mib * MIB)
        began = time.perf_counter()
        after = smaps(guest.pid)
        read_ms = round(1000 * (time.perf_counter() - began), 2)
        return {
            "huge_ratio_before": before,
            "huge_ratio_after": round(after["AnonHugePages"] / after["Rss"], 3),
            "given_back_mib": (rss - after["Rss"]) // MIB,
            "read_ms": read_ms,
            **{name: count - split[name] for name, count in splits().items()},
        }
    finally:
        guest.destroy()


def measure() -> dict[str, Any]:
    """By how the free memory lies, and by step."""
    with Lab.private() as lab:
        return {
            f"{'scattered' if scattered else 'whole'}_{step}mib": measure_one(lab, scattered, step)
            for scattered in (False, True)
            for step in STEPS_MIB
        }


if __name__ == "__main__":
    report(__doc__ or "", measure)
