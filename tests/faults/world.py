"""A host in memory whose every call is a point: the agent's own loop, executor, state and publisher over it.

The guests are those of tests.faults.scene; they outlive each agent, and an agent's files are real ones.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tests import builders
from tests.faults.injector import BEGIN, Injector
from tests.host_doubles import DECISION, JumpingClock, about
from tests.intervals import uuid_of
from vmpack.act.driver import Live
from vmpack.act.executor import Executor
from vmpack.decide.release import plan_release
from vmpack.errors import GuestBusyError, HypervisorLostError, VmpackError
from vmpack.host.intent import FirstRemembered
from vmpack.host.loop import Loop
from vmpack.host.notify import Notifier
from vmpack.host.release import Release
from vmpack.host.state import State
from vmpack.model.guest import GuestSnapshot
from vmpack.model.host import HostSnapshot
from vmpack.publish.publisher import Publisher
from vmpack.units import MIB

T = TypeVar("T")

SPARE_MIB = 6
"""What is free at first: less than the grow costs."""


class World:
    """Guests whose balloons move at once; source and driver of one agent after the other."""

    def __init__(self, clock: JumpingClock) -> None:
        self.clock = clock
        self.injector: Injector | None = None
        """Of the agent that runs now."""
        guests = (
            builders.guest("hungry", uuid=uuid_of(1), balloon=130, used=80),
            builders.guest("idle", uuid=uuid_of(2), used=30),
            builders.guest("fresh", uuid=uuid_of(3), nominal=128, balloon=128, stats_period_s=0),
        )
        self.guests = {guest.uuid: guest for guest in guests}
        self.budget_mib: int | None = SPARE_MIB + sum(guest.balloon_bytes for guest in guests) // MIB
        self.most_bytes = 0

    def observe(self) -> HostSnapshot:
        """See vmpack.host.loop.Source."""
        return self._at(BEGIN, self._snapshot, lambda: HypervisorLostError("injected", "as a test wants"))

    def look(self, uuid: str) -> Live:
        """See vmpack.act.driver.Driver."""
        return self._call("look", uuid, lambda: Live(self._size(uuid), self._nominal(uuid), True, None))

    def balloon_bytes(self, uuid: str) -> int:
        """See vmpack.act.driver.Driver."""
        return self._call("memoryStats", uuid, lambda: self._size(uuid))

    def set_memory(self, uuid: str, size_bytes: int) -> None:
        """See vmpack.act.driver.Driver."""
        self._call("setMemoryFlags", uuid, lambda: self._resize(uuid, size_bytes))

    def set_stats_period(self, uuid: str, period_s: int) -> None:
        """See vmpack.act.driver.Driver."""

        def change() -> None:
            self.guests[uuid] = dataclasses.replace(self.guests[uuid], stats_period_s=period_s)

        self._call("setMemoryStatsPeriod", uuid, change)

    def periods(self) -> dict[str, int | None]:
        """Each guest's statistics period."""
        return {guest.name: guest.stats_period_s for guest in self.guests.values()}

    def missing_bytes(self) -> dict[str, int]:
        """What each guest lacks of its nominal."""
        return {guest.name: guest.nominal_bytes - guest.balloon_bytes for guest in self.guests.values()}

    def _call(self, call: str, uuid: str, make: Callable[[], T]) -> T:
        name = f"{call} {self.guests[uuid].name}"
        return self._at(name, make, lambda: GuestBusyError("injected: no answer within 5 s"))

    def _at(self, name: str, call: Callable[[], T], failure: Callable[[], VmpackError]) -> T:
        assert self.injector is not None
        return self.injector.at(name, call, failure)

    def _snapshot(self) -> HostSnapshot:
        now_s = self.clock.now_s
        return builders.host(
            *(_reported(guest, now_s) for guest in self.guests.values()), budget=self.budget_mib, now_s=now_s
        )

    def _size(self, uuid: str) -> int:
        return self.guests[uuid].balloon_bytes

    def _nominal(self, uuid: str) -> int:
        return self.guests[uuid].nominal_bytes

    def _resize(self, uuid: str, size_bytes: int) -> None:
        guest = self.guests[uuid]
        moved = size_bytes - guest.balloon_bytes
        assert guest.stats and guest.rss_bytes is not None and guest.ram_rss_bytes is not None
        stats = dataclasses.replace(
            guest.stats,
            available_bytes=guest.stats.available_bytes + moved,
            usable_bytes=max(0, guest.stats.usable_bytes + moved),
        )
        self.guests[uuid] = dataclasses.replace(
            guest,
            balloon_bytes=size_bytes,
            stats=stats,
            rss_bytes=guest.rss_bytes + moved,
            ram_rss_bytes=guest.ram_rss_bytes + moved,
        )
        self.most_bytes = max(self.most_bytes, sum(other.balloon_bytes for other in self.guests.values()))


def _reported(guest: GuestSnapshot, now_s: float) -> GuestSnapshot:
    if guest.stats is None or guest.stats_period_s == 0:
        return dataclasses.replace(guest, stats=None)
    return dataclasses.replace(guest, stats=dataclasses.replace(guest.stats, sampled_s=now_s - 0.5))


class AgentInMemory:
    """One life of an agent over a World, from its start to its end or to the stroke that ends it."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        self.state = State(folder / "state", "boot-1")
        self.state.prepare()
        (folder / "textfile").mkdir(exist_ok=True)
        self.publisher = Publisher(
            folder / "run",
            folder / "state",
            machine=builders.MACHINE,
            grant=lambda _interval, _observe_only: 0,
            version="9.9.9",
            textfile_path=folder / "textfile" / "vmpack.prom",
            journal_cap_bytes=8 * MIB,
            journal_segment_bytes=MIB,
            history_days=30,
        )
        self.actuator = FirstRemembered(Executor(world, world.clock), DECISION.remember, self.state.save)
        notifier = Notifier({"NOTIFY_SOCKET": str(folder / "nobody-listens")})
        self.loop = Loop(
            clock=world.clock,
            source=world,
            actuator=self.actuator,
            publisher=self.publisher,
            decision=DECISION,
            settings=builders.EAGER,
            remembered=self.state.remembered(),
            save=self.state.save,
            about=about(),
            after_turn=lambda _status: notifier.alive("works"),
        )

    def live(self, seconds: float) -> None:
        """Turn after turn for so long."""
        self.world.clock.stop_at_s = self.world.clock.now_s + seconds
        self.loop.run()
        self.world.clock.stop_at_s = float("inf")

    def stop(self) -> None:
        """Give all back and end, as vmpack.host.agent does."""
        release = Release(self.world.clock, self.world, self.actuator, plan_release, DECISION.remember)
        _, remembered = release.carry_out(self.loop.remembered, self.loop.settings, None)
        self.loop.keep(remembered)
        self.publisher.close()
