"""Traces from files: every form that is documented, and mistakes told with their row."""

from __future__ import annotations

import dataclasses
import gzip
from pathlib import Path

import numpy as np
import pytest
from tests import intervals

from vmpack.errors import BadDataError, UnavailableError, UsageError
from vmpack.publish.history import History
from vmpack.replay.trace_file import read_trace
from vmpack.units import MIB

SAMPLE = Path(__file__).parents[3] / "shared/traces/bitbrains_rnd_2013-08_120vm_7d.csv.gz"

SLOTTED = """\
vm,slot,cores,cpu_cap_mhz,cpu_used_mhz,mem_prov_mb,mem_used_mb
7,10,1,2926,0,1024,30
8,10,1,2926,0,2048,100
7,11,1,2926,0,1024,40
8,11,1,2926,0,4096,110
"""
TIMED = """\
time,vm,used_bytes,nominal_bytes
1000,b,100,4000
1000,a,30,1000
1060,a,40,1000
1180,a,60,1000
1060,b,110,4000
1120,b,120,4000
1180,b,130,4000
"""


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_slots_in_mib(tmp_path: Path) -> None:
    """The prepared Bitbrains form: a wrong unit or order would simulate another fleet."""
    for path in (written(tmp_path / "a.csv", SLOTTED), tmp_path / "b.csv.gz"):
        if path.suffix == ".gz":
            path.write_bytes(gzip.compress(SLOTTED.encode()))
        trace = read_trace(path)
        assert trace.names == ("7", "8") and trace.slot_s == 300
        assert trace.nominal_bytes.tolist() == [1024 * MIB, 4096 * MIB]
        assert (trace.used_bytes // MIB).tolist() == [[30, 40], [100, 110]]


def test_times_in_bytes_with_a_gap(tmp_path: Path) -> None:
    """What people export from their monitoring: any order of rows, and a sample lost now and then."""
    trace = read_trace(written(tmp_path / "a.csv", TIMED))
    assert trace.names == ("a", "b") and trace.slot_s == 60
    assert trace.used_bytes.tolist() == [[30, 40, 40, 60], [100, 110, 120, 130]]


def test_parquet_is_read_as_csv_is(tmp_path: Path) -> None:
    """Months of a fleet come as parquet: the same rows must be the same trace."""
    import pyarrow.csv
    import pyarrow.parquet

    for name, text in (("slotted", SLOTTED), ("timed", TIMED)):
        source = written(tmp_path / f"{name}.csv", text)
        path = tmp_path / f"{name}.parquet"
        pyarrow.parquet.write_table(pyarrow.csv.read_csv(source), path)
        from_csv, from_parquet = read_trace(source), read_trace(path)
        assert from_csv.names == from_parquet.names and from_csv.slot_s == from_parquet.slot_s
        assert (from_csv.used_bytes == from_parquet.used_bytes).all()


def test_the_agents_own_history(tmp_path: Path) -> None:
    """The trace that every user has: its slots' peaks are what guests needed."""
    history = History(tmp_path / "history.db", 30)
    for slot in range(3):
        for used in (30, 50 + slot):
            turn = intervals.interval(intervals.guest(1, used=used), intervals.guest(2, used=20))
            moment = dataclasses.replace(turn.snapshot, wall_s=1_790_000_100.0 + 300 * slot)
            history.record(dataclasses.replace(turn, snapshot=moment))
    history.close()
    trace = read_trace(tmp_path / "history.db")
    assert trace.names == (intervals.uuid_of(1), intervals.uuid_of(2)) and trace.slot_s == 300
    assert (trace.nominal_bytes // MIB).tolist() == [256, 256]
    assert (trace.used_bytes // MIB).tolist() == [[50, 51, 52], [20, 20, 20]]


def test_vms_that_were_hardly_there_are_left_out(tmp_path: Path) -> None:
    """A VM of one hour, stretched over a day, would be a VM that nobody had."""
    rows = [f"{1000 + 60 * slot},a,10,100" for slot in range(10)]
    lines = ["time,vm,used_bytes,nominal_bytes", *rows, "1000,brief,10,100", "1000,none,0,0"]
    trace = read_trace(written(tmp_path / "a.csv", "\n".join(lines)))
    assert trace.names == ("a",) and trace.left_out == 2


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.csv", SLOTTED.replace("1024,40", "1024,some"), "row 3: mem_used_mb is 'some'"),
        ("a.csv", SLOTTED.replace("1024,40", "1024,-1"), "row 3: mem_used_mb cannot be -1"),
        ("a.csv", SLOTTED.replace("1024,40", "nan,40"), "row 3: mem_prov_mb cannot be nan"),
        ("a.csv", SLOTTED.replace("2926,0,1024,40", "2926"), "row 3: it is too short"),
        ("a.csv", SLOTTED.replace("1024,40", "1024,1e30"), "row 3: mem_used_mb cannot be 1e"),
        ("a.csv", "vm,slot,memory\n1,2,3\n", "columns vm, slot, memory"),
        ("a.csv", "", "columns \\(none\\)"),
        ("a.csv", SLOTTED.splitlines()[0], "no rows"),
        ("a.csv", "time,vm,used_bytes,nominal_bytes\n1,a,1,2\n", "one moment only"),
        ("a.csv", "time,vm,used_bytes,nominal_bytes\n0,a,1,2\n1,a,1,2\n9e15,a,1,2\n", "slots for 1 VMs"),
        ("a.csv.gz", "no gzip", "broken from data row 1"),
        ("a.parquet", "no parquet", "cannot be read as parquet"),
        ("a.db", "no database", "not a history"),
    ],
)
def test_mistakes_are_told(tmp_path: Path, name: str, text: str, told: str) -> None:
    """Somebody's export of a million rows is found wrong: the row says where."""
    with pytest.raises(BadDataError, match=told):
        read_trace(written(tmp_path / name, text))


def test_files_of_no_known_kind(tmp_path: Path) -> None:
    """A wrong path or kind is told in a line with what to do."""
    with pytest.raises(UsageError, match="no kind that is known"):
        read_trace(written(tmp_path / "a.xml", "<a/>"))
    with pytest.raises(UnavailableError, match="cannot read"):
        read_trace(tmp_path / "missing.csv")
    with pytest.raises(UsageError, match="there is no"):
        read_trace(tmp_path / "missing.db")


@pytest.mark.skipif(not SAMPLE.exists(), reason="needs ../shared/traces")
def test_the_sample_of_bitbrains() -> None:
    """The marks are measured on it: it must be read whole."""
    trace = read_trace(SAMPLE)
    assert len(trace.names) == 120 and trace.days == 7 and trace.left_out == 0
    assert int(trace.used_bytes.min()) >= 0
    assert np.all(trace.used_bytes <= trace.nominal_bytes[:, None])
