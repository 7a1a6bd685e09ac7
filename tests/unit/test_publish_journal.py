"""The journal: segments that replay alone, under a cap, whole after every kind of end."""

import dataclasses
import errno
import gzip
import itertools
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import builders, intervals

from vmpack.errors import BadDataError, UnavailableError
from vmpack.model import codec
from vmpack.model.interval import Interval
from vmpack.model.plan import Remembered
from vmpack.model.settings import Settings
from vmpack.publish import journal
from vmpack.publish.journal import Header, JournalLine, JournalWriter, correction_between, segment_paths
from vmpack.replay.segments import Damage, Record, read_segments
from vmpack.units import MIB

SEGMENT_BYTES = intervals.segment_bytes()

Turns = list[tuple[Interval, Remembered]]


def writer(directory: Path, cap_bytes: int = 8 * MIB, segment_max_bytes: int = MIB) -> JournalWriter:
    return JournalWriter(directory, cap_bytes, segment_max_bytes, intervals.VERSION)


def write_all(to: JournalWriter, turns: Turns, settings: Settings = builders.EAGER) -> None:
    for turn, remembered in turns:
        to.write(turn, remembered, settings)


def numbers(records: list[Record]) -> list[int]:
    return [record.number for record in records if isinstance(record, JournalLine)]


def headers(records: list[Record]) -> list[Header]:
    return [record for record in records if isinstance(record, Header)]


def damages(records: list[Record]) -> list[Damage]:
    return [record for record in records if isinstance(record, Damage)]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """A journal that cannot give back the snapshot, plan and outcomes proves nothing."""
    turns = intervals.history_of(5)
    to = writer(tmp_path)
    write_all(to, turns)
    to.close()
    header, *lines = list(read_segments(tmp_path))
    assert header == Header(intervals.VERSION, Remembered(), builders.EAGER, False, None)
    for line, (turn, _) in zip(lines, turns, strict=True):
        assert isinstance(line, JournalLine)
        assert line.snapshot == turn.snapshot
        assert line.plan == dataclasses.replace(turn.plan, remembered=Remembered())
        assert line.outcomes == turn.outcomes
        assert line.remembered_digest == codec.digest(turn.plan.remembered)
        assert line.settings_digest == codec.digest(builders.EAGER)


def test_corrections_rebuild_what_each_decision_got(tmp_path: Path) -> None:
    """After an action more is remembered than was decided; without it a replay would go astray."""
    turns = intervals.history_of(6)
    to = writer(tmp_path)
    write_all(to, turns)
    left = Remembered()
    corrected = 0
    lines = [record for record in read_segments(tmp_path) if isinstance(record, JournalLine)]
    for line, (turn, got) in zip(lines, turns, strict=True):
        corrected += line.correction is not None
        assert (line.correction.apply(left) if line.correction else left) == got
        left = turn.plan.remembered
    assert corrected > 0


def test_correction_forgets_a_guest() -> None:
    """A VM that was dropped from memory must be dropped in the replay too."""
    (_, _), (_, both) = intervals.history_of(2)
    one = Remembered({intervals.uuid_of(0): both.guests[intervals.uuid_of(0)]}, (True,))
    correction = correction_between(both, one)
    assert correction is not None
    assert correction.guests == {intervals.uuid_of(1): None}
    assert correction.apply(both) == one
    assert correction_between(one, one) is None


def test_the_newest_interval_is_on_the_disk_at_once(tmp_path: Path) -> None:
    """When the agent is killed, the interval before is the one that people want to see."""
    to = writer(tmp_path)
    for count, (turn, remembered) in enumerate(intervals.history_of(3), 1):
        to.write(turn, remembered, builders.EAGER)
        records = list(read_segments(tmp_path))
        assert numbers(records) == list(range(1, count + 1))
        assert damages(records) == []


