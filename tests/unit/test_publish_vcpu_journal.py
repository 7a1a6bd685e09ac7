"""Turns of the vCPU loop in the journal: kept among the intervals, shown by replay, in nobody's way."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from tests import builders, intervals
from tests.cli_samples import status as agent_status
from tests.vcpu_samples import pcpus, pinned, status, vm

from vmpack import __version__
from vmpack.cli.main import main
from vmpack.decide import memory
from vmpack.model.machine import Machine
from vmpack.model.vcpu import RememberedVcpus, VcpuInterval, VcpuStatus
from vmpack.publish.journal import JournalLine, JournalWriter, VcpuLine, segment_paths
from vmpack.publish.publisher import Publisher
from vmpack.replay.replayer import replay
from vmpack.replay.segments import read_segments
from vmpack.units import MIB


def crowded(count: int = 4, **told: object) -> VcpuStatus:
    """So many busy vCPUs on one of two pCPUs; half of them are moved."""
    vms = (vm(f"web{number}", pinned(0, 0, 1 / count, 1 - 1 / count)) for number in range(count))
    return status(pcpus(2), *vms, **told)  # type: ignore[arg-type]


def turn(number: int = 2, vms: int = 4) -> VcpuInterval:
    found = crowded(vms).interval
    assert found is not None
    return dataclasses.replace(found, number=number)


def journal(
    directory: Path, vcpu_every: int = 1, count: int = 40, segment_bytes: int = MIB, vms: int = 4
) -> Path:
    """Intervals with a turn of the vCPU loop behind every so many of them."""
    to = JournalWriter(directory, 8 * MIB, segment_bytes, __version__)
    for index, (each, remembered) in enumerate(intervals.history_of(count)):
        to.write(each, remembered, builders.EAGER)
        if index % vcpu_every == 0:
            to.write_vcpus(turn(index + 1, vms))
    to.close()
    return directory


def test_a_turn_is_read_as_it_was_written(tmp_path: Path) -> None:
    """A journal that cannot give back what was seen and decided of vCPUs explains nothing later."""
    lines = [line for line in read_segments(journal(tmp_path, count=1)) if isinstance(line, VcpuLine)]
    written = turn(1)

    assert lines == [
        VcpuLine(
            1,
            written.snapshot,
            dataclasses.replace(written.plan, remembered=RememberedVcpus()),
            written.outcomes,
        )
    ]


def test_intervals_of_memory_replay_identically_among_them(tmp_path: Path) -> None:
    """The proof of memory decisions must not be lost to lines of another kind, wherever a segment ends."""
    directory = journal(tmp_path, count=90, segment_bytes=intervals.segment_bytes(), vms=20)
    report = replay(read_segments(directory), memory.plan)

    assert report.identical and report.damages == [] and report.first_difference is None
    assert report.intervals == 90 and report.vcpu_turns == 90 and report.pin_changes == 900
    segments = [list(read_segments(path)) for path in segment_paths(directory)]
    assert any(isinstance(records[1], VcpuLine) for records in segments), "no segment begins with a turn"
    assert all(replay(records, memory.plan).identical for records in segments)


def test_a_turn_without_a_segment_is_left_out(tmp_path: Path) -> None:
    """A segment without a header could not be read at all."""
    to = JournalWriter(tmp_path, 8 * MIB, MIB, __version__)
    to.write_vcpus(turn())
    to.close()

    assert not segment_paths(tmp_path)


def test_replay_shows_the_turns_behind_an_interval(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever looks at the past sees what was done to pins, and why."""
    directory = journal(tmp_path, vcpu_every=4)
    assert main(["replay", str(directory), "--show", "1"]) == 0
    text = capsys.readouterr().out
    assert main(["replay", str(directory), "--show", "2"]) == 0

    assert "turn 1 of the vCPU loop: 4 vCPUs of 4 VMs on 2 pCPUs" in text
    assert "web0: vCPU 0: pCPU 0 -> 1, done: vCPU 0 leaves pCPU 0" in text
    assert "Among them: 10 turns of the vCPU loop with 20 pin changes." in text
    assert "turn " not in capsys.readouterr().out.split("Replayed")[0]


def test_replay_tells_the_turns_to_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What people are shown, programs can have too."""
    assert main(["replay", str(journal(tmp_path)), "--show", "3", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)

    assert record["vcpu_turns"] == 40 and record["pin_changes"] == 80
    assert [line["kind"] for line in record["shown"]] == ["interval", "vcpu"]


def publisher(tmp_path: Path) -> Publisher:
    return Publisher(
        tmp_path / "run",
        tmp_path / "state",
        machine=Machine(2, 1000, None),
        grant=lambda _interval, _observe: 0,
        version=__version__,
        textfile_path=None,
        journal_cap_bytes=8 * MIB,
        journal_segment_bytes=MIB,
        history_days=1,
    )


def test_the_publisher_writes_only_turns_with_something_in_them(tmp_path: Path) -> None:
    """A quiet host would fill its journal with the same look, every ten seconds."""
    to = publisher(tmp_path)
    quiet = status(pcpus(2), vm("a", pinned(0, 0, 0.5)), vm("b", pinned(0, 1, 0.5)))
    observed = crowded(acts=False)
    for told in (crowded(), quiet, observed, observed):
        to.publish_vcpus(told)
    (each, remembered), *_ = intervals.history_of(1)
    to.publish(each, remembered, builders.EAGER, agent_status(each), 0.1)
    to.close()

    kinds = [type(line) for line in read_segments(tmp_path / "state" / "journal")][1:]
    assert kinds == [JournalLine, VcpuLine, VcpuLine]
    assert b"vmpack_pcpu_load_ratio" in to.metrics()
