"""Amounts as command line arguments: argparse types whose errors say what to write instead.

Called by the commands that take memory, durations or ratios.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TypeVar

from vmpack.units import parse_bytes, parse_rate, parse_seconds

T = TypeVar("T")


def memory_bytes(text: str) -> int:
    """Read "512MiB" as bytes."""
    return _read(parse_bytes, text)


def duration_s(text: str) -> float:
    """Read "10min" as seconds."""
    return _read(parse_seconds, text)


def rate_bytes_per_s(text: str) -> int:
    """Read "10MiB/s" as bytes per second."""
    return _read(parse_rate, text)


def ratio(text: str) -> float:
    """Read "0.3" or "30%" as a ratio."""
    number, percent, rest = text.partition("%")
    if rest.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is not a ratio; write for example 0.3 or 30%")
    try:
        return float(number) / (100 if percent else 1)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a ratio; write for example 0.3 or 30%") from None


def _read(parse: Callable[[str], T], text: str) -> T:
    try:
        return parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
