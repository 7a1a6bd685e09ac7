"""Reads what a Prometheus knows of VMs' memory from its libvirt exporters: rows for replay/trace_file.

Two forms, each also as .gz:

    .json        answers of /api/v1/query_range, one after the other if there are several
    .prom .txt   text: `promtool tsdb dump` or `dump-openmetrics`

The names of the series are those of Tinkoff's exporter, of inovex's, and of their kin. What a guest uses is
available - usable, as its balloon driver reported them; the largest size that a VM had is its nominal. A VM
that migrates is one VM: series of one domain on several hosts are joined, unless they are there at the same
time.
"""

from __future__ import annotations

import gzip
import itertools
import json
import re
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vmpack.errors import BadDataError

AVAILABLE = "libvirt_domain_memory_stats_available_bytes"
USABLE = "libvirt_domain_memory_stats_usable_bytes"
MAXIMUM = "libvirt_domain_info_maximum_memory_bytes"
SERIES = (AVAILABLE, USABLE, MAXIMUM)
ENDINGS = tuple(kind + packed for kind in (".json", ".prom", ".txt") for packed in ("", ".gz"))
TOGETHER_RATIO = 0.1
"""Series of one name on two hosts that are there together for more of the time are two VMs."""
_MILLISECONDS = 1e11
"""A time beyond this is no time in seconds."""
_HINT = "see `vmpack simulate memory --help` for how to fetch them"

_LABEL = re.compile(r'([A-Za-z_]\w*)\s*=\s*"((?:[^"\\]|\\.)*)"')

Floats = NDArray[np.float64]
Key = tuple[str, str]
"""Domain, and the host's exporter."""
Columns = list[NDArray[Any]]


class Samples(NamedTuple):
    """One series, in order of time."""

    when_s: Floats
    value: Floats


