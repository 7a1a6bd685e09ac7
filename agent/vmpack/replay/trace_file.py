"""Reads a trace from a file: CSV (also .gz), parquet, the agent's own history, or series of a Prometheus.

Two forms of table are known by their columns:

    vm, slot, mem_prov_mb, mem_used_mb      slots of 5 minutes, amounts in MiB (Bitbrains as prepared)
    time, vm, nominal_bytes, used_bytes     time in Unix seconds, at a common distance

Other columns are ignored. The history (history.db in the agent's state directory) gives each slot's peak.
"""

from __future__ import annotations

import csv
import gzip
import sqlite3
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmpack.errors import BadDataError, UnavailableError, UsageError
from vmpack.publish.atomic import disk_error
from vmpack.publish.history import SLOT_S
from vmpack.replay.prometheus_trace import ENDINGS, prometheus_columns
from vmpack.replay.trace import Trace, from_rows
from vmpack.units import MIB

SLOTTED = ("slot", "vm", "mem_prov_mb", "mem_used_mb")
TIMED = ("time", "vm", "nominal_bytes", "used_bytes")
_FORMS = "columns vm, slot, mem_prov_mb, mem_used_mb, or time, vm, nominal_bytes, used_bytes"
MOST_BYTES = 2**50
"""No VM has a pebibyte: such a number has another unit."""


def read_trace(path: Path) -> Trace:
    """Read a trace; the form is told by the name's end and the columns.

    Raises UsageError for a file of no known kind, BadDataError for one with a mistake (with its row), and
    UnavailableError or AccessError for one that cannot be read.
    """
    name = path.name.lower()
    rows: Sequence[Any]
    try:
        if name.endswith((".csv", ".csv.gz")):
            columns, rows = _csv_columns(path)
        elif name.endswith(".parquet"):
            columns, rows = _parquet_columns(path)
        elif name.endswith((".db", ".sqlite")):
            columns, rows = TIMED, _history_columns(path)
        elif name.endswith(ENDINGS):
            columns, rows = TIMED, prometheus_columns(path)
        else:
            hint = "give one that ends in .csv, .csv.gz, .parquet, .json, .prom, or the agent's history.db"
            raise UsageError(f"{path} is of no kind that is known", hint)
    except OSError as error:
        raise disk_error("read", path, error) from error
    return _trace(path, columns, rows)


def _form(path: Path, there: Sequence[str]) -> tuple[str, ...]:
    for form in (SLOTTED, TIMED):
        if set(form) <= set(there):
            return form
    raise BadDataError(f"{path} has the columns {', '.join(there) or '(none)'}", f"it needs the {_FORMS}")


def _csv_columns(path: Path) -> tuple[tuple[str, ...], list[list[Any]]]:
    opener: Callable[..., Any] = gzip.open if path.name.lower().endswith(".gz") else open
    columns: list[list[Any]] = [[], [], [], []]
    try:
        with opener(path, "rt", encoding="utf-8", newline="") as file:
            reader = csv.reader(file)
            header = [word.strip() for word in next(reader, [])]
            form = _form(path, header)
            places = [header.index(column) for column in form]
            appends = [column.append for column in columns]
            for words in reader:
                if not words:
                    continue
                for append, place in zip(appends, places, strict=True):
                    append(words[place])
    except IndexError as error:
        raise BadDataError(f"{path}, data row {len(columns[3]) + 1}: it is too short") from error
    except (UnicodeDecodeError, csv.Error, EOFError, gzip.BadGzipFile, zlib.error) as error:
        row = len(columns[3]) + 1
        raise BadDataError(f"{path} is broken from data row {row} on: {error}", "fetch it again") from error
    return form, columns


def _parquet_columns(path: Path) -> tuple[tuple[str, ...], list[Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        form = _form(path, pyarrow.parquet.read_schema(path).names)
        table = pyarrow.parquet.read_table(path, columns=list(form))
        return form, [_plain(table.column(column)) for column in form]
    except pyarrow.ArrowException as error:
        raise BadDataError(f"{path} cannot be read as parquet: {error}") from error


def _plain(column: Any) -> Any:
    import pyarrow

    if pyarrow.types.is_timestamp(column.type):
        column = column.cast(pyarrow.timestamp("s"), safe=False).cast(pyarrow.int64())
    return column.to_numpy(zero_copy_only=False)


def _history_columns(path: Path) -> list[Any]:
    if not path.exists():
        raise UsageError(
            f"there is no {path}", "the agent keeps it in its state directory, for root /var/lib/vmpack"
        )
    ask = "SELECT slot_s, uuid, nominal_bytes, used_max_bytes FROM vm WHERE used_max_bytes IS NOT NULL"
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            return [list(column) for column in zip(*database.execute(ask), strict=True)] or [[], [], [], []]
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError) and "no such" not in str(error):
            raise UnavailableError(f"cannot read the history {path}: {error}") from error
        raise BadDataError(f"{path} is not a history that vmpack wrote: {error}") from error


def _trace(path: Path, form: Sequence[str], columns: Sequence[Any]) -> Trace:
    if not len(columns[0]):
        raise BadDataError(f"{path} has no rows", f"it needs the {_FORMS}")
    whens, vms, sizes, uses = columns
    when = _numbers(path, form[0], whens)
    unit = MIB if form is SLOTTED else 1
    nominal = _numbers(path, form[2], sizes, 0, MOST_BYTES // unit) * unit
    used = _numbers(path, form[3], uses, 0, MOST_BYTES // unit) * unit
    texts, vm = np.unique(np.asarray(vms).astype(str), return_inverse=True)
    if form is SLOTTED:
        slot, slot_s = when.astype(np.int64), SLOT_S
    else:
        slot_s = _distance_s(path, when)
        slot = np.round((when - when.min()) / slot_s).astype(np.int64)
    return from_rows(
        [str(text) for text in texts], vm, slot, nominal.astype(np.int64), used.astype(np.int64), slot_s
    )


def _numbers(
    path: Path, column: str, values: Sequence[Any], least: float = -(2.0**53), most: float = 2.0**53
) -> NDArray[np.float64]:
    try:
        numbers = np.asarray(values).astype(np.float64)
    except (ValueError, TypeError):
        row = next(_not_numbers(values))
        raise BadDataError(
            f"{path}, data row {row + 1}: {column} is {str(values[row])[:40]!r}, not a number"
        ) from None
    wrong = ~((numbers >= least) & (numbers <= most))
    if wrong.any():
        row = int(wrong.argmax())
        raise BadDataError(f"{path}, data row {row + 1}: {column} cannot be {numbers[row]:g}")
    return numbers


def _not_numbers(values: Sequence[Any]) -> Iterator[int]:
    for row, value in enumerate(values):
        try:
            float(value)
        except (ValueError, TypeError):
            yield row


def _distance_s(path: Path, when: NDArray[np.float64]) -> int:
    """How far apart the times are: the most usual distance."""
    distances = np.diff(np.unique(np.round(when)))
    if not len(distances):
        raise BadDataError(f"{path} knows one moment only", "a simulation needs two days at least")
    values, counts = np.unique(distances, return_counts=True)
    return int(values[counts.argmax()])
