"""Real guests on a full host, the same course of needs under vmpack and under rivals' rules.

    python -m tests.benchmarks.live_memory --policies vmpack:balanced,cloudvamp-fixed,mom --json

The guests are promised twice what the host pretends to have. vmpack runs as its
agent does, with its defaults; rivals' rules (vmpack/replay, tests/benchmarks/rivals) are fed by the same
observe layer and carried out by the same act layer every 5 s: CloudVAMP's own pace, twice MoM's.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.benchmarks.live.course import Course, course
from tests.benchmarks.live.host import FullHost, full_host
from tests.benchmarks.live.measure import Sample, Sampler, sums
from tests.benchmarks.live.players import Player
from tests.benchmarks.live.rival import Rival
from tests.real.agent_process import AgentProcess
from vmpack.model.action import SetMemory
from vmpack.publish.journal import JournalLine
from vmpack.replay.policies import named
from vmpack.replay.segments import read_segments
from vmpack.units import MIB, format_bytes

OURS = "vmpack"
POLICIES = "vmpack:balanced,vmpack:dense,cloudvamp-fixed,mom"
NOMINAL_BYTES = 768 * MIB
OVERCOMMIT = 2.0
FINISH_WITHIN_S = 60.0
"""After the course's end a guest that still lacks memory will hardly get it."""

Row = dict[str, Any]
COLUMNS = (
    "balloon_ratio_mean", "short_gbs", "short_vm_s", "late_gbs", "oom_kills", "swap_in_mib", "orders",
    "host_over_s", "finished_s", "cpu_short_ratio",
)  # fmt: skip


class Orders:
    """When the policy in force gave its orders to balloons, on the monotonic clock; known after its end."""

    def __init__(self) -> None:
        self.given_s: list[float] = []


@contextmanager
def ours(host: FullHost, stance: str, folder: Path) -> Iterator[Orders]:
    """vmpack's own agent, as an administrator starts it."""
    config = (
        f"[host]\nmemory_bytes = {host.room_bytes + host.overhead_bytes}\n"
        f"reserve_ratio = 0\nreserve_min_bytes = {host.reserve_bytes}\n"
        f'[memory]\nstance = "{stance}"\n'
    )
    orders = Orders()
    with AgentProcess(folder, host.lab.uri, config=config) as agent:
        agent.ready()
        yield orders
    for line in read_segments(agent.state_dir / "journal"):
        if isinstance(line, JournalLine):
            given = [one for one in line.outcomes if isinstance(one.action, SetMemory)]
            orders.given_s += [line.snapshot.time_s for one in given if one.status != "skipped"]


@contextmanager
def theirs(host: FullHost, policy: str) -> Iterator[Orders]:
    """A rival's rule."""
    orders = Orders()
    rival = Rival(host.lab.uri, named([policy])[policy], host.room_bytes)
    rival.start()
    try:
        yield orders
    finally:
        rival.stop()
    orders.given_s = rival.orders


def run(policy: str, host: FullHost, needs: Course) -> tuple[Row, list[Sample]]:
    """One policy through the course: its row, and what it was made of."""
    host.make_full({guest: changes[0].need_bytes for guest, changes in needs.changes.items()})
    with tempfile.TemporaryDirectory(prefix="vmpack-live-") as folder:
        row, samples = _play(policy, host, needs, Path(folder))
    name, _, stance = policy.partition(":")
    return {"policy": name, "stance": stance, **row}, samples


def _play(policy: str, host: FullHost, needs: Course, folder: Path) -> tuple[Row, list[Sample]]:
    name, _, stance = policy.partition(":")
    began_s = time.monotonic() + needs.warm_up_s
    sampler = Sampler(host, began_s)
    players = [Player(host.guests[guest], changes, began_s) for guest, changes in needs.changes.items()]
    in_force = ours(host, stance, folder) if name == OURS else theirs(host, policy)
    with in_force as orders:
        sampler.start()
        for player in players:
            player.start()
        try:
            _until(began_s)
            kills, waited_s = _oom_kills(host), _cpu_waited_s()
            _until(began_s + needs.length_s)
            while not all(player.is_done for player in players):
                if time.monotonic() > began_s + needs.length_s + FINISH_WITHIN_S:
                    break
                time.sleep(0.1)
            finished_s = time.monotonic() - began_s
            waited_s = _cpu_waited_s() - waited_s
            kills = {guest: after - kills[guest] for guest, after in _oom_kills(host).items()}
        finally:
            for player in players:
                player.stop()
            sampler.stop()
    held = {player.guest.name: player.held for player in players}
    done = all(player.is_done for player in players)
    row = {
        **asdict(sums(sampler.samples, held, host, needs)),
        "oom_kills": sum(kills.values()),
        "killed_in": {guest: count for guest, count in kills.items() if count},
        "orders": sum(0 <= given_s - began_s <= needs.length_s for given_s in orders.given_s),
        "finished_s": round(finished_s, 1) if done else None,
        "cpu_short_ratio": round(waited_s / finished_s, 2),
        "silences": sum(player.silences for player in players),
    }
    return row, sampler.samples


