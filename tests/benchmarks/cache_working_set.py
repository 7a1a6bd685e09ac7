"""A real guest whose page cache is its working set: it reads files of 60 % of its nominal over and over.

    python -m tests.benchmarks.cache_working_set --stances balanced,dense --json

The files lie on a disk of 100 MiB/s, so that a page that was lost costs a real read. For each stance the
agent packs the guest until nothing moves; then it is measured packed and whole in turns. A guest that reads
as fast as it can loses most; what of it was read from the disk tells without the noise of a busy machine.

What such a guest tells: read() of a lost page is no major fault. Its kernel counts it as a refault
(workingset_refault_file in /proc/vmstat); a file that is read once, however large, makes none.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from tests.real.agent_process import AgentProcess, balloon_bytes, make_whole
from tests.waiting import eventually
from vmpack.act.driver import LibvirtDriver
from vmpack.decide.stance import STANCES
from vmpack.hypervisor import Hypervisor
from vmpack.lab.guest_spec import GuestSpec
from vmpack.lab.lab import Lab, LabGuest
from vmpack.units import MIB

NOMINAL_BYTES = 512 * MIB
HOT_RATIO = 0.60
HOT_FILES = 8
STREAM_BYTES = 640 * MIB
"""More than the whole guest: read once, it passes through the page cache and leaves nothing of use."""
DISK_BYTES_PER_S = 100 * MIB
TURNS = 3
MEASURED_S = 12.0
SETTLED_S = 20.0
"""The balloon has been learned when it has not moved for so long."""
LEARN_WITHIN_S = 240.0
PACKS_SOON = "calm_s = 5\nshrink_step_ratio = 0.25\n"
"""Only how soon the guest is packed: what is learned, and how soon need is answered, is as delivered."""
READER = """
while :; do
    for file in /hot/hot*; do dd if="$file" of=/dev/null bs=256k 2> /dev/null; echo >> /run/files_read; done
done
"""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Counters:
    """What the guest and its hypervisor have counted at one moment."""

    time_s: float
    files_read: int
    disk_bytes: int
    major_faults: int
    refaults: int
    balloon_bytes: int


class CacheGuest:
    """A guest with the files, and one program that reads them."""

    def __init__(self, guest: LabGuest) -> None:
        self.guest = guest
        self._sh("mkdir /hot && mount -t ext4 -o ro /dev/vda /hot && : > /run/files_read")

    def read_on(self) -> None:
        """Begin to read the hot files over and over."""
        self._sh(f"setsid sh -c '{READER}' > /dev/null 2>&1 &\necho $! > /run/reader")

    def read_no_more(self) -> None:
        """End it."""
        self._sh('kill -9 "-$(cat /run/reader)"; true')

    def stream(self) -> None:
        """Read the large file once."""
        self._sh("dd if=/hot/stream of=/dev/null bs=256k", 120)

    def counters(self) -> Counters:
        """All counters, at nearly one moment."""
        vmstat = self._sh("wc -c < /run/files_read; cat /proc/vmstat").partition("\n")
        refaults = re.search(r"^workingset_refault_file (\d+)$", vmstat[2], re.MULTILINE)
        faults = re.search(r"^pgmajfault (\d+)$", vmstat[2], re.MULTILINE)
        assert refaults is not None and faults is not None, "the guest's kernel counts no refaults"
        return Counters(
            time.monotonic(),
            int(vmstat[0]),
            int(self.guest.domain.blockStats("vda")[1]),
            int(faults[1]),
            int(refaults[1]),
            balloon_bytes(self.guest),
        )

    def measured(self, seconds: float) -> Row:
        """What it does in so many seconds."""
        before = self.counters()
        time.sleep(seconds)
        return told(before, self.counters())

    def _sh(self, script: str, timeout_s: int = 30) -> str:
        done = self.guest.control.run(["sh", "-c", script], timeout_s)
        assert done.exit_code == 0, done.output
        return done.output


def told(before: Counters, after: Counters) -> Row:
    """Two moments as rates."""
    passed_s = after.time_s - before.time_s
    read_bytes = (after.files_read - before.files_read) * hot_file_bytes()
    disk_bytes = after.disk_bytes - before.disk_bytes
    return {
        "balloon_mib": after.balloon_bytes // MIB,
        "read_mib_per_s": round(read_bytes / passed_s / MIB, 1),
        "disk_mib_per_s": round(disk_bytes / passed_s / MIB, 1),
        "disk_ratio": round(disk_bytes / read_bytes, 4) if read_bytes else None,
        "major_faults_per_s": round((after.major_faults - before.major_faults) / passed_s, 1),
        "refaults_per_s": round((after.refaults - before.refaults) / passed_s, 1),
    }


def hot_file_bytes() -> int:
    """One of the hot files."""
    return int(HOT_RATIO * NOMINAL_BYTES) // HOT_FILES // MIB * MIB


@contextmanager
def cache_guest() -> Iterator[tuple[Lab, CacheGuest]]:
    """Boot it on a libvirt of its own; all ends with the context."""
    with tempfile.TemporaryDirectory(prefix="vmpack-cache-") as folder, Lab.private() as lab:
        disk = _disk(Path(folder))
        spec = GuestSpec("cache", NOMINAL_BYTES, vcpus=1, disks=(disk,), free_page_reporting=False)
        (guest,) = lab.start(spec)
        lab.wait_ready()
        import libvirt

        limit = {"total_bytes_sec": DISK_BYTES_PER_S}
        guest.domain.setBlockIoTune("vda", limit, libvirt.VIR_DOMAIN_AFFECT_LIVE)
        yield lab, CacheGuest(guest)


def _disk(folder: Path) -> Path:
    """An ext4 image with the hot files and the large one; their bytes are no holes."""
    files, disk = folder / "files", folder / "disk.raw"
    files.mkdir()
    for number in range(HOT_FILES):
        (files / f"hot{number}").write_bytes(os.urandom(hot_file_bytes()))
    block = os.urandom(MIB)
    with (files / "stream").open("wb") as stream:
        for _ in range(STREAM_BYTES // MIB):
            stream.write(block)
    size = f"{(STREAM_BYTES + NOMINAL_BYTES) // MIB}M"
    argv = ["mke2fs", "-q", "-t", "ext4", "-d", str(files), str(disk), size]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    return disk


@contextmanager
def packed(lab: Lab, folder: Path, stance: str) -> Iterator[AgentProcess]:
    """vmpack's agent; when it stops, the guest is whole again."""
    folder.mkdir(exist_ok=True)
    with AgentProcess(folder, lab.uri, config=f'[memory]\nstance = "{stance}"\n{PACKS_SOON}') as agent:
        agent.ready()
        yield agent
        agent.stop()


