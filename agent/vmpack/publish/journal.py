"""The journal: every interval as one line, in compressed segments that replay alone, under a size cap.

Written by the publisher, read by replay. STATE_DIR/journal/NNNNNNNN.jsonl.gz: a header line with all that was
remembered and the settings whole, then one line per interval, and among these one per turn of the vCPU loop
in which something was planned. `zcat FILE | jq` reads it. What the decision
remembers is not repeated: it follows from replaying, and its digest proves it; where something else changed
it (observe mode, a failed action, an administrator) the line tells what changed.

Each line is flushed whole, so after a crash at most the last one is cut off.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from vmpack.errors import BadDataError
from vmpack.model.action import Outcome
from vmpack.model.codec import digest, dumps
from vmpack.model.host import HostSnapshot
from vmpack.model.interval import Interval
from vmpack.model.plan import Plan, Remembered, RememberedGuest
from vmpack.model.settings import Settings
from vmpack.model.vcpu import AffinityOutcome, RememberedVcpus, VcpuInterval, VcpuPlan, VcpuSnapshot
from vmpack.publish.atomic import disk_error, make_directory

FORMAT = 1
SUFFIX = ".jsonl.gz"

GZIP_WINDOW_BITS = 31
"""zlib's window bits that make gzip files."""
_GZIP_END_BYTES = 16


@dataclass(frozen=True, slots=True)
class Correction:
    """How what a decision got to remember differs from what the one before it had left."""

    guests: Mapping[str, RememberedGuest | None]
    """By VM uuid; None is forgotten."""
    host: Remembered
    """All that is not of single VMs."""

    def apply(self, remembered: Remembered) -> Remembered:
        """What the next decision got."""
        guests = {**remembered.guests, **self.guests}
        kept = {uuid: guest for uuid, guest in guests.items() if guest is not None}
        return dataclasses.replace(self.host, guests=kept)


@dataclass(frozen=True, slots=True)
class Header:
    """The first line of a segment: all that is needed to replay the rest."""

    version: str
    remembered: Remembered
    settings: Settings
    continues: bool
    """The segment before ends with the interval before this one's first."""
    correction: Correction | None
    """From what that interval left to `remembered`; None when nothing else changed it."""
    format: int = FORMAT
    kind: Literal["header"] = "header"


@dataclass(frozen=True, slots=True)
class VcpuLine:
    """One turn of the vCPU loop in which something was planned. It is told, not decided again."""

    number: int
    """Of the turns of the vCPU loop."""
    snapshot: VcpuSnapshot
    plan: VcpuPlan
    """With nothing remembered."""
    outcomes: tuple[AffinityOutcome, ...]
    kind: Literal["vcpu"] = "vcpu"


@dataclass(frozen=True, slots=True)
class JournalLine:
    """One interval."""

    number: int
    snapshot: HostSnapshot
    plan: Plan
    """With nothing remembered: `remembered_digest` stands for it."""
    outcomes: tuple[Outcome, ...]
    correction: Correction | None
    """From what the line before left to what this interval's decision got; None on a segment's first line."""
    remembered_digest: str
    """Of what this interval's decision left."""
    settings_digest: str
    kind: Literal["interval"] = "interval"


def without_remembered(plan: Plan) -> Plan:
    """The plan as the journal keeps and compares it."""
    return dataclasses.replace(plan, remembered=Remembered())


def correction_between(left: Remembered, got: Remembered) -> Correction | None:
    """What turns `left` into `got`; None when they are the same."""
    if left == got:
        return None
    before, after = left.guests, got.guests
    uuids = sorted(before.keys() | after.keys())
    changed = {uuid: after.get(uuid) for uuid in uuids if before.get(uuid) != after.get(uuid)}
    return Correction(changed, dataclasses.replace(got, guests={}))


def segment_paths(directory: Path) -> list[Path]:
    """The journal's segments, oldest first. Raises VmpackError when the directory cannot be read."""
    try:
        return sorted(path for path in directory.iterdir() if _is_segment(path))
    except OSError as error:
        raise disk_error("read", directory, error) from error


def _is_segment(path: Path) -> bool:
    number = path.name.removesuffix(SUFFIX)
    return number != path.name and len(number) == 8 and number.isascii() and number.isdigit()


