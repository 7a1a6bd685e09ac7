"""What an agent takes from its host, sampled, and whether any of it grows."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vmpack.units import KIB, MIB

WARM_UP_S = 120.0
"""An agent's first minutes load what it needs: they tell nothing of growth."""
FEWEST_SAMPLES = 9


@dataclass(frozen=True, slots=True)
class Vitals:
    """One sample of one agent process."""

    at_s: float
    pid: int
    rss_bytes: int
    descriptors: int
    threads: int
    state_bytes: int
    """Of the state directory without the journal, which has a cap of its own."""
    state_files: int
    journal_bytes: int
    run_bytes: int
    run_files: int
    connections: int
    """Of all clients, at libvirt."""


@dataclass(frozen=True, slots=True)
class Growth:
    """One figure: medians of the first and the last third, and by how much it may rise."""

    name: str
    first: float
    last: float
    tolerance: float

    @property
    def grew(self) -> bool:
        return self.last - self.first > self.tolerance


@dataclass(frozen=True, slots=True)
class _Figure:
    name: str
    value: Callable[[Vitals], float]
    tolerance: float


_OF_ONE_AGENT = (
    _Figure("rss_bytes", lambda sample: sample.rss_bytes, 3 * MIB),
    _Figure("descriptors", lambda sample: sample.descriptors, 2),
    _Figure("threads", lambda sample: sample.threads, 2),
)
_OF_ALL = (
    _Figure("rss_bytes", lambda sample: sample.rss_bytes, 6 * MIB),
    _Figure("state_bytes", lambda sample: sample.state_bytes, 256 * KIB),
    _Figure("state_files", lambda sample: sample.state_files, 2),
    _Figure("run_bytes", lambda sample: sample.run_bytes, 64 * KIB),
    _Figure("run_files", lambda sample: sample.run_files, 4),
    _Figure("connections", lambda sample: sample.connections, 0),
)


def read_vitals(at_s: float, pid: int, state_dir: Path, run_dir: Path, daemon_pid: int) -> Vitals:
    """A sample of now. Raises OSError when the agent or libvirt ended meanwhile."""
    process = Path(f"/proc/{pid}")
    state_bytes, state_files = _size(state_dir, without="journal")
    run_bytes, run_files = _size(run_dir)
    return Vitals(
        at_s=at_s,
        pid=pid,
        rss_bytes=int((process / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"),
        descriptors=len(os.listdir(process / "fd")),
        threads=len(os.listdir(process / "task")),
        state_bytes=state_bytes,
        state_files=state_files,
        journal_bytes=_size(state_dir / "journal")[0],
        run_bytes=run_bytes,
        run_files=run_files,
        connections=_connections(daemon_pid),
    )


def growths(samples: Sequence[Vitals]) -> dict[str, tuple[Growth, ...]]:
    """How each figure went: within the longest life of an agent, and over all lives.

    A life that is too short for three thirds shows nothing.
    """
    begins: dict[int, float] = {}
    for sample in samples:
        begins.setdefault(sample.pid, sample.at_s)
    warm = [sample for sample in samples if sample.at_s - begins[sample.pid] >= WARM_UP_S]
    lives = {pid: [sample for sample in warm if sample.pid == pid] for pid in begins}
    longest = max(lives.values(), key=len, default=[])
    return {"longest_life": _growths(_OF_ONE_AGENT, longest), "all_lives": _growths(_OF_ALL, warm)}


def _growths(figures: tuple[_Figure, ...], samples: Sequence[Vitals]) -> tuple[Growth, ...]:
    if len(samples) < FEWEST_SAMPLES:
        return ()
    third = len(samples) // 3
    first, last = samples[:third], samples[-third:]
    return tuple(
        Growth(
            figure.name,
            statistics.median(map(figure.value, first)),
            statistics.median(map(figure.value, last)),
            figure.tolerance,
        )
        for figure in figures
    )


def _size(folder: Path, without: str = "") -> tuple[int, int]:
    """Bytes and number of the files below a folder; files that end meanwhile do not count."""
    total = count = 0
    for parent, folders, names in os.walk(folder):
        if without in folders:
            folders.remove(without)
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size
            except FileNotFoundError:
                continue
            count += 1
    return total, count


def _connections(daemon_pid: int) -> int:
    """How many clients libvirt has; such a socket shows in the network of its client, which is this one."""
    lines = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()]
    clients = {f"socket:[{line[6]}]" for line in lines if line[-1].endswith("/libvirt-sock")}
    return sum(target in clients for target in _targets(Path(f"/proc/{daemon_pid}/fd")))


def _targets(folder: Path) -> Iterator[str]:
    for number in os.listdir(folder):
        with suppress(FileNotFoundError):  # closed meanwhile
            yield os.readlink(folder / number)
