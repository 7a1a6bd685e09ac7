"""Hours of churn and calm on real guests; VMPACK_SOAK_HOURS sets how many (default: 2)."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.soak.__main__ import soak

SEED = 1
TIMES_NORMAL_CHURN = 10.0


@pytest.mark.long
@pytest.mark.usefixtures("lab")
def test_hours_of_churn_lose_nothing_and_leave_nothing_behind(tmp_path: Path) -> None:
    """An agent that leaks, dithers or kills after an hour passes every other test, and fails every host."""
    hours = float(os.environ.get("VMPACK_SOAK_HOURS", "2"))

    found = soak(hours, TIMES_NORMAL_CHURN, SEED, tmp_path)

    assert found["faults"] == [], json.dumps(found, indent=2)
    assert not found["broken_off"]
    assert all(found["events"]["done"][kind] for kind in found["events"]["planned"])
    assert found["budget"]["highest_packed_bytes"] > 0