class JournalWriter:
    """Appends intervals. All segments together never exceed `cap_bytes`; the oldest go first.

    A new segment begins at the start, when the settings change, after a failed write, and before one would
    exceed `segment_max_bytes` (or half the cap, so that something always stays behind the newest).
    """

    def __init__(self, directory: Path, cap_bytes: int, segment_max_bytes: int, version: str) -> None:
        self._directory = directory
        self._cap_bytes = cap_bytes
        self._segment_max_bytes = min(segment_max_bytes, cap_bytes // 2)
        self._version = version
        self._segment: _Segment | None = None
        self._left: Remembered | None = None
        self._settings: Settings | None = None

    def write(self, interval: Interval, remembered_before: Remembered, settings: Settings) -> None:
        """Append one interval; `remembered_before` and `settings` are what its decision got.

        Raises VmpackError when the disk fails or the line is larger than a whole segment may be.
        """
        correction = correction_between(self._left, remembered_before) if self._left is not None else None
        continues, self._left = self._left is not None, None
        settings_digest = digest(settings)
        line = _line(
            JournalLine(
                interval.number,
                interval.snapshot,
                without_remembered(interval.plan),
                interval.outcomes,
                correction,
                digest(interval.plan.remembered),
                settings_digest,
            )
        )
        segment = self._segment if continues else None
        if segment is None or segment.settings_digest != settings_digest or self._full(segment, line):
            header = Header(self._version, remembered_before, settings, continues, correction)
            segment = self._begin(_line(header), line, settings_digest)
        self._make_room(segment.path, _bound_bytes(line))
        self._append(segment, line)
        self._left, self._settings = interval.plan.remembered, settings

    def write_vcpus(self, turn: VcpuInterval) -> None:
        """Append a turn of the vCPU loop behind the interval that was written last; raises as `write`.

        Where none was, as after a failed write, the turn is left out: a segment begins with an interval.
        """
        segment, left, settings = self._segment, self._left, self._settings
        if segment is None or left is None or settings is None:
            return
        self._left = None
        plan = dataclasses.replace(turn.plan, remembered=RememberedVcpus())
        line = _line(VcpuLine(turn.number, turn.snapshot, plan, turn.outcomes))
        if self._full(segment, line):
            header = Header(self._version, left, settings, continues=True, correction=None)
            segment = self._begin(_line(header), line, segment.settings_digest)
        self._make_room(segment.path, _bound_bytes(line))
        self._append(segment, line)
        self._left = left

    def close(self) -> None:
        """End the newest segment; the next write begins another."""
        segment, self._segment, self._left = self._segment, None, None
        if segment is not None:
            try:
                segment.close()
            except OSError as error:
                raise disk_error("write in", self._directory, error) from error

    def _full(self, segment: _Segment, line: bytes) -> bool:
        return segment.size_bytes + _bound_bytes(line) + _GZIP_END_BYTES > self._segment_max_bytes

    def _begin(self, header: bytes, line: bytes, settings_digest: str) -> _Segment:
        self.close()
        needed_bytes = _bound_bytes(header) + _bound_bytes(line) + _GZIP_END_BYTES
        if needed_bytes > self._segment_max_bytes:
            raise BadDataError(
                f"the journal has no place for an interval of {needed_bytes} bytes in a segment of at most "
                f"{self._segment_max_bytes}",
                "raise the journal's segment size and its cap in the configuration",
            )
        make_directory(self._directory, 0o750)
        numbers = [int(path.name.removesuffix(SUFFIX)) for path in segment_paths(self._directory)]
        path = self._directory / f"{max(numbers, default=0) + 1:08d}{SUFFIX}"
        self._make_room(path, needed_bytes)
        try:
            segment = self._segment = _Segment(path, settings_digest)
        except OSError as error:
            raise disk_error("write in", self._directory, error) from error
        self._append(segment, header)
        return segment

    def _append(self, segment: _Segment, line: bytes) -> None:
        try:
            segment.append(line)
        except OSError as error:
            self._segment = None
            segment.abandon()
            raise disk_error("write in", self._directory, error) from error

    def _make_room(self, current: Path, needed_bytes: int) -> None:
        try:
            sizes = {path: path.stat().st_size for path in segment_paths(self._directory)}
            for path in sorted(sizes):
                if sum(sizes.values()) + needed_bytes + _GZIP_END_BYTES <= self._cap_bytes or path == current:
                    break
                path.unlink()
                del sizes[path]
        except OSError as error:
            raise disk_error("make room in", self._directory, error) from error


class _Segment:
    """One file being written."""

    def __init__(self, path: Path, settings_digest: str) -> None:
        self.path = path
        self.settings_digest = settings_digest
        self.size_bytes = 0
        self._whole_lines = 0
        self._compressor = zlib.compressobj(wbits=GZIP_WINDOW_BITS)
        self._file: BinaryIO = path.open("xb", buffering=0)
        path.chmod(0o640)

    def append(self, line: bytes) -> None:
        self._write(self._compressor.compress(line) + self._compressor.flush(zlib.Z_SYNC_FLUSH))
        self._whole_lines += 1

    def close(self) -> None:
        try:
            self._write(self._compressor.flush())
        finally:
            self._file.close()

    def abandon(self) -> None:
        """Stop after a failed write; a segment with no interval in it is not left behind."""
        self._file.close()
        if self._whole_lines < 2:
            self.path.unlink(missing_ok=True)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            written = self._file.write(view)
            self.size_bytes += written
            view = view[written:]


def _line(record: Header | JournalLine | VcpuLine) -> bytes:
    try:
        return dumps(record).encode() + b"\n"
    except ValueError as error:
        raise BadDataError(f"an interval holds a number that JSON cannot: {error}") from error


def _bound_bytes(line: bytes) -> int:
    """The most that zlib makes of a line, flushed."""
    return len(line) + len(line) // 1000 + 64