def prometheus_columns(path: Path) -> Columns:
    """Time, VM, nominal and use, row by row; times are whole slots apart.

    Raises BadDataError with what is wrong, and OSError.
    """
    pieces: dict[str, dict[Key, list[Samples]]] = {name: defaultdict(list) for name in SERIES}
    read = _json_series if path.name.lower().endswith((".json", ".json.gz")) else _text_series
    try:
        for labels, samples in read(path):
            found = pieces.get(labels.get("__name__", ""))
            if found is not None:
                found[_key(labels)].append(samples)
    except (UnicodeDecodeError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise BadDataError(f"{path} is broken: {error}", "fetch it again") from error
    missing = [name for name in SERIES if not pieces[name]]
    if missing:
        raise BadDataError(f"{path} has no series {' and no '.join(missing)}", _HINT)
    available, usable, maximum = (
        {key: _joined(parts) for key, parts in pieces[name].items()} for name in SERIES
    )
    used = {
        key: _used(size, usable[key]) for key, size in available.items() if key in usable and key in maximum
    }
    return _rows(path, {key: samples for key, samples in used.items() if len(samples.when_s)}, maximum)


def _key(labels: Mapping[str, str]) -> Key:
    return labels.get("uuid") or labels.get("domain", ""), labels.get("instance", "")


def _joined(parts: list[Samples]) -> Samples:
    """One series from its pieces, without what is no number (Prometheus marks a series' end so)."""
    whens, values = (np.concatenate(column) for column in zip(*parts, strict=True))
    there = ~np.isnan(values)
    whens, first = np.unique(whens[there], return_index=True)
    return Samples(whens, values[there][first])


def _used(available: Samples, usable: Samples) -> Samples:
    """Where both are known."""
    whens, one, other = np.intersect1d(
        available.when_s, usable.when_s, assume_unique=True, return_indices=True
    )
    return Samples(whens, np.maximum(0.0, available.value[one] - usable.value[other]))


def _rows(path: Path, used: Mapping[Key, Samples], maximum: Mapping[Key, Samples]) -> Columns:
    """The rows of all VMs of which all is known; each slot has the largest value of its time."""
    if not used:
        hint = "the balloon drivers of the guests must report (a statistics period in each domain)"
        raise BadDataError(f"{path}: no VM has {AVAILABLE}, {USABLE} and {MAXIMUM}", hint)
    slot_s = _slot_s(path, used)
    whens, vms, sizes, uses = [], [], [], []
    for name, keys in _vms(used, slot_s).items():
        slot = np.concatenate([used[key].when_s // slot_s for key in keys])
        size = np.concatenate([used[key].value for key in keys])
        slots, place = np.unique(slot, return_inverse=True)
        peaks = np.zeros(len(slots))
        np.maximum.at(peaks, place, size)
        whens.append(slots * slot_s)
        uses.append(peaks)
        vms.append(np.full(len(slots), name))
        sizes.append(np.full(len(slots), max(maximum[key].value.max(initial=0.0) for key in keys)))
    return [np.concatenate(column) for column in (whens, vms, sizes, uses)]


def _slot_s(path: Path, used: Mapping[Key, Samples]) -> int:
    """The most usual distance of samples."""
    distances = np.round(np.concatenate([np.diff(samples.when_s) for samples in used.values()]))
    distances = distances[distances >= 1]
    if not len(distances):
        raise BadDataError(f"{path} knows one moment only", "a simulation needs two days at least")
    values, counts = np.unique(distances, return_counts=True)
    return int(values[counts.argmax()])


def _vms(used: Mapping[Key, Samples], slot_s: int) -> dict[str, list[Key]]:
    """VMs by name, each with its series."""
    by_domain: dict[str, list[Key]] = defaultdict(list)
    for key in sorted(used):
        by_domain[key[0]].append(key)
    vms: dict[str, list[Key]] = {}
    for domain, keys in by_domain.items():
        if _are_together([np.unique(used[key].when_s // slot_s) for key in keys]):
            vms |= {f"{domain}@{key[1]}": [key] for key in keys}
        else:
            vms[domain] = keys
    return vms


def _are_together(slots: list[Floats]) -> bool:
    return any(
        len(np.intersect1d(one, other, assume_unique=True)) > TOGETHER_RATIO * min(len(one), len(other))
        for one, other in itertools.combinations(slots, 2)
    )


def _text_of(path: Path) -> Any:
    opener: Callable[..., Any] = gzip.open if path.name.lower().endswith(".gz") else open
    return opener(path, "rt", encoding="utf-8")


def _json_series(path: Path) -> Iterator[tuple[Mapping[str, str], Samples]]:
    with _text_of(path) as file:
        text = file.read()
    decoder, at = json.JSONDecoder(), _begin(text, 0)
    while at < len(text):
        try:
            answer, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            raise BadDataError(f"{path} is not JSON: {error}", _HINT) from error
        yield from _answered(path, answer)
        at = _begin(text, at)


def _begin(text: str, at: int) -> int:
    """Where the next word begins."""
    while at < len(text) and text[at].isspace():
        at += 1
    return at


def _answered(path: Path, answer: Any) -> Iterator[tuple[Mapping[str, str], Samples]]:
    """The series of one answer."""
    if not isinstance(answer, dict) or answer.get("status") != "success":
        told = f": {str(answer.get('error', ''))[:200]}" if isinstance(answer, dict) else ""
        raise BadDataError(f"{path} is no answer of a Prometheus that succeeded{told}", _HINT)
    data = answer.get("data")
    if not isinstance(data, dict) or data.get("resultType") != "matrix":
        raise BadDataError(f"{path} holds no series over time (a matrix)", "ask /api/v1/query_range")
    try:
        for entry in data["result"]:
            whens, values = zip(*entry["values"], strict=True)
            yield entry["metric"], Samples(np.array(whens, float), np.array(values, float))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadDataError(f"{path} holds a series that is none: {error!r}", _HINT) from error


def _text_series(path: Path) -> Iterator[tuple[Mapping[str, str], Samples]]:
    found: dict[str, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    with _text_of(path) as file:
        for number, line in enumerate(file, 1):
            if line.startswith("#") or "libvirt_domain_" not in line:
                continue
            head, _, rest = line.rpartition("}")
            words = rest.split()
            try:
                value, when = float(words[0]), float(words[1])
            except (ValueError, IndexError) as error:
                raise BadDataError(f"{path}, line {number}: it is not `series value time`", _HINT) from error
            whens, values = found[head]
            whens.append(when / 1000 if when > _MILLISECONDS else when)
            values.append(value)
    for head, (whens, values) in found.items():
        yield _labels(head), Samples(np.array(whens), np.array(values))


def _labels(head: str) -> Mapping[str, str]:
    """The labels in `name{label="text",...`, without its end."""
    name, _, inner = head.partition("{")
    labels = {label: text.replace('\\"', '"').replace("\\\\", "\\") for label, text in _LABEL.findall(inner)}
    return {"__name__": name.strip()} | labels