def test_segments_are_plain_gzip_with_canonical_lines(tmp_path: Path) -> None:
    """zcat and jq must read it on a host where vmpack is broken."""
    turns = intervals.history_of(4, guests=10)
    to = writer(tmp_path)
    write_all(to, turns)
    to.close()
    (path,) = segment_paths(tmp_path)
    assert path.name == "00000001.jsonl.gz"
    assert path.stat().st_mode & 0o777 == 0o640
    kinds = [json.loads(line)["kind"] for line in gzip.decompress(path.read_bytes()).splitlines()]
    assert kinds == ["header", *["interval"] * 4]


def test_a_line_costs_little(tmp_path: Path) -> None:
    """The cap must hold days, not hours: at most 6 kB an interval with ten guests."""
    count = 40
    to = writer(tmp_path)
    write_all(to, intervals.history_of(count, guests=10))
    to.close()
    (path,) = segment_paths(tmp_path)
    assert path.stat().st_size / count < 6000


def test_rotation_continues(tmp_path: Path) -> None:
    """Segments replay alone and say how they hang together, so a replay can check the seam."""
    turns = intervals.history_of(270)
    to = writer(tmp_path, segment_max_bytes=SEGMENT_BYTES)
    write_all(to, turns)
    to.close()
    records = list(read_segments(tmp_path))
    assert numbers(records) == list(range(1, 271))
    assert damages(records) == []
    first, *later = headers(records)
    assert not first.continues and first.correction is None
    assert len(later) >= 2 and all(header.continues for header in later)
    got = {turn.number: remembered for turn, remembered in turns}
    for header, line in itertools.pairwise(records):
        if isinstance(header, Header) and isinstance(line, JournalLine):
            assert header.remembered == got[line.number]
            if header.continues:
                left = turns[line.number - 2][0].plan.remembered
                assert (header.correction.apply(left) if header.correction else left) == header.remembered


def test_new_settings_begin_a_segment(tmp_path: Path) -> None:
    """An interval is replayed with the settings it was decided with."""
    turns = intervals.history_of(4)
    to = writer(tmp_path)
    write_all(to, turns[:2])
    write_all(to, turns[2:], builders.SETTINGS)
    records = list(read_segments(tmp_path))
    assert [type(record) for record in records] == [Header, JournalLine, JournalLine] * 2
    assert [header.settings for header in headers(records)] == [builders.EAGER, builders.SETTINGS]
    assert [header.continues for header in headers(records)] == [False, True]


def test_a_restart_begins_a_segment(tmp_path: Path) -> None:
    """What an agent wrote before it was stopped stays, and is not mistaken for the same run."""
    for _ in range(2):
        to = writer(tmp_path)
        write_all(to, intervals.history_of(2))
        to.close()
    assert [path.name for path in segment_paths(tmp_path)] == ["00000001.jsonl.gz", "00000002.jsonl.gz"]
    assert [header.continues for header in headers(list(read_segments(tmp_path)))] == [False, False]


def test_cap_and_segment_size_are_kept_after_every_write(tmp_path: Path) -> None:
    """A journal that fills the host's disk would take the VMs down with it."""
    cap_bytes, segment_max_bytes = 3 * SEGMENT_BYTES, SEGMENT_BYTES
    to = writer(tmp_path, cap_bytes, segment_max_bytes)
    names = set()
    for turn, remembered in intervals.history_of(500):
        to.write(turn, remembered, builders.EAGER)
        sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
        names |= sizes.keys()
        assert sum(sizes.values()) <= cap_bytes
        assert max(sizes.values()) <= segment_max_bytes
    to.close()
    left = segment_paths(tmp_path)
    assert 2 <= len(left) < len(names)
    assert numbers(list(read_segments(tmp_path)))[-1] == 500
    assert [path.name for path in left] == sorted(names)[-len(left) :]


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    """Making room deletes segments only, not what an administrator put beside them."""
    note = tmp_path / "00000000.jsonl.gz.keep"
    note.write_bytes(b"x" * 50_000)
    write_all(writer(tmp_path, 3 * SEGMENT_BYTES, SEGMENT_BYTES), intervals.history_of(240))
    assert note.exists()


