"""The compacted history: per VM and five minutes one row, months of it, for simulations to come.

Written by the publisher to STATE_DIR/history.db (sqlite3, WAL). Slots are gathered in memory and written
when they end and on `close`; a slot that is met again (a restart, a clock set back) is merged.
A broken file is set aside with a warning and a new one begun.
"""

from __future__ import annotations

import logging
import sqlite3
from collections import deque
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from vmpack.errors import UnavailableError
from vmpack.model.interval import Interval
from vmpack.publish.atomic import make_directory, set_aside

log = logging.getLogger(__name__)

SLOT_S = 300
SCHEMA = 1

_WAITING_SLOTS = 288
"""How many slots wait for a disk that refuses them before the oldest are dropped."""

_BROKEN = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

_TABLES = """
CREATE TABLE IF NOT EXISTS vm (
    slot_s INTEGER, uuid TEXT, name TEXT, samples INTEGER, nominal_bytes INTEGER,
    balloon_sum_bytes INTEGER, unmet_sum_bytes INTEGER,
    used_samples INTEGER, used_sum_bytes INTEGER, used_max_bytes INTEGER,
    PRIMARY KEY (slot_s, uuid)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS host (
    slot_s INTEGER PRIMARY KEY, samples INTEGER, capacity_bytes INTEGER,
    budget_sum_bytes INTEGER, own_sum_bytes INTEGER, packed_sum_bytes INTEGER, offered_sum_bytes INTEGER);
CREATE VIEW IF NOT EXISTS vm_mean AS SELECT slot_s, uuid, name, samples, nominal_bytes,
    balloon_sum_bytes / samples AS balloon_mean_bytes, unmet_sum_bytes / samples AS unmet_mean_bytes,
    used_sum_bytes / used_samples AS used_mean_bytes, used_max_bytes FROM vm;
CREATE VIEW IF NOT EXISTS host_mean AS SELECT slot_s, samples, capacity_bytes,
    budget_sum_bytes / samples AS budget_mean_bytes, own_sum_bytes / samples AS own_mean_bytes,
    packed_sum_bytes / samples AS packed_mean_bytes, offered_sum_bytes / samples AS offered_mean_bytes
    FROM host;
"""
_ADD_VM = """
INSERT INTO vm VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
    name = excluded.name, samples = samples + excluded.samples, nominal_bytes = excluded.nominal_bytes,
    balloon_sum_bytes = balloon_sum_bytes + excluded.balloon_sum_bytes,
    unmet_sum_bytes = unmet_sum_bytes + excluded.unmet_sum_bytes,
    used_samples = used_samples + excluded.used_samples,
    used_sum_bytes = used_sum_bytes + excluded.used_sum_bytes,
    used_max_bytes = max(coalesce(used_max_bytes, excluded.used_max_bytes),
                         coalesce(excluded.used_max_bytes, used_max_bytes))
"""
_ADD_HOST = """
INSERT INTO host VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
    samples = samples + excluded.samples, capacity_bytes = excluded.capacity_bytes,
    budget_sum_bytes = budget_sum_bytes + excluded.budget_sum_bytes,
    own_sum_bytes = own_sum_bytes + excluded.own_sum_bytes,
    packed_sum_bytes = packed_sum_bytes + excluded.packed_sum_bytes,
    offered_sum_bytes = offered_sum_bytes + excluded.offered_sum_bytes
"""
_OLDEST_KEPT = "SELECT slot_s FROM host ORDER BY slot_s DESC LIMIT 1 OFFSET ?"


@dataclass(slots=True)
class _VmSlot:
    name: str = ""
    samples: int = 0
    nominal_bytes: int = 0
    balloon_sum_bytes: int = 0
    unmet_sum_bytes: int = 0
    used_samples: int = 0
    used_sum_bytes: int = 0
    used_max_bytes: int | None = None


@dataclass(slots=True)
class _Slot:
    start_s: int
    samples: int = 0
    capacity_bytes: int = 0
    budget_sum_bytes: int = 0
    own_sum_bytes: int = 0
    packed_sum_bytes: int = 0
    offered_sum_bytes: int = 0
    vms: dict[str, _VmSlot] = field(default_factory=dict)