def await_still(guest: LabGuest) -> float:
    """Wait until the balloon has not moved for SETTLED_S, at most LEARN_WITHIN_S; the seconds until then."""
    began_s = moved_s = time.monotonic()
    stood_at = balloon_bytes(guest)
    while (now_s := time.monotonic()) - began_s < LEARN_WITHIN_S and now_s - moved_s < SETTLED_S:
        time.sleep(0.5)
        if abs(balloon_bytes(guest) - stood_at) > 4 * MIB:
            moved_s, stood_at = time.monotonic(), balloon_bytes(guest)
    return moved_s - began_s


def forget(lab: Lab, guest: LabGuest) -> None:
    """What the stance before learned would spare this one its own learning."""
    hypervisor = Hypervisor(lab.uri)
    LibvirtDriver(hypervisor).write_learned(guest.domain.UUIDString(), None)
    hypervisor.close()


def of_stance(lab: Lab, cache: CacheGuest, stance: str, folder: Path) -> Iterator[Row]:
    """Rows of one stance: learning, then packed and whole in turns, then what they come to."""
    forget(lab, cache.guest)
    make_whole(cache.guest)
    began = cache.counters()
    with packed(lab, folder, stance):
        learned_s = await_still(cache.guest)
        yield {"what": "learning", "stance": stance, **told(began, cache.counters())}
    rows: list[Row] = []
    for _ in range(TURNS):
        make_whole(cache.guest)
        cache.measured(MEASURED_S / 4)
        rows.append({"what": "whole", "stance": stance, **cache.measured(MEASURED_S)})
        yield rows[-1]
        with packed(lab, folder, stance):
            await_still(cache.guest)
            rows.append({"what": "packed", "stance": stance, **cache.measured(MEASURED_S)})
            yield rows[-1]
    means = {
        what: fmean(row["read_mib_per_s"] for row in rows if row["what"] == what)
        for what in ("packed", "whole")
    }
    yield {
        "what": "throughput",
        "stance": stance,
        "throughput_ratio": round(means["packed"] / means["whole"], 3),
        "learned_s": round(learned_s, 1),
        "balloon_mib": rows[-1]["balloon_mib"],
        "disk_ratio": fmean(row["disk_ratio"] for row in rows if row["what"] == "packed"),
    }


def streaming(lab: Lab, cache: CacheGuest, folder: Path) -> Iterator[Row]:
    """A packed guest that reads one large file once: that is no need, and its balloon stays."""
    with packed(lab, folder, "balanced"):
        await_still(cache.guest)
        before = cache.counters()
        cache.stream()
        eventually("its reports are in", lambda: time.monotonic() > before.time_s + SETTLED_S)
        after = cache.counters()
    yield {
        "what": "streaming",
        "stance": "balanced",
        **told(before, after),
        "balloon_before_mib": before.balloon_bytes // MIB,
    }


def rows(stances: Sequence[str]) -> Iterator[Row]:
    """All rows, as they are measured."""
    with tempfile.TemporaryDirectory(prefix="vmpack-cache-") as folder, cache_guest() as (lab, cache):
        yield from streaming(lab, cache, Path(folder) / "streaming")
        make_whole(cache.guest)
        cache.guest.control.drop_caches()
        cache.read_on()
        cache.measured(2 * MEASURED_S)
        for stance in stances:
            yield from of_stance(lab, cache, stance, Path(folder) / stance)
        cache.read_no_more()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stances", default=",".join(STANCES), help="comma-separated (default: all)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    seen: list[Row] = []
    try:
        for row in rows(args.stances.split(",")):
            seen.append(row)
            line = "  ".join(f"{key} {value}" for key, value in row.items())
            print(line, file=sys.stderr if args.json else sys.stdout, flush=True)
    except KeyboardInterrupt:
        print("interrupted; its guest has ended", file=sys.stderr)
        return 130
    if args.json:
        print(json.dumps({"rows": seen}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
