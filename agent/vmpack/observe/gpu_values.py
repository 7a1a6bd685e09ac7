"""Figures of NVIDIA's driver as the model has them. Called by nvml.py; pure.

Promises None for what cannot be: a driver's slip is no measurement.
"""

from __future__ import annotations

POWER_LARGEST_W = 10_000.0
TEMPERATURES_C = range(-50, 201)
"""A device that tells more than this does not tell the truth."""


def text_of(found: bytes | str | None) -> str | None:
    """A text as it came; None for an empty one."""
    return (found.decode(errors="replace") if isinstance(found, bytes) else found) or None


def ratio_of(percent: int) -> float | None:
    """A whole percent as a ratio."""
    return percent / 100 if 0 <= percent <= 100 else None


def watts_of(milliwatts: int | None) -> float | None:
    """Power in W."""
    if milliwatts is None or not 0 <= milliwatts <= 1000 * POWER_LARGEST_W:
        return None
    return milliwatts / 1000


def celsius_of(degrees: int | None) -> int | None:
    """A temperature that a device can have."""
    return degrees if degrees in TEMPERATURES_C else None


def part_of(amount: int | None, whole: int | None) -> int | None:
    """An amount that is at most the whole."""
    return None if amount is None or (whole is not None and amount > whole) else amount
