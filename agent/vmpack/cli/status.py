"""`vmpack status`: the host, every VM, and what was decided, from the running agent."""

from __future__ import annotations

import argparse
import json
import time
from typing import TYPE_CHECKING, Any

from vmpack.cli import agent_access, vcpu_text
from vmpack.cli.safe_text import shown
from vmpack.decide.explain import words
from vmpack.model.codec import encode
from vmpack.model.interval import AgentStatus, Interval
from vmpack.units import format_bytes, format_ratio, format_seconds

if TYPE_CHECKING:
    from rich.console import Console

    from vmpack.host.messages import VcpuSummary

EXIT_WARNINGS = 3
STALE_INTERVALS = 3
STALE_SLACK_S = 5.0

DESCRIPTION = """\
Show where this host's memory goes, what every VM has, uses and is about to get, and what is
left alone and why. Asks the running agent; changes nothing."""

EPILOG = """\
examples:
  vmpack status                       a table for people
  vmpack status --json | jq .host     the same for programs
  vmpack status --run-dir /run/other  another agent's

words: nominal is what the owner was promised, balloon what the VM has now, used what the guest
cannot spare, target where the balloon is going, packed = nominal - balloon.

--json: version, pid, uri, state (active, observe or frozen), interval_s, age_s, stale, last_error,
host {capacity_bytes, reserve_bytes, host_own_bytes, overhead_bytes, budget_bytes, balloons_bytes,
packed_bytes, offered_bytes, growth_reserve_bytes, lacking_bytes, shortage_probability_ratio,
pressure_ratio, reasons}, vms [{uuid, name, state, nominal_bytes,
balloon_bytes, used_bytes, target_bytes, floor_bytes, minimum_bytes, wanted_bytes, packed_bytes,
verdict, policy, rule}], unreadable [names], migration_wanted {deficit_bytes, starving} or null,
vcpus {mode, age_s, last_error, pcpus, vcpus, std_points, target_points, pins, changed_last_hour} or null.
What is not known is null. host, vms, age_s are null before the first interval.

exit code: 0 ok, 3 the newest interval failed or is old, 69 no agent answers."""


