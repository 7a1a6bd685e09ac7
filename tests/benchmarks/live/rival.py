"""A rival's rule on real guests: fed by the agent's own observe layer, carried out by its own act layer.

A rule asks nobody for room, as the real ones do not: the executor is told of as much as it wants. The host
that a rule is shown has no QEMU overhead, which without hardware acceleration is as large as a small guest.
"""

from __future__ import annotations

import threading

import numpy as np

from vmpack.act.driver import LibvirtDriver
from vmpack.act.executor import Executor
from vmpack.clock import SystemClock
from vmpack.hypervisor import Hypervisor
from vmpack.model.action import SetMemory
from vmpack.model.host import HostSnapshot
from vmpack.model.plan import Budget, Offer, Plan, Remembered
from vmpack.observe.source import HostSource
from vmpack.replay.facts import DrawFacts
from vmpack.replay.policies import Factory
from vmpack.replay.policy import Bytes, Seen

INTERVAL_S = 5.0
_ENDLESS_BYTES = 1 << 50


class Rival:
    """One policy of replay/policy.py, every INTERVAL_S in a thread of its own."""

    def __init__(self, uri: str, factory: Factory, room_bytes: int) -> None:
        """`room_bytes` is the host's memory, without what QEMU uses for itself."""
        self._hypervisor = Hypervisor(uri)
        self._clock = SystemClock()
        self._source = HostSource(
            self._hypervisor, self._clock, pretended_bytes=room_bytes, frozen=lambda: False, claims=tuple
        )
        self._executor = Executor(LibvirtDriver(self._hypervisor), self._clock)
        self._factory = factory
        self._room_bytes = room_bytes
        self._thread = threading.Thread(target=self._run, name="rival", daemon=True)
        self.orders: list[float] = []
        """When each order to a balloon was given, on the monotonic clock."""
        self.fault: Exception | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End it, and wait until it has ended. Raises what broke it off."""
        self._clock.stop()
        self._thread.join()
        self._hypervisor.close()
        if self.fault is not None:
            raise self.fault

    def _run(self) -> None:
        try:
            self._turns()
        except Exception as error:  # noqa: BLE001 - told by stop(), in the thread that waits
            self.fault = error

    def _turns(self) -> None:
        first = self._source.observe()
        eyes = Eyes(first, self._room_bytes)
        nominal = np.array([guest.nominal_bytes for guest in first.guests], dtype=np.int64)
        policy = self._factory(DrawFacts(nominal, self._room_bytes, INTERVAL_S, nominal[None]))
        asked = np.array([guest.balloon_bytes for guest in first.guests], dtype=np.int64)
        while not self._clock.wait(INTERVAL_S):
            snapshot = self._source.observe()
            seen = eyes.seen(snapshot)
            answer = np.clip(policy.decide(seen), 0, seen.nominal_bytes)
            changed = (answer != asked) & (answer != seen.balloon_bytes)
            asked = answer
            self._order(snapshot, answer, np.flatnonzero(changed).tolist())
            policy.carried_out(eyes.seen(self._source.observe()).balloon_bytes)

    def _order(self, snapshot: HostSnapshot, answer: Bytes, places: list[int]) -> None:
        actions = []
        for place in places:
            guest = snapshot.guests[place]
            actions.append(
                SetMemory(
                    guest.uuid, guest.name, guest.balloon_bytes, int(answer[place]), guest.nominal_bytes
                )
            )
        if actions:
            self.orders += [self._clock.time_s()] * len(actions)
            self._executor.carry_out(_plan(actions))


class Eyes:
    """Turns snapshots of the same guests into what a policy is shown."""

    def __init__(self, first: HostSnapshot, room_bytes: int) -> None:
        self._room_bytes = room_bytes
        self._kernel = {
            guest.uuid: guest.balloon_bytes - guest.stats.available_bytes
            for guest in first.guests
            if guest.stats is not None
        }
        """What MemTotal is less than the balloon, of guests whose balloons stood still."""

    def seen(self, snapshot: HostSnapshot) -> Seen:
        """Each report whole and of one moment: a guest's MemTotal tells the balloon that it was made at."""
        rows = []
        touched = 0
        for guest in snapshot.guests:
            stats, kernel = guest.stats, self._kernel.get(guest.uuid)
            touched += guest.balloon_bytes if guest.ram_rss_bytes is None else guest.ram_rss_bytes
            if stats is None or kernel is None:
                rows.append([0] * 7)
                continue
            rows.append(
                [
                    stats.available_bytes + kernel,
                    stats.available_bytes,
                    stats.usable_bytes,
                    stats.unused_bytes or 0,
                    stats.caches_bytes or 0,
                    stats.swap_in_bytes or 0,
                    stats.major_faults or 0,
                ]
            )
        guests = snapshot.guests
        sampled = [
            guest.stats.sampled_s if guest.stats is not None and guest.uuid in self._kernel else np.nan
            for guest in guests
        ]
        return Seen(
            snapshot.time_s,
            np.array([guest.nominal_bytes for guest in guests], dtype=np.int64),
            np.array([guest.balloon_bytes for guest in guests], dtype=np.int64),
            np.array(sampled, dtype=np.float64),
            *np.array(rows, dtype=np.int64).T,
            self._room_bytes,
            max(0, self._room_bytes - touched),
        )


def _plan(actions: list[SetMemory]) -> Plan:
    """A plan of nothing but these orders, shrinks first, with room for all of them."""
    return Plan(
        actions=tuple(sorted(actions, key=lambda action: action.grows)),
        room_bytes=_ENDLESS_BYTES,
        guests=(),
        budget=Budget(0, 0, 0, 0, 0),
        offer=Offer(0, 0, 0, 0, None, ()),
        reasons=(),
        migration=None,
        remembered=Remembered(),
    )
