"""What this machine can do right now: printed beside every figure, to compare machines."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

LOOPS = 1_000_000


def best_s(work: Callable[[], object], repeats: int) -> float:
    """The shortest of so many runs: what the work costs when nothing else disturbs it."""
    best = float("inf")
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - began)
    return best


def calibration_ns_per_loop() -> float:
    """Nanoseconds of one turn of an empty Python loop."""

    def loop() -> None:
        for _ in range(LOOPS):
            pass

    return round(best_s(loop, 5) / LOOPS * 1e9, 1)


def report(description: str, measure: Callable[[], dict[str, Any]]) -> None:
    """Run one benchmark as a program: `--json` prints one object, else a line a figure."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    result = {**measure(), "calibration_ns_per_loop": calibration_ns_per_loop()}
    if args.json:
        print(json.dumps(result, indent=2))
        return
    for name, value in result.items():
        print(f"{name:28} {value}")
