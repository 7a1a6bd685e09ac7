"""The demo itself: real guests, the very loop that the agent runs, and a story in six steps.

Runs in a process below `lab.supervise`, so that nothing is left behind however it ends. Called by the
package's __main__.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from vmpack import __version__
from vmpack.act.driver import LibvirtDriver
from vmpack.act.executor import Executor
from vmpack.clock import SystemClock
from vmpack.decide.alarm import alarm
from vmpack.decide.memory import plan, remember
from vmpack.decide.release import plan_release
from vmpack.demo import scenario
from vmpack.demo.summary import Summary
from vmpack.errors import UnavailableError
from vmpack.host.loop import Decision, Loop
from vmpack.host.release import Release
from vmpack.lab.accelerator import detect_accelerator
from vmpack.lab.guest_spec import GuestSpec
from vmpack.lab.lab import Lab, LabGuest
from vmpack.model.action import SetMemory
from vmpack.model.interval import AgentStatus, Interval
from vmpack.model.plan import Remembered
from vmpack.observe.machine import read_machine
from vmpack.observe.source import HostSource
from vmpack.publish.publisher import Publisher
from vmpack.replay.replayer import replay
from vmpack.replay.segments import read_segments
from vmpack.units import MIB, format_bytes

log = logging.getLogger(__name__)

STEP_DEADLINE_S = 300.0
"""How long one step of the story may take on a very busy machine."""
STILL_INTERVALS = 4
"""So many intervals without a move, and packing is over."""

Tell = Callable[[str], None]
Show = Callable[[Interval], None]


class Story:
    """One run. `tell` gets a line a step, `show` every interval."""

    def __init__(self, lab: Lab, count: int, keep_dir: Path, tell: Tell, show: Show) -> None:
        self._lab, self._count, self._keep_dir = lab, count, keep_dir
        self._tell, self._show = tell, show
        self._clock = SystemClock()
        self._accelerator = detect_accelerator()
        self._guests: list[LabGuest] = []
        self._intervals = self._actions = self._packed_bytes = 0
        self._slowest_s = 0.0
        self._ramp_to_bytes = 0

    def run(self) -> Summary:
        """Tell the whole story. Raises VmpackError when a step cannot be done."""
        began_s = time.monotonic()
        host_kills = host_oom_kills()
        self._boot()
        self._use_and_free()
        rss_before = self._rss_bytes()
        overhead = self._overhead_bytes()
        pretended = scenario.pretended_bytes(self._count, overhead)
        loop, publisher = self._loop(pretended)
        self._pack(loop, pretended)
        rss_after = self._rss_bytes()
        ramp_from = self._crowd(loop)
        self._ramp(loop, ramp_from)
        kills = sum(guest.control.oom_kills() for guest in self._guests)
        given, still = self._release(loop)
        publisher.close()
        report = replay(read_segments(self._keep_dir / "journal"), plan)
        nominal = self._count * scenario.GUEST_BYTES
        return Summary(
            version=__version__,
            guests=self._count,
            accelerator=self._accelerator.kind,
            accelerator_reason=self._accelerator.reason,
            nominal_bytes=nominal,
            pretended_host_bytes=pretended,
            packed_bytes=self._packed_bytes,
            packed_ratio=round(self._packed_bytes / nominal, 4),
            host_rss_before_bytes=rss_before,
            host_rss_after_bytes=rss_after,
            ramp_bytes=scenario.RAMP_BYTES,
            ramp_from_bytes=ramp_from,
            ramp_to_bytes=self._ramp_to_bytes,
            grant_slowest_s=round(self._slowest_s, 2),
            guest_oom_kills=kills,
            host_oom_kills=host_oom_kills() - host_kills,
            given_back_bytes=given,
            still_packed_bytes=still,
            actions=self._actions,
            intervals=self._intervals,
            replay_identical=report.identical and report.intervals == self._intervals,
            seconds=round(time.monotonic() - began_s, 1),
        )

    def _boot(self) -> None:
        size = format_bytes(scenario.GUEST_BYTES)
        self._tell(f"1/6 booting {self._count} real guests of {size} ({self._accelerator.reason})")
        specs = [
            GuestSpec(f"guest{number}", scenario.GUEST_BYTES, vcpus=1, free_page_reporting=False)
            for number in range(1, self._count + 1)
        ]
        self._guests = self._lab.start(*specs)
        self._lab.wait_ready()

    def _use_and_free(self) -> None:
        amount = format_bytes(scenario.USED_AND_FREED_BYTES)
        self._tell(f"2/6 every guest uses {amount} and frees it, as real ones do")
        for guest in self._guests:
            guest.control.load_tmpfs(scenario.USED_AND_FREED_BYTES)
        self._await(lambda: all(self._loaded(guest) for guest in self._guests), "the guests to use memory")
        for guest in self._guests:
            guest.control.free()

    def _overhead_bytes(self) -> int:
        """QEMU's own memory, all guests together; not all of them are measured at the first look."""
        source = self._source(None)
        for _ in self._guests:
            snapshot = source.observe()
        return plan(snapshot, Remembered(), scenario.SETTINGS).budget.overhead_bytes

    def _pack(self, loop: Loop, pretended_bytes: int) -> None:
        self._tell(f"3/6 packing: the host is made to look as if it had {format_bytes(pretended_bytes)}")
        still = 0

        def is_packed() -> bool:
            nonlocal still
            interval = self._turn(loop)
            still = 0 if any(isinstance(action, SetMemory) for action in interval.plan.actions) else still + 1
            return self._packed_bytes > 0 and still >= STILL_INTERVALS

        self._await(is_packed, "the guests to be packed")
        packed, held = format_bytes(self._packed_bytes), format_bytes(self._rss_bytes())
        self._tell(f"    packed {packed}; the QEMU processes hold {held}")

    def _crowd(self, loop: Loop) -> int:
        """Fill the host: the neighbours use memory and free it. Returns the first guest's balloon."""
        needy, *neighbours = self._guests
        self._tell(
            f"4/6 the neighbours use {format_bytes(scenario.NEIGHBOUR_LOAD_BYTES)} each: the host is full"
        )
        for guest in neighbours:
            guest.control.load_tmpfs(scenario.NEIGHBOUR_LOAD_BYTES, 10 * MIB)

        def is_crowded() -> bool:
            self._turn(loop)
            return all(self._loaded(guest) for guest in neighbours)

        self._await(is_crowded, "the neighbours to use memory")
        self._turn(loop)
        for guest in neighbours:
            guest.control.free()
        return needy.size()[1]

    def _ramp(self, loop: Loop, from_bytes: int) -> None:
        needy = self._guests[0]
        self._tell(
            f"5/6 {needy.name} needs {format_bytes(scenario.RAMP_BYTES)} more, at "
            f"{format_bytes(scenario.RAMP_BYTES_PER_S)}/s, on {format_bytes(from_bytes)}; its neighbours idle"
        )
        needy.control.load_anonymous(scenario.RAMP_BYTES, scenario.RAMP_BYTES_PER_S)

        def is_served() -> bool:
            interval = self._turn(loop)
            balloon = {guest.uuid: guest.balloon_bytes for guest in interval.snapshot.guests}
            self._ramp_to_bytes = max(self._ramp_to_bytes, balloon.get(needy.uuid, 0))
            return self._loaded(needy)

        self._await(is_served, "the needy guest to get its memory")
        self._ramp_to_bytes = max(self._ramp_to_bytes, needy.size()[1])

    def _release(self, loop: Loop) -> tuple[int, int]:
        self._tell(
            "6/6 release: the host has its true size again, and every guest gets all that it was promised"
        )
        executor = Executor(LibvirtDriver(self._lab.hypervisor), self._clock)
        release = Release(self._clock, self._source(None), executor, plan_release, remember)
        given, _ = release.carry_out(loop.remembered, scenario.SETTINGS, None)
        return given.given_bytes, sum(left.packed_bytes for left in given.still_packed)

    def _turn(self, loop: Loop) -> Interval:
        """One interval of the agent's loop, shown and counted; then the rest of the second."""
        due_s = self._clock.time_s() + scenario.SETTINGS.memory.interval_s
        interval = loop.turn()
        after_s = self._clock.time_s()
        reported = {
            guest.uuid: guest.stats.sampled_s for guest in interval.snapshot.guests if guest.stats is not None
        }
        for outcome in interval.outcomes:
            action = outcome.action
            if (
                isinstance(action, SetMemory)
                and action.grows
                and outcome.status == "done"
                and action.uuid in reported
            ):
                self._slowest_s = max(self._slowest_s, after_s - reported[action.uuid])
        self._intervals += 1
        self._actions += len(interval.plan.actions)
        self._packed_bytes = max(self._packed_bytes, interval.plan.offer.packed_bytes)
        self._show(interval)
        self._clock.wait(due_s - after_s)
        return interval

    def _await(self, arrived: Callable[[], bool], what: str) -> None:
        deadline_s = time.monotonic() + STEP_DEADLINE_S
        while not arrived():
            if time.monotonic() > deadline_s:
                raise UnavailableError(
                    f"waited {STEP_DEADLINE_S:g} s for {what}",
                    "is the machine very busy? try again, or fewer guests",
                )
            self._clock.wait(0.05)

    def _loaded(self, guest: LabGuest) -> bool:
        loads = guest.control.progress()
        return all(load.state in ("done", "killed") for load in loads)

    def _rss_bytes(self) -> int:
        return sum(guest.rss_bytes() for guest in self._guests)

    def _source(self, pretended_bytes: int | None) -> HostSource:
        return HostSource(
            self._lab.hypervisor,
            self._clock,
            pretended_bytes=pretended_bytes,
            frozen=lambda: False,
            claims=lambda: (),
        )

    def _loop(self, pretended_bytes: int) -> tuple[Loop, Publisher]:
        publisher = Publisher(
            self._keep_dir,
            self._keep_dir,
            machine=read_machine(),
            grant=lambda _interval, _observe_only: 0,
            version=__version__,
            textfile_path=self._keep_dir / "vmpack.prom",
            journal_cap_bytes=64 * MIB,
            journal_segment_bytes=8 * MIB,
            history_days=1,
        )
        source = self._source(pretended_bytes)
        about = AgentStatus(__version__, 0, self._lab.uri, False, 1.0, self._clock.wall_s(), None, None)
        loop = Loop(
            clock=self._clock,
            source=source,
            actuator=Executor(LibvirtDriver(self._lab.hypervisor, source.read_again), self._clock),
            publisher=publisher,
            decision=Decision(plan, remember, alarm),
            settings=scenario.SETTINGS,
            remembered=Remembered(),
            save=lambda _remembered: None,
            about=about,
        )
        return loop, publisher


def host_oom_kills() -> int:
    """Processes that this machine's OOM killer has ended since boot; 0 where the kernel does not count."""
    for line in Path("/proc/vmstat").read_text().splitlines():
        if line.startswith("oom_kill "):
            return int(line.split()[1])
    return 0