def test_an_interval_too_large_is_refused(tmp_path: Path) -> None:
    """The cap holds even against one huge interval, and the message says what to raise."""
    to = writer(tmp_path, 3 * SEGMENT_BYTES, SEGMENT_BYTES)
    (turn, remembered), *_ = intervals.history_of(1, guests=20)
    with pytest.raises(BadDataError) as caught:
        to.write(turn, remembered, builders.EAGER)
    assert "segment size" in caught.value.hint
    assert not tmp_path.exists() or list(tmp_path.iterdir()) == []


def test_a_number_that_json_cannot_hold_costs_one_interval(tmp_path: Path) -> None:
    """One NaN from a guest must not end the journal."""
    turns = intervals.history_of(3)
    to = writer(tmp_path)
    to.write(*turns[0], builders.EAGER)
    turn, remembered = turns[1]
    spoilt = dataclasses.replace(turn, snapshot=dataclasses.replace(turn.snapshot, wall_s=float("nan")))
    with pytest.raises(BadDataError):
        to.write(spoilt, remembered, builders.EAGER)
    to.write(*turns[2], builders.EAGER)
    records = list(read_segments(tmp_path))
    assert numbers(records) == [1, 3]
    assert headers(records)[1].remembered == turns[2][1]
    assert not headers(records)[1].continues


class FullDisk:
    """A file that takes some bytes and then no more."""

    def __init__(self, file: Any, room_bytes: int) -> None:
        self._file = file
        self._room_bytes = room_bytes

    def write(self, data: Any) -> int:
        if self._room_bytes <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = self._file.write(bytes(data[: self._room_bytes]))
        self._room_bytes -= taken
        return int(taken)

    def close(self) -> None:
        self._file.close()


def fill_disk(monkeypatch: pytest.MonkeyPatch, room_bytes: int) -> None:
    opened = Path.open
    monkeypatch.setattr(
        Path, "open", lambda path, *args, **more: FullDisk(opened(path, *args, **more), room_bytes)
    )


@pytest.mark.parametrize("room_bytes", [0, 10, 1200])
def test_full_disk_is_told_and_survived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room_bytes: int
) -> None:
    """A full disk costs the intervals it cannot hold; once there is room the journal goes on by itself."""
    turns = intervals.history_of(6)
    to = writer(tmp_path)
    with monkeypatch.context() as full:
        fill_disk(full, room_bytes)
        for turn in turns[:2]:
            with pytest.raises(UnavailableError) as caught:
                to.write(*turn, builders.EAGER)
            assert "space" in caught.value.hint
    assert segment_paths(tmp_path) == []
    write_all(to, turns[2:])
    records = list(read_segments(tmp_path))
    assert numbers(records) == [3, 4, 5, 6]
    assert damages(records) == []


