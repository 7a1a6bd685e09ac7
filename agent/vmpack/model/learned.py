"""What was learned of one VM, as it goes with the VM: in libvirt's metadata, through migrations and restarts.

observe/ reads it, act/ writes it, decide/ makes it and takes it up. Only the host's administrators and its
cloud can write there, no guest; each value is checked all the same, and a text that is wrong in one is not
used at all. What it can do is little: room is only ever added to what a VM needs by its own reports, never
above its nominal. But a long quiet history that is not true has later rises count for less than none would.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, NamedTuple

from vmpack.model.codec import ADDED

LEARNED_NAMESPACE = "urn:vmpack:learned:1"
"""Not the policy's: libvirt keeps one element per namespace."""
LEARNED_PREFIX = "vmpack-learned"
LEARNED_ELEMENT = "learned"
MOST_SIZES = 80
_VERSION = "1"
_SMALLEST_WEIGHT = 0.001
_LARGEST_WEIGHT = 2e6
_LARGEST_BYTES = 2**60
_MOST_TIMES = 1000
_LONGEST_S = 10 * 365 * 86400.0
_LONGEST_VALUE = 1600


class Lapse(NamedTuple):
    """Something that happened to a VM for want of memory, and what is kept for it."""

    times: int
    """In a row."""
    left_s: float
    """How long more it is kept, from when this was written; negative: so long ago it ended."""
    kept_bytes: int = 0
    """The balloon that is kept; 0 where that is the nominal."""


class Learned(NamedTuple):
    """See above."""

    written_s: float
    """When, as HostSnapshot.time_s; in the metadata as Unix time."""
    nominal_bytes: int
    """It was learned of a VM of this size, and holds for no other."""
    known_s: float
    """For how long rises had been counted."""
    counts: tuple[float, ...]
    """As in Rises, with the weights of when this was written; empty: it has never risen."""
    pressed: Lapse | None = None
    """It swapped in or faulted hard."""
    killed: Lapse | None = None
    """Its guest killed something."""
    interval_s: Annotated[float | None, ADDED] = None
    """Of the rises; see Rises."""


def to_attributes(learned: Learned) -> dict[str, str]:
    """The attributes of the metadata's element; `written_s` is to be Unix time.

    What is more than a reader takes is written as the most that it takes: else it would refuse all.
    """
    rises = " ".join(
        f"{size}:{min(weight, _LARGEST_WEIGHT):.3g}" for size, weight in _weighty(learned.counts)
    )
    attributes = {
        "v": _VERSION,
        "at": f"{learned.written_s:.0f}",
        "nominal": str(learned.nominal_bytes),
        "known": f"{min(learned.known_s, _LONGEST_S):.0f}",
        "rises": rises,
        "interval": "" if learned.interval_s is None else f"{learned.interval_s!r}",
        "pressed": _lapse_text(learned.pressed),
        "killed": _lapse_text(learned.killed),
    }
    return {name: text for name, text in attributes.items() if text}


def _weighty(counts: tuple[float, ...]) -> list[tuple[int, float]]:
    return [(size, weight) for size, weight in enumerate(counts) if weight >= _SMALLEST_WEIGHT]


def _lapse_text(lapse: Lapse | None) -> str:
    return f"{min(lapse.times, _MOST_TIMES)} {lapse.left_s:.0f} {lapse.kept_bytes}" if lapse else ""


def from_attributes(attributes: Mapping[str, str]) -> Learned:
    """What these attributes say; `written_s` is Unix time. Raises ValueError with a reason in words."""
    version = attributes.get("v", "")
    if version != _VERSION:
        raise ValueError(f"its form is {version!r:.20}, not {_VERSION!r}")
    values = {name: _short(name, text) for name, text in attributes.items()}
    try:
        return Learned(
            _number(values["at"], 0, 1e11),
            _whole(values["nominal"], _LARGEST_BYTES, 1),
            _number(values["known"], 0, _LONGEST_S),
            _counts(values.get("rises", "")),
            _lapse(values.get("pressed")),
            _lapse(values.get("killed")),
            _interval_s(values.get("interval")),
        )
    except KeyError as error:
        raise ValueError(f"it has no {error.args[0]!r}") from None


def _short(name: str, text: str) -> str:
    if len(text) > _LONGEST_VALUE or not text.isascii():
        raise ValueError(f"{name!r:.20} is no such value")
    return text


def _number(text: str, least: float, most: float) -> float:
    value = float(text) if not set(text) - set("0123456789.e+-") else math.nan
    if not least <= value <= most:
        raise ValueError(f"{text!r:.20} is not a number from {least:g} to {most:g}")
    return value


def _whole(text: str, most: int, least: int = 0) -> int:
    if not (text.isdecimal() and len(text) <= 19 and least <= int(text) <= most):
        raise ValueError(f"{text!r:.20} is not a whole number from {least} to {most}")
    return int(text)


def _interval_s(text: str | None) -> float | None:
    return None if text is None else _number(text, 0.1, 3600)


def _counts(text: str) -> tuple[float, ...]:
    counts: list[float] = []
    for entry in text.split():
        size_text, _, weight_text = entry.partition(":")
        size = _whole(size_text, MOST_SIZES - 1)
        if size < len(counts):
            raise ValueError(f"{entry!r:.20} is out of order")
        weight = _number(weight_text, _SMALLEST_WEIGHT, _LARGEST_WEIGHT)
        counts += [*[0.0] * (size - len(counts)), weight]
    return tuple(counts)


def _lapse(text: str | None) -> Lapse | None:
    if text is None:
        return None
    words = text.split()
    if len(words) != 3:
        raise ValueError(f"{text!r:.20} is not three numbers")
    return Lapse(
        _whole(words[0], _MOST_TIMES, 1),
        _number(words[1], -_LONGEST_S, _LONGEST_S),
        _whole(words[2], _LARGEST_BYTES),
    )
