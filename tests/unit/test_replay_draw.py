"""Draws: the same for the same seed, and need that moves as the trace says."""

from __future__ import annotations

import numpy as np
import pytest

from vmpack.errors import BadDataError
from vmpack.replay.draw import draw
from vmpack.replay.trace import Trace
from vmpack.replay.workload import generate
from vmpack.units import GIB, MIB


def trace(slots: int = 2 * 288) -> Trace:
    """Two VMs of 1 GiB; the first uses 100 MiB in slot 0, 160 MiB in slot 1, then 700 MiB."""
    used = np.full((2, slots), 700 * MIB, dtype=np.int64)
    used[0, :2] = 100 * MIB, 160 * MIB
    return Trace(("a", "b"), np.array([GIB, GIB]), used, 300)


def test_a_rise_takes_the_ramp() -> None:
    """Rises that came at once, or not at all, would make every policy's shortage a fiction.

    By hand: slot 1 begins at 300 s; with a ramp of 60 s from 100 to 160 MiB it is 110 MiB at 310 s, 130 at
    330 s and 160 from 360 s on.
    """
    demand = draw(trace(), 2, 1, 0).demand_bytes(10, 60, 1, np.array([GIB, GIB])) // MIB
    assert demand[[0, 29, 30, 31, 33, 36, 59], 0].tolist() == [100, 100, 100, 110, 130, 160, 160]
    assert len(demand) == 2 * 8640 + 1


def test_a_ramp_is_no_longer_than_a_slot() -> None:
    """A trace of 30 s slots would jump at the end of each: rises that no guest made."""
    used = np.zeros((1, 2 * 2880), dtype=np.int64)
    used[0, 1:] = 60 * MIB
    short = Trace(("a",), np.array([GIB]), used, 30)
    demand = draw(short, 1, 1, 0).demand_bytes(10, 60, 1, np.array([GIB])) // MIB
    assert demand[2:8, 0].tolist() == [0, 0, 20, 40, 60, 60]


def test_scaled_demand_stops_at_what_the_guest_can_hold() -> None:
    """A guest cannot need more than its MemTotal: else an unballooned VM would be short."""
    demand = draw(trace(), 2, 1, 0).demand_bytes(10, 60, 2, np.array([GIB, 900 * MIB]))
    assert demand[0].tolist() == [200 * MIB, 900 * MIB]


def test_same_seed_same_draw() -> None:
    """Rows of two runs could not be compared."""
    many = generate("mixed", 40, 4, 7)
    one, again, other = draw(many, 8, 3, 5), draw(many, 8, 3, 5), draw(many, 8, 4, 5)
    assert one.names == again.names and one.day == again.day
    assert (one.used_bytes == again.used_bytes).all() and (one.order == again.order).all()
    assert (one.names, one.day) != (other.names, other.day)


def test_every_scored_day_has_a_day_before_it() -> None:
    """Without a day to learn from, learning policies would be scored while they know nothing."""
    many = generate("diurnal", 10, 4, 1)
    drawn = [draw(many, 4, 1, number) for number in range(40)]
    assert {entry.day for entry in drawn} == {1, 2, 3}
    assert all(entry.used_bytes.shape == (4, 2 * 288) for entry in drawn)
    assert all(len(set(entry.names)) == 4 for entry in drawn)


def test_a_trace_of_one_day_is_refused() -> None:
    """People must read why their day of history is too little, not a traceback."""
    with pytest.raises(BadDataError, match="24 hours long"):
        draw(trace(slots=288), 2, 1, 0)
