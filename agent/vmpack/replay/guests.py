"""The simulated guests of one host, all at once: balloon, page cache, swap, and what they report.

Stepped by the simulation. Every array has one entry per VM; a step makes new ones and changes none.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vmpack.replay.policy import Bytes, Seconds, Seen
from vmpack.replay.world import FILE_FAULT_BYTES, SQUEEZED_USABLE_BYTES, SWAP_FAULT_BYTES, World


class Guests:
    """Where the guests are now. They begin with no page cache.

    A guest is short by what its need (use and its kernel's part) is above its balloon; it swaps that. Page
    cache takes what is left, the working set of it last to go. What a guest has touched stays resident on the
    host until the balloon takes it.
    """

    def __init__(self, world: World, nominal_bytes: Bytes, need_bytes: Bytes, balloon_bytes: Bytes) -> None:
        zeros = np.zeros(len(nominal_bytes), dtype=np.int64)
        self.nominal_bytes = nominal_bytes
        self.kernel_bytes = world.kernel_bytes(nominal_bytes)
        self.balloon_bytes = balloon_bytes
        self.need_bytes = need_bytes
        self.short_bytes = zeros
        self.cache_bytes = zeros
        self.touched_bytes = np.minimum(need_bytes, balloon_bytes)
        self.swap_in_bytes = zeros
        self.swap_out_bytes = zeros
        self.major_faults = zeros
        self._swapped_bytes = zeros
        self._any_swapped = False
        cache = (world.cache_ratio * nominal_bytes).astype(np.int64)
        self._cache_bytes = cache
        self._hot_bytes = (world.hot_ratio * cache).astype(np.int64)
        self._zeros = zeros
        self._inflate = np.int64(world.inflate_bytes_per_s * world.step_s)
        self._deflate = np.int64(world.deflate_bytes_per_s * world.step_s)
        self._fill = np.int64(world.fill_bytes_per_s * world.step_s)
        self._swap_in = np.int64(world.swap_in_bytes_per_s * world.step_s)
        self._refault_ratio = world.step_s / world.hot_cycle_s / FILE_FAULT_BYTES
        self._unballooned_cache_bytes = zeros
        self.hot_bytes = zeros
        self.hot_lost_bytes = zeros
        self._read_back_ratio = 1 / (world.hot_read_bytes_per_s * world.hot_cycle_s)
        self.cache_throughput_ratio = 1.0
        """Of a program that goes through its page cache's working set, against one that has all of it: each
        time takes as much longer as reading back what is lost. Mean of all guests that have such a set."""

    def step(self, need_bytes: Bytes, target_bytes: Bytes) -> None:
        """Let one step pass: balloons go towards their targets, need becomes `need_bytes`."""
        way = target_bytes - self.balloon_bytes
        balloon = self.balloon_bytes + np.minimum(np.maximum(way, -self._inflate), self._deflate)
        room = balloon - need_bytes
        free = np.maximum(room, self._zeros)
        cache = np.minimum(np.minimum(self.cache_bytes + self._fill, self._cache_bytes), free)
        self.touched_bytes = np.minimum(np.maximum(self.touched_bytes, need_bytes + cache), balloon)
        self.short_bytes = free - room
        self.balloon_bytes, self.need_bytes, self.cache_bytes = balloon, need_bytes, cache
        self._count_faults()

    def _count_faults(self) -> None:
        if self._any_swapped or self.short_bytes.any():
            came = np.minimum(self._swapped_bytes, self._swap_in)
            left = self._swapped_bytes - came
            self._swapped_bytes = np.maximum(left, self.short_bytes)
            self.swap_out_bytes = self.swap_out_bytes + (self._swapped_bytes - left)
            self._any_swapped = bool(self._swapped_bytes.any())
            self.swap_in_bytes = self.swap_in_bytes + came
            self.major_faults = self.major_faults + came // SWAP_FAULT_BYTES
        # A cache that still grows lacks nothing: what counts is what the guest would have without a balloon.
        cache = np.minimum(self._unballooned_cache_bytes + self._fill, self._cache_bytes)
        cache = np.minimum(cache, self.nominal_bytes - self.need_bytes)
        self._unballooned_cache_bytes = cache
        self.hot_bytes = np.minimum(cache, self._hot_bytes)
        self.hot_lost_bytes = np.maximum(self.hot_bytes - self.cache_bytes, self._zeros)
        self.cache_throughput_ratio = 1.0
        if self.hot_lost_bytes.any():
            slower = 1.0 + self.hot_lost_bytes * self._read_back_ratio
            self.cache_throughput_ratio = float((1.0 / slower)[self.hot_bytes > 0].mean())
            refaults = (self.hot_lost_bytes * self._refault_ratio).astype(np.int64)
            self.major_faults = self.major_faults + refaults


class _Report(NamedTuple):
    time_s: float
    balloon_bytes: Bytes
    available_bytes: Bytes
    usable_bytes: Bytes
    unused_bytes: Bytes
    caches_bytes: Bytes
    swap_in_bytes: Bytes
    major_faults: Bytes
    committed_bytes: Bytes
    swap_out_bytes: Bytes


class Eyes:
    """What is seen of the guests: reports, each whole and of one moment, as old as the world has them."""

    def __init__(self, world: World, capacity_bytes: int, silent: NDArray[np.bool_]) -> None:
        self._capacity_bytes = capacity_bytes
        self._delay_steps = world.delay_steps()
        self._period_steps = world.period_steps()
        self._waiting: deque[tuple[int, _Report]] = deque()
        self._shown: _Report | None = None
        self._sampled_s: Seconds = np.full(len(silent), np.nan)
        self._silent = silent
        self._talks = None if not silent.any() else (~silent).astype(np.int64)
        self._nothing = np.zeros(len(silent), dtype=np.int64)

    def seen(self, step: int, time_s: float, guests: Guests) -> Seen:
        """Look at the guests at the beginning of step number `step`."""
        if step % self._period_steps == 0:
            self._waiting.append((step + self._delay_steps, self._report(time_s, guests)))
        while self._waiting and self._waiting[0][0] <= step:
            self._shown = self._waiting.popleft()[1]
            self._sampled_s = np.full(len(self._silent), self._shown.time_s)
            if self._talks is not None:
                self._sampled_s[self._silent] = np.nan
        none = self._nothing
        shown = self._shown or _Report(time_s, *[none] * 9)
        return Seen(
            time_s,
            guests.nominal_bytes,
            guests.balloon_bytes,
            self._sampled_s,
            *shown[1:-2],
            self._capacity_bytes,
            max(0, self._capacity_bytes - int(guests.touched_bytes.sum())),
            shown.committed_bytes,
            shown.swap_out_bytes,
        )

    def _report(self, time_s: float, guests: Guests) -> _Report:
        room = guests.balloon_bytes - guests.need_bytes
        least = SQUEEZED_USABLE_BYTES
        values = (
            guests.balloon_bytes,
            np.maximum(guests.balloon_bytes - guests.kernel_bytes, least),
            np.maximum(room, least),
            np.maximum(room - guests.cache_bytes, least),
            guests.cache_bytes,
            guests.swap_in_bytes,
            guests.major_faults,
            guests.need_bytes,
            guests.swap_out_bytes,
        )
        if self._talks is not None:
            values = tuple(value * self._talks for value in values)  # type: ignore[assignment]
        return _Report(time_s, *values)
