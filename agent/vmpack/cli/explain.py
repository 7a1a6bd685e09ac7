"""`vmpack explain VM`: every reason behind one VM's memory and pins, and what would have changed it."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import textwrap
import time
from typing import TYPE_CHECKING, Any

from vmpack.cli import agent_access, explain_vcpus
from vmpack.cli.action_text import asked_words, outcome_words
from vmpack.cli.policy_text import policy_words
from vmpack.cli.reason_text import reason_lines, reason_record
from vmpack.cli.safe_text import shown
from vmpack.model.codec import encode
from vmpack.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from vmpack.host.messages import Explanation
    from vmpack.model.vcpu import VcpuStatus

DESCRIPTION = """\
Say why a VM has the memory it has: each rule that spoke, the numbers it saw, what would have changed
its mind, and what was learned of the VM; what each vCPU wants, where it may run, and whose pin that
is. Asks the running agent about its newest interval; changes nothing."""

EPILOG = """\
examples:
  vmpack explain web-1
  vmpack explain 1b4e28ba-2fa1-11d2-883f-0016d3cca427 --json

--json: interval, age_s, observe_only, frozen, guest and plan (the records of the journal), reasons
[{rule, note, numbers, what, change}], outcomes, host_reasons and learned [the same form as reasons],
vcpus {mode, age_s, last_error, left_alone, vcpus [{number, demand_ratio, wait_ratio, cpus (empty: any),
mask_of (vmpack, owner, run_time or nobody), seat}], threads, reasons, host_reasons, changes}, or null
where the agent does not look at vCPUs.

exit code: 0 ok, 2 no such VM, 69 no agent answers."""


def add_parser(subparsers: Any) -> None:
    """Add the command to the tree."""
    parser = subparsers.add_parser(
        "explain",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("vm", metavar="VM", help="the VM's name or uuid")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    agent_access.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Print the explanation. Raises UnavailableError without an agent, VmpackError for an unknown VM."""
    client = agent_access.client(args)
    explanation = client.explain(args.vm)
    vcpus = agent_access.if_told(lambda: client.vcpus(explanation.guest.uuid))
    now_s = time.time()
    if args.json:
        print(json.dumps(record(explanation, vcpus, now_s), indent=2))
    else:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        print("\n".join(_wrapped(line, width) for line in lines(explanation, vcpus, now_s)))
    return 0


def record(explanation: Explanation, vcpus: VcpuStatus | None, now_s: float) -> dict[str, Any]:
    """The documented JSON form."""
    return {
        "interval": explanation.number,
        "age_s": max(0.0, now_s - explanation.wall_s),
        "observe_only": explanation.observe_only,
        "frozen": explanation.frozen,
        "guest": encode(explanation.guest),
        "plan": encode(explanation.plan),
        "reasons": [reason_record(reason) for reason in explanation.plan.reasons],
        "outcomes": encode(explanation.outcomes),
        "host_reasons": [reason_record(reason) for reason in explanation.host_reasons],
        "learned": [reason_record(reason) for reason in explanation.learned],
        "vcpus": explain_vcpus.record(vcpus, explanation.guest.uuid, now_s),
    }


def lines(explanation: Explanation, vcpus: VcpuStatus | None, now_s: float) -> list[str]:
    """The explanation for people, safe to print."""
    guest, plan = explanation.guest, explanation.plan
    age = format_seconds(max(0.0, now_s - explanation.wall_s))
    text = [f"{shown(guest.name)}: {_verdict(explanation)}  (decided {age} ago)", ""]
    text += [f"  {name:<10} {amount:<9} {meaning}" for name, amount, meaning in _amounts(explanation)]
    text += ["", "why:"]
    for reason in plan.reasons:
        text += reason_lines(reason)
    if explanation.learned:
        text += ["", "what was learned of it:"]
        for reason in explanation.learned:
            text += reason_lines(reason)
    text += ["", *_outcome_lines(explanation)]
    own = policy_words(guest.policy, explanation.wall_s)
    text.append(f"its own policy: {own}" if own else "its own policy: none, the host's settings hold")
    text += [f"a part of it is not used: {shown(fault)}" for fault in guest.policy_faults]
    if guest.stats_fault:
        text.append(f"its last report was thrown away: {shown(guest.stats_fault)}")
    if explanation.host_reasons:
        text += ["", "the host:"]
        for reason in explanation.host_reasons:
            text += reason_lines(reason)
    return text + explain_vcpus.lines(vcpus, guest.uuid, now_s)


def _wrapped(line: str, width: int | None) -> str:
    """The line broken at words for a terminal, indented as it begins; a pipe gets it whole."""
    if width is None or len(line) <= width:
        return line
    indent = " " * (len(line) - len(line.lstrip(" -")))
    return textwrap.fill(line, max(40, width), subsequent_indent=indent, drop_whitespace=True)


def _verdict(explanation: Explanation) -> str:
    plan, balloon = explanation.plan, format_bytes(explanation.guest.balloon_bytes)
    target = format_bytes(plan.target_bytes)
    return {
        "grow": f"grows from {balloon} towards {target}",
        "shrink": f"shrinks from {balloon} towards {target}",
        "hold": f"stays at {balloon}",
        "excluded": f"is left alone at {balloon}",
    }[plan.verdict]


def _amounts(explanation: Explanation) -> list[tuple[str, str, str]]:
    guest, plan = explanation.guest, explanation.plan
    used = "unknown" if plan.used_bytes is None else format_bytes(plan.used_bytes)
    usable = "unknown" if guest.stats is None else format_bytes(guest.stats.usable_bytes)
    amounts = [
        ("nominal", format_bytes(guest.nominal_bytes), "what its owner was promised"),
        ("balloon", format_bytes(guest.balloon_bytes), "what it has now"),
        ("usable", usable, "what it could take without swapping"),
        ("used", used, "what it cannot spare"),
    ]
    if guest.huge_pages_ratio is not None:
        share = f"{100 * guest.huge_pages_ratio:.0f} %"
        amounts.append(("huge", share, "of its memory in the host is huge pages; ballooning splits them"))
    if plan.verdict == "excluded":
        return amounts
    return [
        *amounts,
        ("floor", format_bytes(plan.floor_bytes), "never below this"),
        ("minimum", format_bytes(plan.minimum_bytes), "use and the fixed headroom: never planned below"),
        ("wanted", format_bytes(plan.wanted_bytes), "minimum and the elastic headroom"),
        ("target", format_bytes(plan.target_bytes), "where its balloon is to end"),
    ]


def _outcome_lines(explanation: Explanation) -> list[str]:
    if not explanation.outcomes:
        if explanation.frozen:
            return ["nothing was done: the host is frozen (vmpack freeze --off ends that)"]
        if explanation.observe_only:
            return ["nothing was done: the agent only observes"]
        return ["nothing had to be done in this interval"]
    return [
        f"in this interval: {asked_words(outcome.action)}, {outcome_words(outcome)}"
        for outcome in explanation.outcomes
    ]
