"""The simulated guests: shortage, page cache, balloons and reports, each worked by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from vmpack.replay.guests import Eyes, Guests
from vmpack.replay.policy import Bytes
from vmpack.replay.world import World
from vmpack.units import GIB, MIB

WORLD = World(inflate_bytes_per_s=20 * MIB, deflate_bytes_per_s=40 * MIB, fill_bytes_per_s=10 * MIB)
NOBODY = np.zeros(1, dtype=np.bool_)


def mib(*amounts: int) -> Bytes:
    return np.array(amounts, dtype=np.int64) * MIB


def one_guest(need: int, world: World = WORLD) -> Guests:
    """One of 1 GiB."""
    return Guests(world, mib(1024), mib(need), mib(1024))


def test_the_kernel_keeps_its_part() -> None:
    """Small guests lose a sixth of their memory to it: planned without, they would be short.

    By hand: 256 MiB has 34 MiB + 256 x 64 / 4096 = 38 MiB, what a real one shows; 64 GiB has 34 MiB + 1 GiB.
    """
    assert (World().kernel_bytes(mib(256, 64 * 1024)) // MIB).tolist() == [38, 34 + 1024]


def test_shortage_is_need_above_balloon() -> None:
    """The mark by which policies are judged.

    By hand: the balloon goes from 1024 MiB towards 500, 20 MiB/s for 10 s a step: 824, 624, 500 at the ends
    of steps. The guest needs 600 MiB: short 0, 0, 100. Sent to 900 it has 900 (40 MiB/s give 400): short 0.
    """
    guests = one_guest(600)
    balloons, short = [], []
    for target in (500, 500, 500, 900):
        guests.step(mib(600), mib(target))
        balloons.append(int(guests.balloon_bytes[0]) // MIB)
        short.append(int(guests.short_bytes[0]) // MIB)
    assert balloons == [824, 624, 500, 900]
    assert short == [0, 0, 100, 0]


def test_a_short_guest_swaps_and_says_so() -> None:
    """Without these counters no policy could see need that the balloon hides.

    By hand: 100 MiB short. A step later they are swapped in at once (100 MiB/s for 10 s is more): 100 MiB in
    25600 faults of 4 KiB, again at each step while it is short, and once more when it is not.
    """
    guests = one_guest(600)
    swapped = []
    for target in (500, 500, 500, 500, 900, 900):
        guests.step(mib(600), mib(target))
        swapped.append(int(guests.swap_in_bytes[0]) // MIB)
    assert swapped == [0, 0, 0, 100, 200, 200]
    assert int(guests.major_faults[0]) >= 2 * 25600


def test_page_cache_grows_and_goes_first() -> None:
    """Cache is what makes an idle guest look full; need takes it before the guest is short.

    By hand: 30 % of 1024 MiB is 307 MiB; 10 MiB/s fill 100 MiB a step. 600 MiB need leave 424. A balloon of
    824 leaves 224 for cache, and of 624 leaves 24; nobody is short. A tenth of 307 is hot: 30.7 MiB, 6.7
    of it lost: at 100 MiB/s it takes 0.067 s of each minute to read that back.
    """
    guests = one_guest(600)
    cache = []
    for target in (1024, 1024, 1024, 1024, 824, 624):
        guests.step(mib(600), mib(target))
        cache.append(int(guests.cache_bytes[0]) // MIB)
    assert cache == [100, 200, 300, 307, 224, 24]
    assert int(guests.hot_lost_bytes[0]) // MIB == 6
    assert guests.cache_throughput_ratio == pytest.approx(60 / 60.0672, abs=1e-5)
    assert int(guests.short_bytes[0]) == 0


def test_touched_memory_stays_on_the_host_until_the_balloon_takes_it() -> None:
    """Who only looks at use would overload a host with what guests have freed.

    By hand: need 600 MiB and cache 100: 700 resident. Need falls to 200: still 700. A balloon of 524: 524.
    """
    guests = one_guest(600)
    resident = []
    for need, target in ((600, 1024), (200, 1024), (200, 1024), (200, 824), (200, 624), (200, 524)):
        guests.step(mib(need), mib(target))
        resident.append(int(guests.touched_bytes[0]) // MIB)
    assert resident == [700, 700, 700, 700, 624, 524]


def test_a_report_is_of_one_moment() -> None:
    """A balloon of now beside free memory of then makes steady rules oscillate: a straw man.

    By hand: reports 20 s old at steps of 10 s. What is seen at step 2 was made at step 0, balloon and all.
    """
    world = dataclasses.replace(WORLD, delay_s=20.0)
    guests, eyes = one_guest(600, world), Eyes(world, GIB, NOBODY)
    assert np.isnan(eyes.seen(0, 0.0, guests).sampled_s[0])
    guests.step(mib(600), mib(824))
    eyes.seen(1, 10.0, guests)
    guests.step(mib(600), mib(824))
    seen = eyes.seen(2, 20.0, guests)
    assert seen.sampled_s[0] == 0.0
    assert seen.sampled_balloon_bytes[0] == 1024 * MIB and seen.balloon_bytes[0] == 824 * MIB
    assert seen.available_bytes[0] == (1024 - 50) * MIB and seen.usable_bytes[0] == 424 * MIB
    assert eyes.seen(3, 30.0, guests).sampled_balloon_bytes[0] == 824 * MIB


def test_a_long_period_shows_one_report_until_the_next() -> None:
    """Hosts that ask guests every 30 s must be simulated with what they see."""
    world = dataclasses.replace(WORLD, report_period_s=30.0)
    guests, eyes = one_guest(600, world), Eyes(world, GIB, NOBODY)
    sampled = [float(eyes.seen(step, 10.0 * step, guests).sampled_s[0]) for step in range(7)]
    assert sampled == [0, 0, 0, 30, 30, 30, 60]


def test_a_silent_guest_tells_nothing() -> None:
    """A policy could otherwise peek at guests that have no statistics."""
    guests = Guests(WORLD, mib(1024, 1024), mib(600, 600), mib(1024, 1024))
    seen = Eyes(WORLD, GIB, np.array([False, True])).seen(0, 0.0, guests)
    assert np.isnan(seen.sampled_s).tolist() == [False, True]
    for values in (seen.sampled_balloon_bytes, seen.available_bytes, seen.usable_bytes, seen.committed_bytes):
        assert values is not None and values[0] > 0 and values[1] == 0
    assert seen.balloon_bytes[1] == GIB


def test_a_short_guest_shows_next_to_nothing_free() -> None:
    """Real guests never show how much they lack: a simulated one that did would flatter every policy."""
    guests = one_guest(600)
    for _ in range(3):
        guests.step(mib(600), mib(500))
    seen = Eyes(WORLD, GIB, NOBODY).seen(0, 0.0, guests)
    assert seen.usable_bytes[0] == seen.unused_bytes[0] == 2 * MIB
    assert seen.committed_bytes is not None and seen.committed_bytes[0] == 600 * MIB
