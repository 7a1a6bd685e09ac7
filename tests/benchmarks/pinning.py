"""Real guests on two pCPUs, pinned by `vcpu_scheduler` and left to the kernel, in turns.

    python -m tests.benchmarks.pinning --scenes mixed --ways spread,balance --json

Every guest has one vCPU and counts laps of fixed work. A heavy one works on and on; a light one rests 50 ms
after each lap, and is then due again. Ways to pin:

    spread   all vCPUs begin on one pCPU, and vcpu_scheduler spreads them: each has one pCPU in the end
    balance  all vCPUs may run anywhere: vcpu_scheduler pins only those that gain by it, as it does elsewhere
    group    as balance, with --mode group: on one cache nothing is pinned

A pair is one turn of each; which comes first alternates. All ratios are pinned / unpinned, of one pair; a
row has their median and quartiles. Turns of work count for `throughput`, of all guests together. The delay
of light guests is told twice, both times as the 99th percentile:

    delay     the run-queue delay that the kernel counted for the vCPU (schedstat) in a window of 50 ms, of
              the windows in which it ran (a wait counts whole where it ends): what pinning can change
    response  from when a lap was due to its end, by the guest's own clock: what a user of the guest feels,
              with the lap's work itself and the wake-up

`others_ratio` is how much of the pCPUs everything but the guests used, vmpack with it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from tests.real.duty import Duty
from tests.real.guest_threads import allowed_cpus, cpu_time, vcpu_task
from tests.real.scheduler_process import SchedulerProcess
from vmpack.lab.guest_spec import GuestSpec
from vmpack.lab.lab import Lab, LabGuest
from vmpack.units import MIB

SCENES = {"even": (4, 0), "mixed": (2, 4), "odd": (3, 3)}
"""Heavy and light guests."""
WAYS = ("spread", "balance", "group")
LEAST_PAIRS = 7
MOST_GUESTS = 6
HEAVY_TURNS, LIGHT_TURNS = 2000, 500
LIGHT_REST_S = 0.05
MEASURED_S = 8.0
WINDOW_S = 0.05
INTERVAL = "1"
SETTLED_LOOKS = 6
"""So many looks of the scheduler it has for its changes before anything is measured."""
UNSETTLED_S = 1.0

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Turn:
    """What was measured in one turn."""

    turns_per_s: float
    delay_p99_s: float | None
    """Of light guests, as the next; None where there are none."""
    response_p99_s: float | None
    others_ratio: float
    pinned: int
    """vCPUs that might run on one pCPU alone."""


class Stage:
    """Guests of one scene, working."""

    def __init__(self, lab: Lab, guests: Sequence[LabGuest], heavy: int, pcpus: Sequence[int]) -> None:
        self.lab = lab
        self.pcpus = pcpus
        self.guests = list(guests)
        self._heavy = [Duty(guest, HEAVY_TURNS) for guest in guests[:heavy]]
        self._light = [Duty(guest, LIGHT_TURNS, LIGHT_REST_S) for guest in guests[heavy:]]

    def __enter__(self) -> Stage:
        for duty in self._heavy + self._light:
            duty.begin()
        return self

    def __exit__(self, *_: object) -> None:
        for duty in self._heavy + self._light:
            duty.end()

    def put(self, cpus: Sequence[int]) -> None:
        """Let all vCPUs run on these pCPUs, and the guests' other threads where they may."""
        mask = tuple(cpu in cpus for cpu in range(os.cpu_count() or 1))
        for guest in self.guests:
            guest.domain.pinVcpu(0, mask)

    def unpinned(self) -> Turn:
        """One turn under the kernel alone."""
        self.put(self.pcpus)
        time.sleep(UNSETTLED_S)
        return self._measured()

    def pinned(self, way: str) -> Turn:
        """One turn with vcpu_scheduler at work."""
        self.put(self.pcpus[:1] if way == "spread" else self.pcpus)
        others = set(range(os.cpu_count() or 1)) - set(self.pcpus)
        options = ("--mode", "group") if way == "group" else ()
        with (
            tempfile.TemporaryDirectory(prefix="vmpack-pinning-") as folder,
            SchedulerProcess(
                Path(folder), self.lab.uri, *options, interval=INTERVAL, reserved_cpus=others
            ) as program,
        ):
            program.pass_turns(SETTLED_LOOKS)
            turn = self._measured()
            assert program.stop(signal.SIGTERM) == 0, program.log
        return turn

    def _measured(self) -> Turn:
        tasks = {duty.guest.name: vcpu_task(duty.guest) for duty in self._heavy + self._light}
        for duty in self._heavy + self._light:
            duty.take_laps_s()
        began_s, busy_s, guests_s = time.monotonic(), _busy_s(), self._guests_s()
        delays = _delays_s([tasks[duty.guest.name] for duty in self._light])
        passed_s = time.monotonic() - began_s
        others_s = (_busy_s() - busy_s) - (self._guests_s() - guests_s)
        heavy = [duty.take_laps_s() for duty in self._heavy]
        light = [duty.take_laps_s() for duty in self._light]
        counted_s = time.monotonic() - began_s
        turns = HEAVY_TURNS * sum(map(len, heavy)) + LIGHT_TURNS * sum(map(len, light))
        places = [allowed_cpus(guest)[int(tasks[guest.name].name)] for guest in self.guests]
        return Turn(
            turns / counted_s,
            _p99(delays),
            _p99([lap_s for laps in light for lap_s in laps]),
            max(0.0, others_s) / passed_s / len(self.pcpus),
            sum(place.isdecimal() for place in places),
        )

    def _guests_s(self) -> float:
        """CPU time of all threads of the guests that are there now."""
        ticks = 0
        for guest in self.guests:
            fields = Path(f"/proc/{guest.pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")


