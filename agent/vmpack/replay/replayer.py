"""Decides every recorded interval again and compares, byte by byte.

Called by the replay command and by tests. The decision is a parameter: any function with the signature
of vmpack.decide.memory.plan. Nothing here reads a clock or a file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from vmpack.model import codec
from vmpack.model.host import HostSnapshot
from vmpack.model.plan import Plan, Remembered
from vmpack.model.settings import Settings
from vmpack.publish.journal import Header, JournalLine, VcpuLine, without_remembered
from vmpack.replay.segments import Damage, Record

PlanFunction = Callable[[HostSnapshot, Remembered, Settings], Plan]


@dataclass(frozen=True, slots=True)
class Difference:
    """The first place at which a replayed interval is not the recorded one."""

    number: int
    """The interval's."""
    place: str
    """In words: whose value, and which."""
    recorded: Any
    replayed: Any

    def __str__(self) -> str:
        place = f"interval {self.number}: {self.place}"
        return f"{place} was recorded as {self.recorded!r}, and comes out as {self.replayed!r}"


@dataclass(slots=True)
class ReplayReport:
    """What came of a replay."""

    segments: int = 0
    intervals: int = 0
    actions: int = 0
    """As recorded."""
    vcpu_turns: int = 0
    """Turns of the vCPU loop that were recorded; they are not decided again."""
    pin_changes: int = 0
    """That were done in them."""
    different: int = 0
    """Intervals; one difference carries on to those after it, until the next segment starts afresh."""
    first_difference: Difference | None = None
    damages: list[Damage] = field(default_factory=list)
    versions: list[str] = field(default_factory=list)
    """Of vmpack, which wrote the journal; each once, in order."""

    @property
    def identical(self) -> bool:
        """Every interval that could be read gave the same bytes."""
        return self.different == 0


def replay(records: Iterable[Record], plan_function: PlanFunction) -> ReplayReport:
    """Run the whole stream of a journal through `plan_function`."""
    report = ReplayReport()
    segment: _Segment | None = None
    for record in records:
        if isinstance(record, Damage):
            report.damages.append(record)
            segment = None
        elif isinstance(record, Header):
            _note_start(report, record)
            segment = _Segment(record, segment.left if segment is not None and record.continues else None)
        elif isinstance(record, VcpuLine):
            report.vcpu_turns += 1
            report.pin_changes += sum(outcome.status == "done" for outcome in record.outcomes)
        elif segment is not None:
            report.intervals += 1
            report.actions += len(record.plan.actions)
            difference = segment.step(record, plan_function)
            if difference is not None:
                report.different += 1
                report.first_difference = report.first_difference or difference
    return report


def _note_start(report: ReplayReport, header: Header) -> None:
    report.segments += 1
    if header.version not in report.versions:
        report.versions.append(header.version)


class _Segment:
    """One segment on its way: what the next decision gets."""

    def __init__(self, header: Header, left_before: Remembered | None) -> None:
        self.left = header.remembered
        self._settings = header.settings
        self._settings_digest = codec.digest(header.settings)
        self._gap: tuple[str, str] | None = None
        if left_before is not None:
            handed_on = header.correction.apply(left_before) if header.correction else left_before
            recorded, replayed = codec.digest(header.remembered), codec.digest(handed_on)
            self._gap = (recorded, replayed) if recorded != replayed else None

    def step(self, line: JournalLine, plan_function: PlanFunction) -> Difference | None:
        got = line.correction.apply(self.left) if line.correction else self.left
        decided = plan_function(line.snapshot, got, self._settings)
        self.left = decided.remembered
        return self._compared(line, decided)

    def _compared(self, line: JournalLine, decided: Plan) -> Difference | None:
        gap, self._gap = self._gap, None
        if gap is not None:
            return Difference(line.number, "what was remembered from the segment before (digest)", *gap)
        if line.settings_digest != self._settings_digest:
            return Difference(
                line.number, "the settings (digest)", line.settings_digest, self._settings_digest
            )
        replayed = without_remembered(decided)
        if codec.dumps(line.plan) != codec.dumps(replayed):
            return next(_differences(line.number, "plan", codec.encode(line.plan), codec.encode(replayed)))
        left = codec.digest(decided.remembered)
        if line.remembered_digest != left:
            return Difference(line.number, "what is remembered (digest)", line.remembered_digest, left)
        return None


def _differences(number: int, place: str, recorded: Any, replayed: Any) -> Iterator[Difference]:
    if isinstance(recorded, Mapping) and isinstance(replayed, Mapping):
        place = _named(recorded) or place
        for key in sorted(recorded.keys() | replayed.keys()):
            yield from _differences(number, f"{place}: {key}", recorded.get(key), replayed.get(key))
    elif isinstance(recorded, list) and isinstance(replayed, list):
        if len(recorded) != len(replayed):
            yield Difference(number, f"{place}: how many", len(recorded), len(replayed))
        for index, (one, other) in enumerate(zip(recorded, replayed, strict=False)):
            yield from _differences(number, f"{place}[{index}]", one, other)
    elif json.dumps(recorded) != json.dumps(replayed):
        yield Difference(number, place, recorded, replayed)


def _named(entry: Mapping[str, Any]) -> str:
    """A VM's entry in a plan is called by the VM's name, not by its place in a list."""
    if "uuid" not in entry:
        return ""
    what = "action" if "kind" in entry else "plan"
    return f"VM {entry.get('name')} ({entry['uuid']}): {what}"