def _until(moment_s: float) -> None:
    while (left_s := moment_s - time.monotonic()) > 0:
        time.sleep(min(left_s, 0.5))


def _cpu_waited_s() -> float:
    """How long something on this machine has waited for a CPU: near all the time, and figures mean little."""
    return int(Path("/proc/pressure/cpu").read_text().splitlines()[0].rpartition("total=")[2]) / 1e6


def _oom_kills(host: FullHost) -> dict[str, int]:
    return {name: guest.control.oom_kills() for name, guest in host.guests.items()}


def run_all(policies: Sequence[str], seed: int, overcommit: float, samples: Path | None) -> list[Row]:
    """All policies, one after the other on the same guests, which are made whole and idle in between."""
    needs, rows = course(seed, NOMINAL_BYTES), []
    with full_host(list(needs.changes), NOMINAL_BYTES, overcommit) as host:
        peak = (needs.peak_bytes() + sum(host.own_bytes.values())) / host.room_bytes
        about = {
            "seed": seed,
            "guests": len(needs.changes),
            "nominal_mib": NOMINAL_BYTES // MIB,
            "overcommit": overcommit,
            "need_peak_ratio": round(peak, 3),
        }
        for policy in policies:
            _say(f"{policy}: {len(needs.changes)} guests of {format_bytes(NOMINAL_BYTES)}")
            row, seen = run(policy, host, needs)
            rows.append({**row, **about})
            _say(json.dumps(rows[-1]))
            if samples is not None:
                _write(samples, policy, seen, host, needs)
    return compared(rows)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _write(path: Path, policy: str, samples: Sequence[Sample], host: FullHost, needs: Course) -> None:
    """Append one JSON line a sample: balloon and need of each guest, in bytes."""
    with path.open("a") as file:
        for sample in samples:
            need = {
                name: host.own_bytes[name] + needs.need_bytes(name, sample.time_s) for name in needs.changes
            }
            line = {"policy": policy, **asdict(sample), "need_bytes": need}
            file.write(json.dumps(line) + "\n")


def compared(rows: Sequence[Row]) -> list[Row]:
    """Each row with its shortage and balloon as multiples of vmpack's first one; None where that is 0."""
    first = next((row for row in rows if row["policy"] == OURS), None)
    if first is None:
        return list(rows)

    def ratio(row: Row, key: str) -> float | None:
        return round(row[key] / first[key], 3) if first[key] else None

    return [
        {**row, "short_to_ours": ratio(row, "short_gbs"), "balloon_to_ours": ratio(row, "balloon_ratio_mean")}
        for row in rows
    ]


def table(rows: Sequence[Row]) -> str:
    """The rows for people: a line a figure, a column a policy."""
    heads = [":".join(filter(None, (row["policy"], row["stance"]))) for row in rows]
    lines = ["".join([f"{'':20}", *(f"{head:>18}" for head in heads)])]
    for key in (*COLUMNS, "short_to_ours", "balloon_to_ours"):
        values = [row.get(key) for row in rows]
        lines.append("".join([f"{key:20}", *(f"{'-' if value is None else value:>18}" for value in values)]))
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--policies", default=POLICIES, help=f"comma-separated (default {POLICIES})")
    parser.add_argument("--seed", type=int, default=1, help="of the course of needs (default 1)")
    parser.add_argument("--overcommit", type=float, default=OVERCOMMIT, help=f"default {OVERCOMMIT:g}")
    parser.add_argument("--samples", type=Path, help="append what was seen, twice a second, to this file")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    policies = args.policies.split(",")
    named(policies)
    try:
        rows = run_all(policies, args.seed, args.overcommit, args.samples)
    except KeyboardInterrupt:
        print("interrupted; its guests have ended", file=sys.stderr)
        return 130
    print(json.dumps({"rows": rows}, indent=2) if args.json else table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