def add_parser(subparsers: Any) -> None:
    """Add the command to the tree."""
    parser = subparsers.add_parser(
        "status", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    agent_access.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Print the state; 3 when it is stale or the newest interval failed."""
    client = agent_access.client(args)
    status = client.status()
    vcpus = agent_access.if_told(client.vcpu_summary)
    now_s = time.time()
    if args.json:
        print(json.dumps(record(status, now_s) | {"vcpus": _vcpus_record(vcpus, now_s)}, indent=2))
    else:
        from vmpack.cli.screen import console

        show(console(), status, now_s, vcpus)
    return EXIT_WARNINGS if status.last_error or is_stale(status, now_s) else 0


def state(status: AgentStatus) -> str:
    """`active`, `observe` (it changes nothing by configuration) or `frozen` (an administrator stopped it)."""
    if status.frozen:
        return "frozen"
    return "observe" if status.observe_only else "active"


def age_s(status: AgentStatus, now_s: float) -> float | None:
    """How old the newest interval is, in seconds; None before the first. `now_s` is Unix time."""
    return None if status.interval is None else max(0.0, now_s - status.interval.snapshot.wall_s)


def is_stale(status: AgentStatus, now_s: float) -> bool:
    """True when the newest interval (or the start, without one) is too old for a healthy agent."""
    newest_s = status.started_wall_s if status.interval is None else status.interval.snapshot.wall_s
    return now_s - newest_s > STALE_INTERVALS * status.interval_s + STALE_SLACK_S


def record(status: AgentStatus, now_s: float) -> dict[str, Any]:
    """The documented JSON form."""
    interval = status.interval
    return {
        "version": status.version,
        "pid": status.pid,
        "uri": status.uri,
        "state": state(status),
        "interval_s": status.interval_s,
        "age_s": age_s(status, now_s),
        "stale": is_stale(status, now_s),
        "last_error": status.last_error,
        "host": None if interval is None else _host_record(interval),
        "vms": None if interval is None else _vm_records(interval),
        "unreadable": [] if interval is None else [guest.name for guest in interval.snapshot.unreadable],
        "migration_wanted": None if interval is None else _migration_record(interval),
    }


def _host_record(interval: Interval) -> dict[str, Any]:
    budget, snapshot = interval.plan.budget, interval.snapshot
    return {
        "capacity_bytes": budget.capacity_bytes,
        "reserve_bytes": budget.reserve_bytes,
        "host_own_bytes": budget.host_own_bytes,
        "overhead_bytes": budget.overhead_bytes,
        "budget_bytes": budget.budget_bytes,
        "balloons_bytes": sum(guest.balloon_bytes for guest in snapshot.guests),
        "packed_bytes": interval.plan.offer.packed_bytes,
        "offered_bytes": interval.plan.offer.memory_bytes,
        "growth_reserve_bytes": interval.plan.offer.growth_reserve_bytes,
        "lacking_bytes": interval.plan.offer.lacking_bytes,
        "shortage_probability_ratio": interval.plan.offer.shortage_probability_ratio,
        "pressure_ratio": None if snapshot.pressure is None else snapshot.pressure.some_avg10_ratio,
        "reasons": [reason.rule for reason in interval.plan.reasons],
    }


def _vcpus_record(vcpus: VcpuSummary | None, now_s: float) -> dict[str, Any] | None:
    if vcpus is None:
        return None
    sums = vcpus.sums
    return {
        "mode": vcpus.mode,
        "age_s": sums and max(0.0, now_s - sums.wall_s),
        "last_error": vcpus.last_error,
        "pcpus": sums and sums.pcpus,
        "vcpus": sums and sums.vcpus,
        "std_points": sums and sums.std_points,
        "target_points": sums and sums.target_points,
        "pins": sums and sums.pins,
        "changed_last_hour": vcpus.changed_last_hour,
    }


def _vm_records(interval: Interval) -> list[dict[str, Any]]:
    plans = {plan.uuid: plan for plan in interval.plan.guests}
    records = []
    for guest in sorted(interval.snapshot.guests, key=lambda guest: (guest.name, guest.uuid)):
        plan = plans.get(guest.uuid)
        records.append(
            {
                "uuid": guest.uuid,
                "name": guest.name,
                "state": guest.state,
                "nominal_bytes": guest.nominal_bytes,
                "balloon_bytes": guest.balloon_bytes,
                "used_bytes": plan and plan.used_bytes,
                "target_bytes": plan and plan.target_bytes,
                "floor_bytes": plan and plan.floor_bytes,
                "minimum_bytes": plan and plan.minimum_bytes,
                "wanted_bytes": plan and plan.wanted_bytes,
                "packed_bytes": max(0, guest.nominal_bytes - guest.balloon_bytes),
                "verdict": plan and plan.verdict,
                "policy": encode(guest.policy),
                "rule": plan.reasons[-1].rule if plan and plan.reasons else None,
            }
        )
    return records


def _migration_record(interval: Interval) -> dict[str, Any] | None:
    wanted = interval.plan.migration
    if wanted is None:
        return None
    return {"deficit_bytes": wanted.deficit_bytes, "starving": list(wanted.starving)}


_STATE_WORDS = {
    "active": "is packing",
    "observe": "only observes and changes nothing",
    "frozen": "is FROZEN and changes nothing (`vmpack freeze --off` ends that)",
}


def show(screen: Console, status: AgentStatus, now_s: float, vcpus: VcpuSummary | None = None) -> None:
    """Print the screen for people."""
    from rich.text import Text

    from vmpack.cli import bars
    from vmpack.cli.screen import ascii_only

    title = Text.assemble(("vmpack", "bold"), f" {_STATE_WORDS[state(status)]}, on {shown(status.uri)}")
    screen.print(title, soft_wrap=True)
    age = age_s(status, now_s)
    if age is not None:
        stale = is_stale(status, now_s)
        line = f"data {format_seconds(age)} old, a new interval every {format_seconds(status.interval_s)}"
        screen.print(
            Text(f"{line}: the agent hangs or stopped" if stale else line, "bold red" if stale else "dim")
        )
    if status.last_error:
        screen.print(Text(f"the newest interval failed: {shown(status.last_error)}", "bold red"))
    if status.interval is None:
        screen.print("no interval has gone through yet; try again in a moment")
        return
    plain = ascii_only(screen)
    screen.print()
    screen.print(bars.host_bar(status.interval, min(screen.width, bars.WIDE_COLUMNS), ascii_only=plain))
    screen.print(bars.host_legend(status.interval, ascii_only=plain))
    screen.print(host_line(status.interval))
    for reason in status.interval.plan.offer.reasons:
        screen.print(Text(f"offered: {shown(words(reason)[0])}", "dim"))
    for warning in host_warnings(status.interval):
        screen.print(Text(warning, "bold yellow"))
    if vcpus is not None:
        screen.print(vcpu_text.status_line(vcpus))
    screen.print()
    if status.interval.snapshot.guests:
        screen.print(bars.table(status.interval, columns=screen.width, ascii_only=plain))
    else:
        screen.print("no VM runs on this host")
    for line in left_alone(status.interval):
        screen.print(Text(line, "dim"))


def host_line(interval: Interval) -> str:
    """The host's sums in one line."""
    budget, offer, pressure = interval.plan.budget, interval.plan.offer, interval.snapshot.pressure
    parts = [
        f"memory {format_bytes(budget.capacity_bytes)}",
        f"budget {format_bytes(budget.budget_bytes)}",
        f"packed {format_bytes(offer.packed_bytes)}",
        f"offered {format_bytes(offer.memory_bytes)}",
        "pressure unknown" if pressure is None else f"pressure {format_ratio(pressure.some_avg10_ratio)}",
    ]
    return ", ".join(parts)


def host_warnings(interval: Interval) -> list[str]:
    """What is wrong with the host as a whole, in words with numbers."""
    warnings = [
        shown("{}; what would change it: {}".format(*words(reason))) for reason in interval.plan.reasons
    ]
    wanted = interval.plan.migration
    if wanted is not None:
        names = ", ".join(shown(name) for name in wanted.starving) or "none yet"
        warnings.append(
            f"ballooning cannot cure this: {format_bytes(wanted.deficit_bytes)} are lacking,"
            f" a VM should move away (starving: {names})"
        )
    if interval.snapshot.unreadable:
        names = ", ".join(shown(guest.name) for guest in interval.snapshot.unreadable)
        warnings.append(f"gave no answer this time and were left as they are: {names}")
    return warnings


def left_alone(interval: Interval) -> list[str]:
    """Each VM that is left alone, and why, in words."""
    lines = [
        f"  {shown(plan.name)}: {'; '.join(shown(words(reason)[0]) for reason in plan.reasons)}"
        for plan in sorted(interval.plan.guests, key=lambda plan: (plan.name, plan.uuid))
        if plan.verdict == "excluded"
    ]
    return ["", "left alone:", *lines] if lines else []
