"""`vmpack migrate VM DESTINATION`: move one running VM to another host, by libvirt or by the cloud."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from vmpack.cli import agent_access
from vmpack.cli.amounts import duration_s, rate_bytes_per_s
from vmpack.cli.safe_text import shown
from vmpack.errors import UsageError
from vmpack.model.codec import encode
from vmpack.model.migration import Migrate, MigrationOutcome
from vmpack.units import MIB, format_bytes, format_seconds

if TYPE_CHECKING:
    from vmpack.act.migration import Migrator

EXIT_FAILED = 1
EXIT_WARNED = 3
EXIT_INTERRUPTED = 130

DESCRIPTION = """\
Move one running VM to another host while it runs. Both hosts are looked at before, and again after:
what is said in the end is what they show. When the time budget ends, or with Ctrl-C, the migration is
aborted and the VM goes on where it is. Its balloon, statistics period and policy go with it, and so
does its lasting definition.

DESTINATION is the libvirt of the other host, as this host reaches it (qemu+tls://HOST/system). The two
libvirts move the VM between themselves; it needs no agent on either side, and agents leave the VM alone
meanwhile. Under a cloud never use that: its books would be wrong.

A DESTINATION without `://` is a host of the cloud: the cloud moves the VM, live or not at all. What would
be refused is told before; success is told by the VM's history. The cloud cannot abort: past the time
budget, or with Ctrl-C, the watching ends and it is said what goes on."""

EPILOG = """\
examples:
  vmpack migrate web-1 qemu+tls://host-b/system --dry-run    would it go? changes nothing
  vmpack migrate web-1 qemu+tls://host-b/system              move it, within 10 minutes
  vmpack migrate db-1 qemu+ssh://host-b/system --bandwidth 100MiB/s --timeout 1h
  vmpack migrate db-1 qemu+tls://host-b/system --migrate-uri tcp://10.0.7.2
                                                             memory over another network
  vmpack migrate web-1 qemu+tls://host-b/system --copy-storage
                                                             its disks are local: copy them too
  vmpack migrate 42 node-b --dry-run                         by the cloud, on its front-end: VM 42 to node-b

A guest that changes its memory faster than it can be sent is held up more and more until it fits;
the progress line shows that. More --bandwidth, --timeout or --max-downtime help.

--json: action, status (done, skipped, failed, aborted, unclear), detail, hint, source and destination
(running, paused, stopped, absent, unreachable; null when nothing was begun), elapsed_s, downtime_ms,
moved_bytes, balloon_before_bytes, balloon_bytes, warnings. With --dry-run: action, refusals.
By the cloud: vm, destination, status (done, skipped, failed, going_on, unclear), detail, hint, elapsed_s.

exit code: 0 moved (or would be), 1 not moved or unclear, 2 no such VM, 3 moved with warnings, 69 no
libvirt here, 77 no permission, 130 interrupted and still here."""


def add_parser(subparsers: Any) -> None:
    """Add the command to the tree."""
    parser = subparsers.add_parser(
        "migrate",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("vm", metavar="VM", help="the VM's name or uuid")
    parser.add_argument(
        "destination", metavar="DESTINATION", help="the other host's libvirt, or a host of the cloud"
    )
    parser.add_argument(
        "--timeout", type=duration_s, default=600.0, metavar="TIME", help="abort after this (default 10min)"
    )
    parser.add_argument(
        "--bandwidth", type=rate_bytes_per_s, metavar="RATE", help="take at most this: 100MiB/s (default all)"
    )
    parser.add_argument(
        "--max-downtime", type=duration_s, metavar="TIME", help="let it stand still so long: 500ms"
    )
    parser.add_argument("--migrate-uri", metavar="URI", help="where its memory goes: tcp://10.0.7.2")
    parser.add_argument("--copy-storage", action="store_true", help="copy disks that are not shared")
    parser.add_argument("--dry-run", action="store_true", help="only look whether it would go")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--connect", metavar="URI", help="the libvirt it runs on (default: configured)")
    parser.add_argument("--config", type=Path, metavar="FILE", help="the agent's own configuration file")


def run(args: argparse.Namespace) -> int:
    """Migrate and say what came of it. Raises UsageError for an unknown VM or amounts that cannot be."""
    if "://" not in args.destination and args.connect is None:
        from vmpack.cli import migrate_cloud

        return migrate_cloud.run(args)
    from vmpack.act.migration import Migrator
    from vmpack.clock import SystemClock

    source_uri = agent_access.configuration(args).connect_uri
    action = _action(args, source_uri)
    clock = SystemClock()
    migrator = Migrator(source_uri, clock)
    if args.dry_run:
        return _try_dry(migrator, action, args.json)
    with StopSignals(clock.stop, "aborting: the VM stays where it is") as signals:
        outcome = _carry_out(migrator, action, quiet=args.json)
    if args.json:
        print(json.dumps(encode(outcome), indent=2))
    else:
        _tell(outcome)
    if outcome.status == "done":
        return EXIT_WARNED if outcome.warnings else 0
    return EXIT_INTERRUPTED if signals.received and outcome.status != "unclear" else EXIT_FAILED


def told(outcome: MigrationOutcome) -> str:
    """What came of a migration, for people, in one sentence that is safe to print."""
    name, there = shown(outcome.action.name), shown(outcome.action.destination_uri)
    if outcome.status == "done":
        parts = [f"took {format_seconds(outcome.elapsed_s)}"]
        if outcome.moved_bytes is not None:
            parts.append(f"moved {format_bytes(outcome.moved_bytes)}")
        if outcome.downtime_ms is not None:
            parts.append(f"stood still for {outcome.downtime_ms} ms")
        if outcome.balloon_bytes is not None:
            nominal = format_bytes(outcome.action.nominal_bytes)
            parts.append(f"has {format_bytes(outcome.balloon_bytes)} of {nominal}")
        return f"{name} is at {there} now: {', '.join(parts)}"
    detail = shown(outcome.detail)
    if outcome.status == "skipped":
        return f"{name} was not moved, nothing was begun: {detail}"
    if outcome.status == "unclear":
        return f"{name}: where it is cannot be said for certain: {detail}"
    word = "runs" if outcome.source == "running" else "is"
    return f"{name} was not moved and {word} here as before: {detail}"


def _action(args: argparse.Namespace, source_uri: str) -> Migrate:
    from vmpack.act.migration_vm import find_migrant
    from vmpack.hypervisor import Hypervisor

    if args.bandwidth is not None and args.bandwidth < MIB:
        raise UsageError("--bandwidth is less than 1 MiB/s", "libvirt counts it in whole MiB/s")
    if args.timeout <= 0:
        raise UsageError("--timeout leaves no time", "write for example 10min")
    downtime_ms = None if args.max_downtime is None else round(args.max_downtime * 1000)
    if downtime_ms is not None and downtime_ms < 1:
        raise UsageError("--max-downtime is less than 1 ms", "write for example 500ms")
    hypervisor = Hypervisor(source_uri)
    try:
        uuid, name, nominal_bytes = find_migrant(hypervisor, args.vm)
    finally:
        hypervisor.close()
    return Migrate(
        uuid,
        name,
        args.destination,
        nominal_bytes,
        timeout_s=args.timeout,
        bandwidth_bytes_per_s=args.bandwidth,
        max_downtime_ms=downtime_ms,
        migrate_uri=args.migrate_uri,
        with_storage=args.copy_storage,
    )


def _try_dry(migrator: Migrator, action: Migrate, as_json: bool) -> int:
    refusals = migrator.refusals(action)
    name, there = shown(action.name), shown(action.destination_uri)
    if as_json:
        print(json.dumps({"action": encode(action), "refusals": refusals}, indent=2))
    elif refusals:
        print(f"{name} would not be moved to {there}:")
        for refusal in refusals:
            print(f"  {shown(refusal)}")
    else:
        print(f"{name} would be moved to {there}; dry run, nothing was changed")
    return EXIT_FAILED if refusals else 0


def _carry_out(migrator: Migrator, action: Migrate, quiet: bool) -> MigrationOutcome:
    if quiet:
        return migrator.carry_out(action)
    from vmpack.cli.migrate_progress import progress_view

    with progress_view(action) as view:
        return migrator.carry_out(action, view.show)


def _tell(outcome: MigrationOutcome) -> None:
    out = sys.stdout if outcome.status == "done" else sys.stderr
    prefix = "" if outcome.status == "done" else "vmpack: "
    out.write(f"{prefix}{told(outcome)}\n")
    if outcome.hint:
        out.write(f"  {shown(outcome.hint)}\n")
    for warning in outcome.warnings:
        out.write(f"  warning: {shown(warning)}\n")


class StopSignals:
    """Ctrl-C, an ending terminal and a kind kill stop the work in an orderly way, and say `words`."""

    def __init__(self, stop: Callable[[], None], words: str) -> None:
        self.received = False
        self._words = words
        self._stop = stop
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        if not self.received:
            os.write(2, f"\n{self._words}\n".encode())
        self.received = True
        self._stop()
