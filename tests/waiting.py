"""Waiting for something to become true, with a deadline. Called by tests that watch real processes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE_S = 120.0


def eventually(what: str, condition: Callable[[], T], deadline_s: float = PATIENCE_S) -> T:
    """Ask again and again until the answer is true, and return it; after the deadline the test fails."""
    end_s = time.monotonic() + deadline_s
    while not (answer := condition()):
        assert time.monotonic() < end_s, f"not within {deadline_s:g} s: {what}"
        time.sleep(0.02)
    return answer
