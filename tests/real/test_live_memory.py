"""Real guests on a full host through a short course of needs: vmpack beside rivals' rules."""

from __future__ import annotations

import pytest

from tests.benchmarks.live.course import Change, Course
from tests.benchmarks.live.host import full_host
from tests.benchmarks.live_memory import Row, run
from vmpack.units import MIB

pytestmark = pytest.mark.long

POLICIES = ("vmpack:balanced", "cloudvamp-fixed", "mom")
NOMINAL_BYTES = 512 * MIB
COURSE = Course(
    {
        "idle1": [Change(-30, 0)],
        "idle2": [Change(-30, 0)],
        "leaving": [Change(-30, 200 * MIB), Change(8, 0)],
        "coming": [Change(-30, 0), Change(14, 200 * MIB, 8 * MIB)],
    },
    warm_up_s=30,
    length_s=50,
)
"""Two idle, two swap roles; the host is half of their nominals."""


@pytest.fixture(scope="module")
def rows() -> dict[str, Row]:
    """What each policy did, by name."""
    with full_host(list(COURSE.changes), NOMINAL_BYTES, 2.0) as host:
        found = {policy: run(policy, host, COURSE)[0] for policy in POLICIES}
    print(*found.values(), sep="\n")
    return found


def test_nothing_is_killed_and_the_host_keeps_its_memory(rows: dict[str, Row]) -> None:
    """Work would die in a guest while its neighbour idles, or the host would run out."""
    found = rows["vmpack:balanced"]

    assert found["oom_kills"] == 0, rows
    assert found["host_over_s"] == 0, rows
    assert found["finished_s"] is not None, rows


def test_no_rival_that_keeps_the_host_leaves_its_guests_less_short(rows: dict[str, Row]) -> None:
    """Who changes to another tool would have guests that are short less often."""
    ours = rows["vmpack:balanced"]
    for rival in (rows["cloudvamp-fixed"], rows["mom"]):
        assert rival["host_over_s"] > 0 or ours["short_gbs"] <= rival["short_gbs"] + 0.1, rows
