"""Reads the journal back, segment by segment, oldest first, one record at a time.

Called by the replay command and by simulations. A cut-off end or a broken segment is told as a Damage in
the stream, never raised: the lines before it and all other segments are still read.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vmpack.errors import BadDataError
from vmpack.model import codec
from vmpack.publish.atomic import disk_error
from vmpack.publish.journal import FORMAT, GZIP_WINDOW_BITS, Header, JournalLine, VcpuLine, segment_paths

_VCPU_LINE = b'{"kind":"vcpu",'
_CHUNK_BYTES = 64 * 1024
_FLUSHED = b"\x00\x00\xff\xff"
"""What zlib writes behind each whole line while the segment is still open."""


@dataclass(frozen=True, slots=True)
class Damage:
    """Something that could not be read; the rest of its segment is left out."""

    segment: str
    what: str
    cut_off: bool = False
    """Only the last line's end is missing, as after a crash: no whole line is lost."""

    def __str__(self) -> str:
        return f"{self.segment}: {self.what}"


Record = Header | JournalLine | VcpuLine | Damage


def read_segments(path: Path) -> Iterator[Record]:
    """Read one segment, or a directory of them: a Header, its lines, the next Header and so on.

    Raises BadDataError when there is no segment, UnavailableError or AccessError when `path` cannot be read.
    """
    paths = segment_paths(path) if path.is_dir() else [path]
    if not paths:
        hint = "give a segment (NNNNNNNN.jsonl.gz) or the journal directory in the agent's state directory"
        raise BadDataError(f"there is no journal in {path}", hint)
    for segment in paths:
        yield from _read_segment(segment)


def _read_segment(path: Path) -> Iterator[Record]:
    is_first = True
    for number, line in enumerate(_lines(path), 1):
        if isinstance(line, Damage):
            yield line
            return
        try:
            record = codec.loads(Header, line) if is_first else _loads(line)
        except BadDataError as error:
            yield Damage(path.name, f"line {number}: {_foreign(line) if is_first else ''}{error.message}")
            return
        if isinstance(record, Header) and record.format != FORMAT:
            yield Damage(path.name, f"its format is {record.format}, this vmpack reads {FORMAT}")
            return
        yield record
        is_first = False


def _loads(line: bytes) -> JournalLine | VcpuLine:
    # Canonical text has its keys sorted: no key of this record comes before its kind.
    return codec.loads(VcpuLine, line) if line.startswith(_VCPU_LINE) else codec.loads(JournalLine, line)


def _foreign(header: bytes) -> str:
    try:
        data = json.loads(header)
    except (ValueError, RecursionError):
        return ""
    version = data.get("version") if isinstance(data, dict) else None
    return f"written by vmpack {version}: " if isinstance(version, str) else ""


def _lines(path: Path) -> Iterator[bytes | Damage]:
    rest = tail = b""
    decompressor = zlib.decompressobj(GZIP_WINDOW_BITS)
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                *whole, rest = (rest + decompressor.decompress(chunk)).split(b"\n")
                yield from whole
                tail = (tail + chunk)[-len(_FLUSHED) :]
    except zlib.error as error:
        yield Damage(path.name, f"broken from here on ({error})")
        return
    except OSError as error:
        raise disk_error("read", path, error) from error
    if decompressor.unused_data:
        yield Damage(path.name, "something was written behind its end")
    elif not tail:
        yield Damage(path.name, "it is empty", cut_off=True)
    elif rest or not (decompressor.eof or tail == _FLUSHED):
        yield Damage(path.name, "the last line is cut off", cut_off=True)