def test_disk_that_fills_later_keeps_what_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was on the disk before it was full is still read."""
    turns = intervals.history_of(20)
    to = writer(tmp_path)
    fill_disk(monkeypatch, 4000)
    written = 0
    with pytest.raises(UnavailableError) as first:
        for turn in turns:
            to.write(*turn, builders.EAGER)
            written += 1
    fill_disk(monkeypatch, 0)
    with pytest.raises(UnavailableError) as second:
        to.write(*turns[written + 1], builders.EAGER)
    # One trouble has one text, whichever segment meets it: it is logged once.
    assert str(first.value) == str(second.value)
    monkeypatch.undo()
    assert written >= 1
    # Of a line that failed all may be there that is needed.
    assert numbers(list(read_segments(tmp_path))) in (list(range(1, written + more)) for more in (1, 2))


def test_unwritable_directory_is_named(tmp_path: Path) -> None:
    """The administrator is told which path is in the way."""
    blocked = tmp_path / "journal"
    blocked.write_text("a file where the directory should be")
    with pytest.raises(UnavailableError, match="journal"):
        writer(blocked).write(*intervals.history_of(1)[0], builders.EAGER)


@pytest.mark.parametrize("part", [0.02, 0.4, 0.5, 0.75, 0.99])
def test_a_journal_cut_anywhere_reads_up_to_the_cut(tmp_path: Path, part: float) -> None:
    """After a power cut the beginning of the segment is still proof."""
    turns = intervals.history_of(20)
    to = writer(tmp_path)
    write_all(to, turns)
    to.close()
    (path,) = segment_paths(tmp_path)
    os.truncate(path, int(path.stat().st_size * part))
    records = list(read_segments(path))
    found = numbers(records)
    assert found == list(range(1, len(found) + 1))
    assert len(found) < 20
    assert (len(found) > 0) == (part > 0.1)
    assert all(damage.cut_off for damage in damages(records)) and len(damages(records)) <= 1


def spoil_middle(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 40] = b"\xff" * 40
    path.write_bytes(data)


def not_gzip(path: Path) -> None:
    path.write_bytes(b'{"kind":"header"}\n')


def other_form(path: Path) -> None:
    path.write_bytes(gzip.compress(b'{"kind":"header","version":"7.0.0","new":1}\n'))


def other_format(path: Path) -> None:
    header = Header("7.0.0", Remembered(), Settings(), False, None, format=journal.FORMAT + 1)
    path.write_bytes(gzip.compress(codec.dumps(header).encode() + b"\n"))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (spoil_middle, "broken from here"),
        (not_gzip, "broken from here"),
        (other_form, "written by vmpack 7.0.0"),
        (other_format, "its format is 2"),
    ],
)
def test_a_broken_segment_does_not_hide_the_others(tmp_path: Path, spoil: Any, said: str) -> None:
    """One bad sector costs one segment, and it is said which."""
    to = writer(tmp_path, segment_max_bytes=SEGMENT_BYTES)
    write_all(to, intervals.history_of(270))
    to.close()
    paths = segment_paths(tmp_path)
    whole = numbers(list(read_segments(paths[0]))) + [
        n for path in paths[2:] for n in numbers(list(read_segments(path)))
    ]
    spoil(paths[1])
    records = list(read_segments(tmp_path))
    assert set(whole) <= set(numbers(records))
    (damage,) = damages(records)
    assert said in str(damage) and paths[1].name in str(damage)
    assert not damage.cut_off


def test_a_segment_that_was_only_created_is_told(tmp_path: Path) -> None:
    """Killed between creating a segment and writing to it, the agent left nothing out."""
    (tmp_path / "00000001.jsonl.gz").write_bytes(b"")
    (damage,) = damages(list(read_segments(tmp_path)))
    assert damage.cut_off and "empty" in str(damage)


@pytest.fixture(scope="module")
def segment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One whole segment of twenty intervals."""
    directory = tmp_path_factory.mktemp("journal")
    to = writer(directory)
    write_all(to, intervals.history_of(20))
    to.close()
    return segment_paths(directory)[0]


@given(st.data())
def test_no_damage_stops_the_reader(segment: Path, data: st.DataObject) -> None:
    """Whatever a dying disk made of a segment, reading it ends with what is whole, not with a traceback."""
    content = bytearray(segment.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at : at + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
    broken = segment.with_name("broken")
    broken.write_bytes(content)
    records = list(read_segments(broken))
    assert numbers(records) == sorted(numbers(records))
    assert len(damages(records)) <= 1


def test_no_journal_is_said(tmp_path: Path) -> None:
    """An empty directory is an error with a hint, not a proof of nothing."""
    with pytest.raises(BadDataError, match="no journal"):
        list(read_segments(tmp_path))
