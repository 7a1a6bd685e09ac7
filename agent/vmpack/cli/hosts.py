"""`vmpack hosts`: the cloud's hosts, with what each has promised, packed and been granted."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from vmpack.cli import cloud_access
from vmpack.cli.safe_text import shown
from vmpack.units import format_bytes

if TYPE_CHECKING:
    from vmpack.model.cluster import AgentAnswer, CloudHost

EXIT_WARNINGS = 3

DESCRIPTION = """\
Show the cloud's hosts as its scheduler sees them, and what the agents of vmpack's hosts say (asked by
ssh from here). Changes nothing; runs on the front-end as oneadmin, and needs no libvirt there."""

EPILOG = """\
examples:
  vmpack hosts                   all hosts
  vmpack hosts node-a node-b     these, and their agents also when they are not vmpack's yet
  vmpack hosts --json            the same for programs

words: own is what the scheduler would use without vmpack, promised the nominals of the VMs placed
there, granted what vmpack added for the scheduler (`vmpack grant`), free what the scheduler takes for
free now; packed and offered are what the host's agent says.

--json: hosts [{id, name, state (up, disabled, down), cluster, managed, total_bytes, own_bytes,
promised_bytes, granted_bytes, free_bytes, reserved, vms [domain], fault, notes, agent {state, stale,
packed_bytes, offered_bytes, version} or {fault} or null}], faults. granted_bytes is null without a grant.

exit code: 0 ok, 2 no such host, 3 something could not be read, 69 no answer from the cloud, 77 no
permission."""


def add_parser(subparsers: Any) -> None:
    """Add the command to the tree."""
    parser = subparsers.add_parser(
        "hosts", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("hosts", metavar="HOST", nargs="*", help="name or id (default: all)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    cloud_access.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Print the hosts. Raises CloudError, UnavailableError, UsageError for an unknown host."""
    from vmpack.clock import SystemClock

    cloud = cloud_access.cloud(cloud_access.configuration(args), SystemClock())
    everyone, faults = cloud.hosts()
    named = [cloud_access.host_named(everyone, word) for word in args.hosts]
    listed = list(dict.fromkeys(named)) or list(everyone)
    answers = cloud_access.agents_of(host for host in listed if named or host.managed)
    if args.json:
        records = [_record(host, answers.get(host.name)) for host in listed]
        print(json.dumps({"hosts": records, "faults": list(faults)}, indent=2))
    else:
        _show(listed, answers)
        for fault in faults:
            sys.stderr.write(f"vmpack: {shown(fault)}\n")
    return EXIT_WARNINGS if faults else 0


def agent_words(answer: AgentAnswer | None) -> str:
    """What an agent says of itself, in a word or a reason."""
    from vmpack.model.cluster import NoReport

    if answer is None:
        return "-"
    if isinstance(answer, NoReport):
        return shown(answer.why, 60)
    return f"{answer.state}, old data" if answer.stale else answer.state


def _record(host: CloudHost, answer: AgentAnswer | None) -> dict[str, Any]:
    from vmpack.model.cluster import NoReport

    agent: dict[str, Any] | None = None
    if isinstance(answer, NoReport):
        agent = {"fault": answer.why}
    elif answer is not None:
        agent = {
            "state": answer.state,
            "stale": answer.stale,
            "packed_bytes": answer.packed_bytes,
            "offered_bytes": answer.offered_bytes,
            "version": answer.version,
        }
    return {
        "id": host.id,
        "name": host.name,
        "state": host.state,
        "cluster": host.cluster,
        "managed": host.managed,
        "total_bytes": host.total_bytes,
        "own_bytes": host.base_bytes,
        "promised_bytes": host.promised_bytes,
        "granted_bytes": host.granted_bytes,
        "free_bytes": host.capacity_bytes - host.promised_bytes,
        "reserved": host.base_words,
        "vms": list(host.domains),
        "fault": host.fault or None,
        "notes": list(host.notes),
        "agent": agent,
    }


def _show(hosts: list[CloudHost], answers: dict[str, AgentAnswer]) -> None:
    from rich import box
    from rich.table import Table

    from vmpack.cli.screen import ascii_only, console
    from vmpack.model.cluster import AgentReport

    screen = console()
    if not hosts:
        screen.print("the cloud has no hosts")
        return
    table = Table(box=box.ASCII if ascii_only(screen) else box.SIMPLE_HEAD)
    for title in ("host", "state"):
        table.add_column(title)
    for title in ("own", "promised", "granted", "free", "packed", "offered"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("agent")
    for host in hosts:
        answer = answers.get(host.name)
        report = answer if isinstance(answer, AgentReport) else None
        table.add_row(
            shown(host.name),
            host.state if host.managed else f"{host.state}, not vmpack's",
            format_bytes(host.base_bytes),
            format_bytes(host.promised_bytes),
            "-" if host.granted_bytes is None else format_bytes(host.granted_bytes),
            format_bytes(host.capacity_bytes - host.promised_bytes),
            "-" if report is None else format_bytes(report.packed_bytes),
            "-" if report is None else format_bytes(report.offered_bytes),
            agent_words(answer),
        )
    screen.print(table)
    for host in hosts:
        for line in (*filter(None, (host.fault,)), *(host.notes if host.managed else ())):
            screen.print(f"{shown(host.name)}: {shown(line)}")
