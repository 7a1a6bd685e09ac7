"""Units as people write them ("60MiB", "10MiB/s", "30s"), to and from plain numbers.

Inside vmpack memory is bytes and time is seconds; only the edges parse and format.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

_BYTE_UNITS = {
    "": 1, "B": 1,
    "K": KIB, "KIB": KIB, "M": MIB, "MIB": MIB, "G": GIB, "GIB": GIB, "T": 1024 * GIB, "TIB": 1024 * GIB,
    "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
}  # fmt: skip
_SECOND_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_QUANTITY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*\Z")


def _split(text: str, what: str, example: str) -> tuple[float, str]:
    match = _QUANTITY.match(text)
    if match is None:
        raise ValueError(f"{text!r} is not {what}; write for example {example}")
    return float(match[1]), match[2]


def parse_bytes(text: str) -> int:
    """Read an amount of memory ("128MiB", "2G", "1073741824") as bytes.

    K, M, G, T and KiB.. are powers of 1024; kB, MB, GB, TB are powers of 1000.
    Raises ValueError with an example in its text.
    """
    number, unit = _split(text, "an amount of memory", "512MiB")
    factor = _BYTE_UNITS.get(unit.upper())
    if factor is None:
        raise ValueError(f"{text!r}: unknown unit {unit!r}; use KiB, MiB, GiB or TiB")
    return int(number * factor)


def parse_rate(text: str) -> int:
    """Read a rate ("10MiB/s") as bytes per second. Raises ValueError with an example in its text."""
    amount, slash, per = text.partition("/")
    if slash and per.strip() not in ("s", "sec", "second"):
        raise ValueError(f"{text!r} is not a rate; write for example 10MiB/s")
    return parse_bytes(amount)


def parse_seconds(text: str) -> float:
    """Read a duration ("5s", "10min", "1.5h", plain seconds) as seconds. Raises ValueError."""
    number, unit = _split(text, "a duration", "30s or 10min")
    factor = _SECOND_UNITS.get(unit)
    if factor is None:
        raise ValueError(f"{text!r}: unknown unit {unit!r}; use ms, s, min, h or d")
    return number * factor


def format_bytes(amount_bytes: float) -> str:
    """Show bytes with a binary unit and at most one decimal: 1.5 GiB, 320 MiB, 0 B."""
    sign = "-" if amount_bytes < 0 else ""
    value = abs(float(amount_bytes))
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            digits = 0 if unit == "B" or value >= 100 or value == int(value) else 1
            return f"{sign}{value:.{digits}f} {unit}"
        value /= 1024
    raise AssertionError("unreachable")


def format_ratio(ratio: float) -> str:
    """Show a ratio of 0..1 as whole percent: 0.42 -> 42 %."""
    return f"{round(ratio * 100)} %"


def format_seconds(duration_s: float) -> str:
    """Show a duration with the unit that fits: 250 ms, 5.0 s, 12 min, 3.5 h, 4.0 d."""
    if duration_s < 1:
        return f"{duration_s * 1000:.0f} ms"
    if duration_s < 120:
        return f"{duration_s:.1f} s"
    if duration_s < 7200:
        return f"{duration_s / 60:.0f} min"
    if duration_s < 172800:
        return f"{duration_s / 3600:.1f} h"
    return f"{duration_s / 86400:.1f} d"


def cpu_ranges(cpus: Sequence[int]) -> str:
    """Ascending numbers as the kernel writes them: "0-3,8"."""
    parts: list[list[int]] = []
    for cpu in cpus:
        if parts and cpu == parts[-1][-1] + 1:
            parts[-1][1:] = [cpu]
        else:
            parts.append([cpu])
    return ",".join("-".join(str(end) for end in part) for part in parts)
