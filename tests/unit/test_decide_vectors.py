"""Use of memory, pinned by what real guests said of themselves."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from tests.builders import NOW_S, SETTINGS, guest, host

from vmpack.decide.memory import plan
from vmpack.model.guest import MemoryStats
from vmpack.model.plan import Remembered

VECTORS = sorted((Path(__file__).parents[1] / "vectors" / "used").glob("*.json"))


def seen(vector, balloon_bytes, available_bytes, usable_bytes, now_s):
    entry = guest(autodeflate=vector["autodeflate"], now_s=now_s)
    return host(
        dataclasses.replace(
            entry,
            nominal_bytes=vector["nominal_bytes"],
            balloon_bytes=balloon_bytes,
            stats=MemoryStats(now_s - 0.5, available_bytes, usable_bytes),
        ),
        now_s=now_s,
    )


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_used_is_what_the_guest_itself_says(path: Path):
    """Get this wrong and every shrink looks like need, or need like spare memory."""
    vector = json.loads(path.read_text())
    snapshot = seen(vector, vector["balloon_bytes"], vector["available_bytes"], vector["usable_bytes"], NOW_S)

    used = plan(snapshot, Remembered(), SETTINGS).guests[0].used_bytes

    assert abs(used - vector["expected_used_bytes"]) <= vector["tolerance_bytes"]


def test_there_are_vectors_of_both_modes():
    """A missing folder would pass as no test at all."""
    modes = {json.loads(path.read_text())["autodeflate"] for path in VECTORS}

    assert modes == {True, False}
