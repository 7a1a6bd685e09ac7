"""One interval in all its forms; a form that fails stops no other."""

import logging
from pathlib import Path
from typing import Any

import pytest
from tests import builders, intervals

from vmpack.publish.journal import JournalLine
from vmpack.publish.publisher import Publisher
from vmpack.replay.segments import read_segments
from vmpack.units import MIB


def publisher(root: Path, textfile: Path | None = None) -> Publisher:
    return Publisher(
        root / "run",
        root / "state",
        machine=builders.MACHINE,
        grant=lambda _interval, _observe_only: 0,
        version=intervals.VERSION,
        textfile_path=textfile,
        journal_cap_bytes=8 * MIB,
        journal_segment_bytes=MIB,
        history_days=30,
    )


def publish_all(to: Publisher, turns: Any) -> list[tuple[str, ...]]:
    return [to.publish(turn, got, builders.EAGER, intervals.status(), 0.1) for turn, got in turns]


def journal_numbers(root: Path) -> list[int]:
    return [
        record.number for record in read_segments(root / "state/journal") if isinstance(record, JournalLine)
    ]


def test_every_form_is_there(tmp_path: Path) -> None:
    """Probes, monitoring, replay and simulations all live on what one interval leaves."""
    textfile = tmp_path / "vmpack.prom"
    to = publisher(tmp_path, textfile)
    assert publish_all(to, intervals.history_of(3)) == [(), (), ()]
    assert "PACKEDMEMORY" in (tmp_path / "run/probe/host-system").read_text()
    assert (tmp_path / "run/probe/vm-snapshot").read_text().startswith("# vmpack ")
    assert (tmp_path / "run/probe/host-system").stat().st_mode & 0o777 == 0o644
    assert textfile.read_bytes() == to.metrics()
    assert b"vmpack_intervals_total 3.0" in to.metrics()
    assert journal_numbers(tmp_path) == [1, 2, 3]
    to.close()
    assert (tmp_path / "state/history.db").exists()


def test_close_takes_away_what_would_go_stale(tmp_path: Path) -> None:
    """A stopped agent must not go on telling the cloud and Prometheus of packed memory."""
    textfile = tmp_path / "vmpack.prom"
    to = publisher(tmp_path, textfile)
    publish_all(to, intervals.history_of(1))
    to.close()
    assert not textfile.exists()
    assert list((tmp_path / "run/probe").iterdir()) == []
    assert journal_numbers(tmp_path) == [1]


def test_a_failing_form_stops_no_other(tmp_path: Path) -> None:
    """A full /run must not cost the journal, and the other way round."""
    textfile = tmp_path / "missing" / "vmpack.prom"
    (tmp_path / "run").write_text("in the way")
    to = publisher(tmp_path, textfile)
    (faults,) = publish_all(to, intervals.history_of(1))
    assert len(faults) == 2
    assert faults[0].startswith("probe texts: ") and faults[1].startswith("metrics: ")
    assert str(textfile) in faults[1] and "create the directory" in faults[1]
    assert journal_numbers(tmp_path) == [1]


def test_the_same_failure_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A full disk must not fill the log as well; that it is over is worth a line too."""
    (tmp_path / "state").write_text("in the way")
    to = publisher(tmp_path)
    turns = intervals.history_of(4)
    with caplog.at_level(logging.INFO):
        faults = publish_all(to, turns[:3])
        (tmp_path / "state").unlink()
        assert publish_all(to, turns[3:]) == [()]
    assert all(len(texts) == 1 and texts[0].startswith("journal: ") for texts in faults)
    assert [record.message for record in caplog.records if "journal" in record.message] == [
        f"not published: {faults[0][0]}",
        "published again: journal",
    ]


def test_failed_intervals_are_counted(tmp_path: Path) -> None:
    """An agent that fails every interval must be seen by its monitoring."""
    textfile = tmp_path / "vmpack.prom"
    to = publisher(tmp_path, textfile)
    assert to.publish_failure() == ()
    assert b"vmpack_failed_intervals_total 1.0" in textfile.read_bytes()


def test_a_killed_agents_leftovers_go_with_the_first_interval(tmp_path: Path) -> None:
    """A host whose agent is killed again and again must not fill its run directory, which is memory."""
    textfile = tmp_path / "vmpack.prom"
    (tmp_path / "run/probe").mkdir(parents=True)
    left = [tmp_path / "run/probe/.vm-snapshot.abcd1234", tmp_path / ".vmpack.prom.abcd1234"]
    for path in left:
        path.write_text("half")

    publish_all(publisher(tmp_path, textfile), intervals.history_of(1))

    assert not any(path.exists() for path in left) and textfile.exists()