class History:
    """Gathers intervals into slots of SLOT_S and keeps `retention_days` worth of them.

    Days count slots that the agent lived through, so a clock that jumps forward deletes nothing.
    """

    def __init__(self, path: Path, retention_days: int) -> None:
        self._path = path
        self._slots_kept = max(1, retention_days * 86400 // SLOT_S)
        self._slot: _Slot | None = None
        self._ended: deque[_Slot] = deque(maxlen=_WAITING_SLOTS)

    def record(self, interval: Interval) -> None:
        """Add one interval; writes the slots that have ended.

        Raises VmpackError when they cannot be written; they are kept and tried again with the next interval.
        """
        start_s = int(interval.snapshot.wall_s // SLOT_S) * SLOT_S
        if self._slot is not None and self._slot.start_s != start_s:
            self._ended.append(self._slot)
            self._slot = None
        if self._slot is None:
            self._slot = _Slot(start_s)
        _add(self._slot, interval)
        self._write_ended()

    def close(self) -> None:
        """Write the slot that has begun too. Raises VmpackError."""
        if self._slot is not None:
            self._ended.append(self._slot)
            self._slot = None
        self._write_ended()

    def _write_ended(self) -> None:
        while self._ended:
            self._write(self._ended[0])
            self._ended.popleft()

    def _write(self, slot: _Slot) -> None:
        make_directory(self._path.parent, 0o750)
        try:
            self._store(slot)
        except _BrokenFile as broken:
            aside = set_aside(self._path)
            for side in ("-wal", "-shm"):
                self._path.with_name(self._path.name + side).unlink(missing_ok=True)
            log.warning(
                "history %s cannot be used (%s): kept as %s, a new one begun", self._path, broken, aside
            )
            self._store(slot)

    def _store(self, slot: _Slot) -> None:
        with self._opened() as database, database:
            database.execute(
                _ADD_HOST,
                (slot.start_s, slot.samples, slot.capacity_bytes, slot.budget_sum_bytes, slot.own_sum_bytes,
                 slot.packed_sum_bytes, slot.offered_sum_bytes),
            )  # fmt: skip
            database.executemany(
                _ADD_VM,
                [
                    (slot.start_s, uuid, vm.name, vm.samples, vm.nominal_bytes, vm.balloon_sum_bytes,
                     vm.unmet_sum_bytes, vm.used_samples, vm.used_sum_bytes, vm.used_max_bytes)
                    for uuid, vm in slot.vms.items()
                ],
            )  # fmt: skip
            oldest = database.execute(_OLDEST_KEPT, (self._slots_kept - 1,)).fetchone()
            if oldest is not None:
                database.execute("DELETE FROM vm WHERE slot_s < ?", oldest)
                database.execute("DELETE FROM host WHERE slot_s < ?", oldest)

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self._path)) as database:
                schema = database.execute("PRAGMA user_version").fetchone()[0]
                if schema not in (0, SCHEMA):
                    raise _BrokenFile(f"its form is {schema}, this vmpack writes {SCHEMA}")
                database.execute("PRAGMA journal_mode = WAL")
                database.executescript(f"{_TABLES} PRAGMA user_version = {SCHEMA};")
                yield database
        except (sqlite3.Error, OverflowError) as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in _BROKEN:
                raise _BrokenFile(str(error)) from error
            hint = "see that the disk has room and can be written"
            raise UnavailableError(f"cannot write the history {self._path}: {error}", hint) from error


class _BrokenFile(Exception):
    """The file is no database, or not one of ours."""


def _add(slot: _Slot, interval: Interval) -> None:
    budget, offer = interval.plan.budget, interval.plan.offer
    slot.samples += 1
    slot.capacity_bytes = budget.capacity_bytes
    slot.budget_sum_bytes += budget.budget_bytes
    slot.own_sum_bytes += budget.host_own_bytes
    slot.packed_sum_bytes += offer.packed_bytes
    slot.offered_sum_bytes += offer.memory_bytes
    plans = {plan.uuid: plan for plan in interval.plan.guests}
    for guest in interval.snapshot.guests:
        vm = slot.vms.setdefault(guest.uuid, _VmSlot())
        plan = plans.get(guest.uuid)
        vm.name = guest.name.encode(errors="replace").decode()
        vm.samples += 1
        vm.nominal_bytes = guest.nominal_bytes
        vm.balloon_sum_bytes += guest.balloon_bytes
        if plan is None:
            continue
        vm.unmet_sum_bytes += max(0, plan.minimum_bytes - guest.balloon_bytes)
        if plan.used_bytes is not None:
            vm.used_samples += 1
            vm.used_sum_bytes += plan.used_bytes
            vm.used_max_bytes = max(vm.used_max_bytes or 0, plan.used_bytes)
