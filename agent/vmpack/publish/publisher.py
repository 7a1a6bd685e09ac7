"""Publishes one interval: probe texts, metrics, journal, history, in this order.

Called by the host agent's loop after acting. A part that fails is reported and never stops the others,
nor the loop; the same failure is logged once, and once more when it is over.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path

from vmpack.errors import VmpackError
from vmpack.model.interval import AgentStatus, Interval
from vmpack.model.machine import Machine
from vmpack.model.plan import Remembered
from vmpack.model.settings import Settings
from vmpack.model.vcpu import VcpuInterval, VcpuStatus
from vmpack.publish import probe_text
from vmpack.publish.atomic import disk_error, make_directory, sweep_leftovers, write_atomically
from vmpack.publish.history import History
from vmpack.publish.journal import JournalWriter
from vmpack.publish.metrics import Metrics
from vmpack.publish.probe_file import write_probe_file
from vmpack.publish.probe_text import ProbeSettings

log = logging.getLogger(__name__)

TEXT_HOLDS_INTERVALS = 3
TEXT_HOLDS_LEAST_S = 15.0
"""A probe text is believed for so long: an interval may be late, an agent that is gone must be noticed."""

VCPU_TURNS_KEPT = 100
"""For so many turns of the vCPU loop the journal may be behind, as while intervals of memory fail."""

Grant = Callable[[Interval, bool], int]
"""The bytes by which the probe raises the host's memory, by interval and observe_only."""


class Publisher:
    """Owns RUN_DIR/probe/, the metrics (and their textfile), STATE_DIR/journal/ and STATE_DIR/history.db."""

    def __init__(
        self,
        run_dir: Path,
        state_dir: Path,
        *,
        machine: Machine,
        grant: Grant,
        version: str,
        textfile_path: Path | None,
        journal_cap_bytes: int,
        journal_segment_bytes: int,
        history_days: int,
    ) -> None:
        self._probe_dir = run_dir / "probe"
        self._machine = machine
        self.grant = grant
        """Of the next probe texts; a new configuration may change it."""
        self._textfile_path = textfile_path
        self._metrics = Metrics(version)
        self._version = version
        journal_dir = state_dir / "journal"
        self._journal = JournalWriter(journal_dir, journal_cap_bytes, journal_segment_bytes, version)
        self._history = History(state_dir / "history.db", history_days)
        self._faults: dict[str, str] = {}
        self._is_swept = False
        self._vcpu_turn: VcpuInterval | None = None
        self._vcpu_turns: deque[VcpuInterval] = deque(maxlen=VCPU_TURNS_KEPT)
        """Not yet in the journal."""

    def publish(
        self,
        interval: Interval,
        remembered_before: Remembered,
        settings: Settings,
        status: AgentStatus,
        took_s: float,
    ) -> tuple[str, ...]:
        """Publish an interval that went through.

        `remembered_before` and `settings` are what its decision got; `took_s` is how long it took from
        observing to acting. Returns the failures, one text each; never raises them.
        """
        self._sweep_once()
        self._metrics.record(interval, status.observe_only, took_s)
        holds_s = max(TEXT_HOLDS_LEAST_S, TEXT_HOLDS_INTERVALS * settings.memory.interval_s)
        self._try("probe texts", lambda: self._write_probe_texts(interval, status.observe_only, holds_s))
        self._try("metrics", self._write_textfile)
        self._try("journal", lambda: self._journal.write(interval, remembered_before, settings))
        self._try("journal of vCPUs", self._write_vcpu_turns)
        self._try("history", lambda: self._history.record(interval))
        return tuple(self._faults.values())

    def publish_vcpus(self, status: VcpuStatus) -> None:
        """Take in what the vCPU loop says after a turn; may be called from a thread of its own.

        It reaches the textfile and the journal with the next interval of memory.
        """
        turn = status.interval
        if turn is not None and turn is not self._vcpu_turn:
            self._vcpu_turn = turn
            self._metrics.vcpus.publish(status)
            if turn.plan.actions:
                self._vcpu_turns.append(turn)

    def _write_vcpu_turns(self) -> None:
        while self._vcpu_turns:
            self._journal.write_vcpus(self._vcpu_turns.popleft())

    def publish_failure(self) -> tuple[str, ...]:
        """Count an interval that failed. Probe texts stay as they are: each tells until when it holds."""
        self._metrics.record_failure()
        self._try("metrics", self._write_textfile)
        return tuple(self._faults.values())

    def metrics(self) -> bytes:
        """Prometheus text of the newest interval; may be called from any thread."""
        return self._metrics.render()

    def close(self) -> None:
        """End journal and history; take away the files that would go on telling of an agent that is gone."""
        self._try("journal of vCPUs", self._write_vcpu_turns)
        self._try("journal", self._journal.close)
        self._try("history", self._history.close)
        for part, path in self._texts():
            self._try(part, partial(_remove, path))

    def _texts(self) -> list[tuple[str, Path]]:
        """What goes stale with the agent."""
        texts = [("probe texts", self._probe_dir / category) for category in probe_text.CATEGORIES]
        return texts if self._textfile_path is None else [*texts, ("metrics", self._textfile_path)]

    def _sweep_once(self) -> None:
        if not self._is_swept:
            self._is_swept = True
            for _, path in self._texts():
                sweep_leftovers(path)

    def _write_probe_texts(self, interval: Interval, observe_only: bool, holds_s: float) -> None:
        make_directory(self._probe_dir)
        granted_bytes = self.grant(interval, observe_only)
        settings = ProbeSettings(self._machine, granted_bytes, self._version, observe_only)
        for category, text in probe_text.render(interval, settings).items():
            write_probe_file(self._probe_dir / category, text, holds_s)

    def _write_textfile(self) -> None:
        if self._textfile_path is not None:
            write_atomically(self._textfile_path, self._metrics.render())

    def _try(self, part: str, publish_part: Callable[[], None]) -> None:
        try:
            publish_part()
        except VmpackError as error:
            fault = f"{part}: {error}"
            if self._faults.get(part) != fault:
                log.warning("not published: %s", fault)
            self._faults[part] = fault
        else:
            if self._faults.pop(part, None) is not None:
                log.info("published again: %s", part)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise disk_error("remove", path, error) from error
