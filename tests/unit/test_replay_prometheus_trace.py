"""Traces from a Prometheus: what its libvirt exporters told of VMs' memory."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from vmpack.errors import BadDataError
from vmpack.replay.prometheus_trace import AVAILABLE, MAXIMUM, USABLE
from vmpack.replay.trace import Trace
from vmpack.replay.trace_file import read_trace
from vmpack.units import MIB

START_S = 1_790_000_000


def series(
    name: str, domain: str, mib: list[float | None], instance: str = "host-a:9177", start_s: float = START_S
) -> dict[str, Any]:
    """One series at one sample a minute; None is a sample that is missing."""
    values = [[start_s + 60 * n, str(size * MIB)] for n, size in enumerate(mib) if size is not None]
    return {"metric": {"__name__": name, "domain": domain, "instance": instance}, "values": values}


def vm(domain: str, used: list[float | None], nominal: int = 1024, **where: Any) -> list[dict[str, Any]]:
    """What an exporter tells of one VM of so many MiB that uses so much."""
    available = [None if size is None else nominal - 24.0 for size in used]
    usable = [None if size is None else nominal - 24.0 - size for size in used]
    maximum: list[float | None] = [None if size is None else nominal for size in used]
    return [
        series(AVAILABLE, domain, available, **where),
        series(USABLE, domain, usable, **where),
        series(MAXIMUM, domain, maximum, **where),
    ]


def answer(*entries: dict[str, Any]) -> str:
    return json.dumps({"status": "success", "data": {"resultType": "matrix", "result": entries}})


def dumped(*entries: dict[str, Any]) -> str:
    """As `promtool tsdb dump` prints it: times in milliseconds."""
    lines = []
    for entry in entries:
        labels = ", ".join(f'{label}="{text}"' for label, text in entry["metric"].items())
        lines += [f"{{{labels}}} {value} {int(1000 * when)}" for when, value in entry["values"]]
    return "\n".join(lines) + "\n"


def open_metrics(*entries: dict[str, Any]) -> str:
    """As `promtool tsdb dump-openmetrics` prints it: times in seconds."""
    lines = []
    for entry in entries:
        labels = ",".join(
            f'{label}="{text}"' for label, text in entry["metric"].items() if label != "__name__"
        )
        name = entry["metric"]["__name__"]
        lines += [f"{name}{{{labels}}} {float(value):e} {when}" for when, value in entry["values"]]
    return "\n".join([f"# TYPE {AVAILABLE} gauge", *lines, "# EOF"]) + "\n"


def read(tmp_path: Path, text: str, name: str = "prometheus.json") -> Trace:
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return read_trace(path)


def used_mib(trace: Trace) -> dict[str, list[int]]:
    return {
        name: [round(size / MIB) for size in row]
        for name, row in zip(trace.names, trace.used_bytes.tolist(), strict=True)
    }


TWO = [*vm("one-1", [100, 110, 120, 90]), *vm("one-2", [30, 30, 500, 40], nominal=2048)]


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.json", answer),
        ("a.json.gz", answer),
        ("a.prom", dumped),
        ("a.txt.gz", dumped),
        ("a.prom", open_metrics),
    ],
)
def test_every_form_gives_the_same_trace(tmp_path: Path, name: str, write: Any) -> None:
    """Users have the one or the other: a wrong unit of time or size would simulate another fleet."""
    trace = read(tmp_path, write(*TWO), name)

    assert trace.slot_s == 60
    assert used_mib(trace) == {"one-1": [100, 110, 120, 90], "one-2": [30, 30, 500, 40]}
    assert (trace.nominal_bytes // MIB).tolist() == [1024, 2048]


def test_days_fetched_one_by_one_are_one_trace(tmp_path: Path) -> None:
    """A Prometheus gives at most 11000 moments in one answer: a month comes in pieces."""
    later = vm("one-1", [130, 140], start_s=START_S + 240)
    text = answer(*vm("one-1", [100, 110, 120, 90])) + "\n" + answer(*later) + "\n"

    assert used_mib(read(tmp_path, text)) == {"one-1": [100, 110, 120, 90, 130, 140]}


def test_a_vm_that_migrates_is_one_vm(tmp_path: Path) -> None:
    """Each migration would leave two VMs that were there for half of the time, or none."""
    before: list[float | None] = [100.0 + n for n in range(20)] + [None] * 20
    after: list[float | None] = [None] * 19 + [200.0 + n for n in range(21)]
    text = answer(*vm("one-1", before), *vm("one-1", after, instance="host-b:9177"))

    (used,) = used_mib(read(tmp_path, text)).values()
    assert used == [*range(100, 119), 200, *range(201, 221)]


def test_two_vms_of_one_name_on_two_hosts_stay_two(tmp_path: Path) -> None:
    """Without a cloud names are unique on one host only: the sum of two VMs' memory would be one's."""
    text = answer(*vm("web", [100] * 20), *vm("web", [300] * 20, instance="host-b:9177"))

    assert used_mib(read(tmp_path, text)) == {"web@host-a:9177": [100] * 20, "web@host-b:9177": [300] * 20}


def test_hosts_that_are_scraped_at_other_seconds_share_their_slots(tmp_path: Path) -> None:
    """Raw samples of two hosts never have the same time: each VM would be missing in half of the slots."""
    entries = [
        *vm("a", [100, 110, 120], start_s=START_S - START_S % 60 + 7.2),
        *vm("b", [10, 20, 30], start_s=START_S - START_S % 60 + 41.9),
    ]
    trace = read(tmp_path, dumped(*entries), "a.prom")

    assert used_mib(trace) == {"a": [100, 110, 120], "b": [10, 20, 30]}


def test_gaps_keep_the_value_before_them(tmp_path: Path) -> None:
    """A restart of the exporter would be a guest that used nothing."""
    text = answer(*vm("a", [100, None, None, 120, 130, 140]), *vm("b", [10] * 6))

    assert used_mib(read(tmp_path, text))["a"] == [100, 100, 100, 120, 130, 140]


def test_what_is_no_number_and_other_series_are_passed_over(tmp_path: Path) -> None:
    """A dump of the whole database holds markers of series that ended, and everything else."""
    other = series("libvirt_domain_info_virtual_cpus", "one-1", [2])
    text = dumped(*TWO, other) + f'{{__name__="{USABLE}", domain="one-1"}} NaN {START_S}000\n'
    text += '{__name__="up", job="x\\"y"} 1 17\nnode_load1 3\n'

    assert used_mib(read(tmp_path, text, "a.prom"))["one-1"] == [100, 110, 120, 90]


def test_a_vm_whose_driver_does_not_report_is_left_out(tmp_path: Path) -> None:
    """Nothing is known of its use: it would be simulated as one that uses nothing."""
    silent = [series(MAXIMUM, "mute", [1024] * 4), series(AVAILABLE, "mute", [1000] * 4)]

    assert set(used_mib(read(tmp_path, answer(*TWO, *silent)))) == {"one-1", "one-2"}


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.json", "{}", "no answer of a Prometheus"),
        ("a.json", '{"status":"error","error":"too many points"}', "too many points"),
        ("a.json", '{"status":"success","data":{"resultType":"vector","result":[]}}', "no series over time"),
        ("a.json", "nonsense", "is not JSON"),
        ("a.json", answer({"metric": {}, "values": [[1]]}), "holds a series that is none"),
        ("a.json", answer(), "has no series libvirt_domain_memory_stats_available_bytes and no"),
        ("a.json", answer(*TWO[:3], series(USABLE, "x", [1])).replace(USABLE, "x"), f"no series {USABLE}"),
        ("a.json", answer(*vm("a", [1])), "one moment only"),
        ("a.json.gz", "", "one moment|no series"),
        ("a.prom", f'{{__name__="{USABLE}"}} 1', "line 1: it is not"),
        ("a.prom", f'{{__name__="{USABLE}"}} one 2', "line 1: it is not"),
    ],
)
def test_mistakes_are_told(tmp_path: Path, name: str, text: str, told: str) -> None:
    """Somebody's query was wrong: the answer says what to ask instead."""
    with pytest.raises(BadDataError, match=told):
        read(tmp_path, text, name)
