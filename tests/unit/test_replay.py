"""Replaying a journal: the same decisions, or the first place where they differ."""

import dataclasses
import gzip
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import builders, intervals

from vmpack.cli.main import main
from vmpack.decide import memory
from vmpack.model.host import HostSnapshot
from vmpack.model.plan import Plan, Remembered
from vmpack.model.settings import Settings
from vmpack.publish.journal import Header, JournalLine, JournalWriter, segment_paths
from vmpack.replay.replayer import replay
from vmpack.replay.segments import Record, read_segments
from vmpack.units import MIB

COUNT = 260
OLD_JOURNAL = Path(__file__).parent.parent / "vectors/journal"

plan_of = memory.plan


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """Many intervals in several segments, with a change of settings in between."""
    directory = tmp_path / "journal"
    to = JournalWriter(directory, 8 * MIB, intervals.segment_bytes(), intervals.VERSION)
    for settings in (builders.EAGER, builders.SETTINGS):
        for turn, remembered in intervals.history_of(COUNT // 2, settings=settings):
            to.write(turn, remembered, settings)
    to.close()
    return directory


class FloorForgetter:
    """A decision that goes wrong from the n-th call on."""

    def __init__(self, good_calls: int) -> None:
        self._left = good_calls

    def __call__(self, snapshot: HostSnapshot, remembered: Remembered, settings: Settings) -> Plan:
        plan = plan_of(snapshot, remembered, settings)
        self._left -= 1
        if self._left >= 0:
            return plan
        first, *others = plan.guests
        return dataclasses.replace(plan, guests=(first._replace(floor_bytes=1), *others))


def forgetful(snapshot: HostSnapshot, remembered: Remembered, settings: Settings) -> Plan:
    """Plans right and remembers nothing."""
    return dataclasses.replace(memory.plan(snapshot, remembered, settings), remembered=Remembered())


def test_a_journal_replays_identically(journal: Path) -> None:
    """This is the proof that every change follows from what was seen and from the settings."""
    report = replay(read_segments(journal), memory.plan)
    assert report.identical and report.first_difference is None and report.damages == []
    assert report.intervals == COUNT
    assert report.actions > 0
    assert report.segments == len(segment_paths(journal)) > 2
    assert report.versions == [intervals.VERSION]


def test_each_segment_replays_alone(journal: Path) -> None:
    """Old segments are deleted: those that stay must need none of them."""
    reports = [replay(read_segments(path), memory.plan) for path in segment_paths(journal)]
    assert all(report.identical and report.intervals > 0 for report in reports)
    assert sum(report.intervals for report in reports) == COUNT


def test_the_first_difference_is_named(journal: Path) -> None:
    """Whoever changed a rule sees which interval, which VM and which field came out different."""
    report = replay(read_segments(journal), FloorForgetter(7))
    assert not report.identical
    assert report.different == COUNT - 7
    first = report.first_difference
    assert first is not None
    assert first.number == 8
    assert "web-0" in first.place and first.place.endswith("floor_bytes")
    assert first.recorded > 1 and first.replayed == 1


def test_what_is_remembered_is_compared(journal: Path) -> None:
    """A decision may plan the same now and go astray later: what it remembers must be the same too."""
    report = replay(read_segments(journal), forgetful)
    assert report.first_difference is not None
    assert (report.first_difference.number, "remembered" in report.first_difference.place) == (1, True)


def test_the_seam_between_segments_is_compared(journal: Path) -> None:
    """A segment whose start was changed by hand does not pass as the continuation of the one before."""

    def forged() -> Iterator[Record]:
        for record in read_segments(journal):
            if isinstance(record, Header) and record.continues:
                yield dataclasses.replace(record, remembered=Remembered({}, (True, True, True)))
            else:
                yield record

    first = replay(forged(), memory.plan).first_difference
    assert first is not None
    assert "segment before" in first.place


def test_other_settings_do_not_pass(journal: Path) -> None:
    """An interval must be replayed with the settings it was decided with, or not be called identical."""

    def forged() -> Iterator[Record]:
        for record in read_segments(journal):
            if isinstance(record, JournalLine) and record.number == 3:
                yield dataclasses.replace(record, settings_digest="0" * 16)
            else:
                yield record

    first = replay(forged(), memory.plan).first_difference
    assert first is not None
    assert (first.number, first.place) == (3, "the settings (digest)")


def test_another_number_of_actions_is_a_difference(journal: Path) -> None:
    """A plan that leaves out an action differs, though all that is there is the same."""

    def lazy(snapshot: HostSnapshot, remembered: Remembered, settings: Settings) -> Plan:
        return dataclasses.replace(memory.plan(snapshot, remembered, settings), actions=())

    first = replay(itertools.islice(read_segments(journal), 3), lazy).first_difference
    assert first is not None
    assert first.place == "plan: actions: how many" and first.recorded > 0 and first.replayed == 0


def test_command_says_identical(journal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The administrator reads one line that says it, and that another version wrote the journal."""
    assert main(["replay", str(journal)]) == 0
    said = capsys.readouterr().out
    assert f"{COUNT} intervals" in said and "Identical" in said
    assert f"written by vmpack {intervals.VERSION}" in said


def test_command_says_what_differs(
    journal: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A difference is an exit code for scripts and words for people."""
    monkeypatch.setattr(memory, "plan", FloorForgetter(7))
    assert main(["replay", str(journal)]) == 1
    said = capsys.readouterr().out
    assert "DIFFERENT" in said and "Identical" not in said
    assert "interval 8: VM web-0" in said and "floor_bytes" in said


def test_command_gives_json(journal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Programs get the same report, and the intervals they asked for, whole."""
    assert main(["replay", str(journal), "--json", "--show", "3"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["identical"] is True and said["first_difference"] is None
    assert (said["intervals"], said["different"]) == (COUNT, 0)
    assert [line["number"] for line in said["shown"]] == [3, 3]


def test_command_shows_an_interval_in_words(journal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--show` tells weeks later why a VM was shrunk, without a running agent."""
    assert main(["replay", str(journal), "--show", "1"]) == 0
    said = capsys.readouterr().out
    assert "interval 1:" in said and "web-0: " in said and "it uses 30 MiB" in said
    assert "web-0: set_memory done" in said


def test_damage_is_a_warning_with_its_own_exit_code(
    journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A proof with a hole in it is not sold as a whole one."""
    path = segment_paths(journal)[1]
    path.write_bytes(b"spoilt")
    assert main(["replay", str(journal)]) == 3
    said = capsys.readouterr()
    assert "Identical" in said.out
    assert path.name in said.err


def test_a_cut_off_end_is_only_mentioned(journal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """After a power cut nothing that was whole is lost, and the proof stands."""
    path = segment_paths(journal)[-1]
    path.write_bytes(path.read_bytes()[:-40])
    assert main(["replay", str(journal)]) == 0
    assert "cut off" in capsys.readouterr().err


def test_nothing_to_replay_is_no_proof(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A missing, empty or unreadable journal fails with a line that says what to do."""
    assert main(["replay", str(tmp_path / "nowhere")]) == 2
    assert main(["replay", str(tmp_path)]) == 1
    (tmp_path / "00000001.jsonl.gz").write_bytes(b"spoilt")
    assert main(["replay", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert "Identical" not in said.out
    assert said.err.count("\n  ") == 3


def test_an_interval_that_is_not_there_is_said(journal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong number must not look like an interval in which nothing happened."""
    assert main(["replay", str(journal), "--show", "4711"]) == 2
    assert "4711" in capsys.readouterr().err


def test_a_journal_of_an_older_vmpack_replays() -> None:
    """An update would make the proof of all that was decided before it unreadable, or seem forged.

    The segment is of the version that had no GPUs in its snapshots and no nominal from the cloud. Its
    rules were others, and that is all that differs.
    """
    report = replay(read_segments(OLD_JOURNAL), memory.plan)

    assert report.damages == []
    assert (report.intervals, report.actions) == (6, 8)
    assert report.first_difference is not None
    assert ": plan: reasons" in report.first_difference.place


@pytest.mark.parametrize("settings", [builders.EAGER, builders.SETTINGS])
def test_fields_that_came_later_change_no_proof(tmp_path: Path, settings: Settings) -> None:
    """An update that lets a record hold more would make each older journal differ from line one on."""
    to = JournalWriter(tmp_path, 8 * MIB, intervals.segment_bytes(), intervals.VERSION)
    for turn, remembered in intervals.history_of(200, settings=settings, steady=True):
        to.write(turn, remembered, settings)
    to.close()
    paths = segment_paths(tmp_path)
    stripped = sum(_strip_later_fields(path) for path in paths)
    report = replay(read_segments(tmp_path), memory.plan)

    assert len(paths) > 1 and stripped > 2 * 200
    assert report.first_difference is None and report.damages == []
    assert report.intervals == 200 and report.actions > 0


LATER_FIELDS = {
    "stance",
    "rises",
    "presses",
    "pressed_floor_bytes",
    "pressed_floor_until_s",
    "gpus",
    "of_owner",
    "maximum_bytes",
    "learned",
    "carried",
    "kernel",
    "pressed_by",
}


SAYS_NOTHING = (None, 0, [], "", "balanced")


def _strip_later_fields(path: Path) -> int:
    """Rewrite a segment as a vmpack without these fields would have written it; how many there were.

    Of these, not what decisions always fill by now: there the rules themselves are others.
    """
    found = 0

    def strip(data: object) -> object:
        nonlocal found
        if isinstance(data, dict):
            later = {key for key in LATER_FIELDS & data.keys() if data[key] in SAYS_NOTHING}
            found += len(later)
            return {key: strip(value) for key, value in data.items() if key not in later}
        return [strip(value) for value in data] if isinstance(data, list) else data

    lines = gzip.decompress(path.read_bytes()).splitlines()
    older = [json.dumps(strip(json.loads(line))) + "\n" for line in lines]
    path.write_bytes(gzip.compress("".join(older).encode()))
    return found
