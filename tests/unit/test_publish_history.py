"""The compacted history keeps months of use, whatever happens to its file."""

import dataclasses
import logging
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests import intervals

from vmpack.errors import UnavailableError
from vmpack.model.interval import Interval
from vmpack.publish.history import SLOT_S, History
from vmpack.units import MIB

SLOT_START_S = 1_790_000_100 // SLOT_S * SLOT_S


def at(wall_s: float, *guests: Any) -> Interval:
    turn = intervals.interval(*(guests or (intervals.guest(1),)))
    return dataclasses.replace(turn, snapshot=dataclasses.replace(turn.snapshot, wall_s=float(wall_s)))


def rows(path: Path, question: str) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(path)) as database:
        database.row_factory = sqlite3.Row
        return [dict(row) for row in database.execute(question)]


def test_one_row_per_vm_and_slot(tmp_path: Path) -> None:
    """Simulations replay these means and peaks: a wrong mean packs a wrong host."""
    history = History(tmp_path / "history.db", 30)
    for offset, used in ((0, 30), (5, 50), (10, 100)):
        history.record(at(SLOT_START_S + offset, intervals.guest(1, used=used), intervals.guest(2)))
    history.record(at(SLOT_START_S + SLOT_S))
    found = rows(tmp_path / "history.db", "SELECT * FROM vm_mean ORDER BY uuid")
    assert [(row["slot_s"], row["name"], row["samples"]) for row in found] == [
        (SLOT_START_S, "web-1", 3),
        (SLOT_START_S, "web-2", 3),
    ]
    assert found[0]["used_mean_bytes"] == 60 * MIB
    assert found[0]["used_max_bytes"] == 100 * MIB
    assert found[0]["balloon_mean_bytes"] == found[0]["nominal_bytes"] == 256 * MIB
    host = rows(tmp_path / "history.db", "SELECT * FROM host_mean")
    assert [(row["slot_s"], row["samples"]) for row in host] == [(SLOT_START_S, 3)]
    assert host[0]["capacity_bytes"] == at(0).plan.budget.capacity_bytes


def test_unmet_need_is_kept(tmp_path: Path) -> None:
    """How much a guest lacked is what tells a good policy from a bad one afterwards."""
    turn = at(SLOT_START_S, intervals.guest(1, balloon=100, used=60))
    unmet_bytes = turn.plan.guests[0].minimum_bytes - 100 * MIB
    assert unmet_bytes > 0
    history = History(tmp_path / "history.db", 30)
    history.record(turn)
    history.close()
    assert rows(tmp_path / "history.db", "SELECT unmet_mean_bytes FROM vm_mean") == [
        {"unmet_mean_bytes": unmet_bytes}
    ]


def test_a_restart_within_a_slot_is_merged(tmp_path: Path) -> None:
    """Stopping the agent must neither lose the begun slot nor count it twice."""
    for used in (30, 60):
        history = History(tmp_path / "history.db", 30)
        history.record(at(SLOT_START_S, intervals.guest(1, used=used)))
        history.close()
    (row,) = rows(tmp_path / "history.db", "SELECT * FROM vm_mean")
    assert (row["samples"], row["used_mean_bytes"], row["used_max_bytes"]) == (2, 45 * MIB, 60 * MIB)


def test_a_guest_that_never_reports_has_no_use(tmp_path: Path) -> None:
    """No statistics is not the same as no use."""
    history = History(tmp_path / "history.db", 30)
    history.record(at(SLOT_START_S, dataclasses.replace(intervals.guest(1), stats=None)))
    history.close()
    (row,) = rows(tmp_path / "history.db", "SELECT * FROM vm_mean")
    assert row["used_mean_bytes"] is None and row["used_max_bytes"] is None


def test_retention_counts_days_lived(tmp_path: Path) -> None:
    """The file stays small, and a clock that jumps ahead deletes nothing."""
    path = tmp_path / "history.db"
    history = History(path, 1)
    for slot in range(4):
        history.record(at(SLOT_START_S + slot * SLOT_S))
    history.record(at(SLOT_START_S + 10 * 365 * 86400))
    history.close()
    assert rows(path, "SELECT count(*) AS count FROM host") == [{"count": 5}]
    kept = 86400 // SLOT_S
    with closing(sqlite3.connect(path)) as database, database:
        more = [(10_000_000_000 + slot, 1, 1, 1, 1, 1, 1) for slot in range(kept + 10)]
        database.executemany("INSERT INTO host VALUES (?, ?, ?, ?, ?, ?, ?)", more)
    history.record(at(20_000_000_000))
    history.close()
    assert rows(path, "SELECT count(*) AS count FROM host") == [{"count": kept}]
    assert rows(path, "SELECT count(*) AS count FROM vm") == [{"count": 1}]


def newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 99")


def nonsense(path: Path) -> None:
    path.write_bytes(b"no database at all\n" * 1000)


def torn(path: Path) -> None:
    history = History(path, 30)
    history.record(at(SLOT_START_S))
    history.close()
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    path.write_bytes(data)


@pytest.mark.parametrize("spoil", [newer, nonsense, torn])
def test_a_broken_file_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture, spoil: Any) -> None:
    """A broken history must not stop the agent, and stays there for whoever wants to save it."""
    path = tmp_path / "history.db"
    spoil(path)
    before = path.read_bytes()
    history = History(path, 30)
    history.record(at(SLOT_START_S + SLOT_S))
    with caplog.at_level(logging.WARNING):
        history.close()
    assert "history.db.broken-1" in caplog.text
    assert (tmp_path / "history.db.broken-1").read_bytes()[4096:] == before[4096:]
    assert rows(path, "SELECT slot_s FROM host") == [{"slot_s": SLOT_START_S + SLOT_S}]


def test_a_refusing_disk_loses_no_slot(tmp_path: Path) -> None:
    """While the disk is full the slots wait; once there is room they are written."""
    path = tmp_path / "history.db"
    path.mkdir()
    history = History(path, 30)
    history.record(at(SLOT_START_S))
    for offset in (0, 5):
        with pytest.raises(UnavailableError) as caught:
            history.record(at(SLOT_START_S + SLOT_S + offset))
        assert str(path) in caught.value.message
    path.rmdir()
    history.close()
    assert rows(path, "SELECT slot_s, samples FROM host") == [
        {"slot_s": SLOT_START_S, "samples": 1},
        {"slot_s": SLOT_START_S + SLOT_S, "samples": 2},
    ]