def _delays_s(tasks: Sequence[Path]) -> list[float]:
    """For MEASURED_S: what each thread waited in each window in which it ran."""
    delays = []
    before = [cpu_time(task) for task in tasks]
    end_s = time.monotonic() + MEASURED_S
    while time.monotonic() < end_s:
        time.sleep(WINDOW_S)
        now = [cpu_time(task) for task in tasks]
        for was, at in zip(before, now, strict=True):
            if at != was:
                delays.append((at.delay_ns - was.delay_ns) / 1e9)
        before = now
    return delays


def _busy_s() -> float:
    """CPU time of all programs on all pCPUs."""
    ticks = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    user, nice, system, _idle, _iowait, irq, softirq = ticks[:7]
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def _p99(values: Sequence[float]) -> float | None:
    return quantiles(values, n=100)[98] if len(values) > 1 else None


def pairs(stage: Stage, way: str, count: int) -> Iterator[tuple[Turn, Turn]]:
    """Pinned and unpinned, so many times."""
    for number in range(count):
        if number % 2:
            unpinned = stage.unpinned()
            yield stage.pinned(way), unpinned
        else:
            pinned = stage.pinned(way)
            yield pinned, stage.unpinned()


def ratios(seen: Sequence[tuple[Turn, Turn]], name: str) -> Row:
    """Median and quartiles over the pairs of pinned / unpinned of one field of Turn."""
    found = [
        getattr(pinned, name) / getattr(unpinned, name)
        for pinned, unpinned in seen
        if getattr(unpinned, name)
    ]
    if len(found) < 2:
        return {"median": None, "quartiles": None}
    low, _, high = quantiles(found, n=4)
    return {"median": round(median(found), 3), "quartiles": [round(low, 3), round(high, 3)]}


def row_of(scene: str, way: str, seen: Sequence[tuple[Turn, Turn]]) -> Row:
    """What the pairs come to."""
    heavy, light = SCENES[scene]
    both = [turn for pair in seen for turn in pair]
    row: Row = {"scene": scene, "way": way, "heavy": heavy, "light": light, "pairs": len(seen)}
    row["pinned_vcpus"] = median(pinned.pinned for pinned, _ in seen)
    row["throughput_ratio"] = ratios(seen, "turns_per_s")
    if light:
        row["delay_p99_ratio"] = ratios(seen, "delay_p99_s")
        row["response_p99_ratio"] = ratios(seen, "response_p99_s")
        for what, turns in (("pinned", [one for one, _ in seen]), ("unpinned", [two for _, two in seen])):
            row[f"delay_p99_{what}_ms"] = _ms(turn.delay_p99_s for turn in turns)
            row[f"response_p99_{what}_ms"] = _ms(turn.response_p99_s for turn in turns)
    row["others_ratio"] = round(median(turn.others_ratio for turn in both), 3)
    return row


def _ms(values: Iterator[float | None]) -> float:
    return round(1000 * median(value for value in values if value is not None), 1)


def rows(scenes: Sequence[str], ways: Sequence[str], count: int) -> Iterator[Row]:
    """One row a scene and way, as they are measured."""
    pcpus = sorted(os.sched_getaffinity(0))[:2]
    specs = [
        GuestSpec(f"p{number}", memory_bytes=96 * MIB, vcpus=1, guest_agent=False)
        for number in range(MOST_GUESTS)
    ]
    with Lab.private() as lab:
        guests = lab.start(*specs)
        lab.wait_ready()
        for scene in scenes:
            heavy, light = SCENES[scene]
            working, spare = guests[: heavy + light], guests[heavy + light :]
            with ExitStack() as paused:
                for guest in spare:
                    guest.domain.suspend()
                    paused.callback(guest.domain.resume)
                for way in ways:
                    with Stage(lab, working, heavy, pcpus) as stage:
                        yield row_of(scene, way, list(pairs(stage, way, count)))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", default=",".join(SCENES), help="comma-separated (default: all)")
    parser.add_argument("--ways", default="spread,balance", help="comma-separated (default: %(default)s)")
    parser.add_argument("--pairs", type=int, default=LEAST_PAIRS, help="of each row (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    seen: list[Row] = []
    try:
        for row in rows(args.scenes.split(","), args.ways.split(","), args.pairs):
            seen.append(row)
            line = "  ".join(f"{key} {value}" for key, value in row.items())
            print(line, file=sys.stderr if args.json else sys.stdout, flush=True)
    except KeyboardInterrupt:
        print("interrupted; its guests have ended", file=sys.stderr)
        return 130
    if args.json:
        print(json.dumps({"load_average": os.getloadavg(), "rows": seen}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
