"""`vmpack migrate VM HOST` by the cloud. Called by migrate.py where no libvirt is named."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from vmpack.cli import cloud_access
from vmpack.cli.safe_text import shown
from vmpack.errors import UsageError
from vmpack.model.codec import encode
from vmpack.units import format_seconds

if TYPE_CHECKING:
    from vmpack.clouds.cloud import Cloud
    from vmpack.model.cluster import CloudHost, CloudVm, MoveOutcome, MoveState

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130
TELL_EVERY_S = 5.0


def run(args: argparse.Namespace) -> int:
    """Move the VM. Raises CloudError before it is begun, UsageError for an unknown VM or host."""
    from vmpack.cli.migrate import StopSignals
    from vmpack.clock import SystemClock
    from vmpack.clouds.follow import carry_out

    _only_own_options(args)
    clock = SystemClock()
    cloud = cloud_access.cloud(cloud_access.configuration(args), clock)
    vm = cloud_access.vm_named(cloud.vms()[0], args.vm)
    host = cloud_access.host_named(cloud.hosts()[0], args.destination)
    if args.dry_run:
        return _try_dry(cloud, vm, host, args.json)
    view = _View(args.json)
    with StopSignals(clock.stop, "no longer watching; the cloud goes on with the migration") as signals:
        outcome = carry_out(cloud, vm, host, clock, args.timeout, view.show)
    if args.json:
        print(json.dumps(encode(outcome), indent=2))
    else:
        _tell(outcome)
    if outcome.status == "done":
        return 0
    return EXIT_INTERRUPTED if signals.received and outcome.status == "going_on" else EXIT_FAILED


def told(outcome: MoveOutcome) -> str:
    """What came of it, for people, in one sentence that is safe to print."""
    name, there, detail = _name(outcome.vm), shown(outcome.destination.name), shown(outcome.detail)
    if outcome.status == "done":
        return f"{name} runs on {there} now: took {format_seconds(outcome.elapsed_s)}"
    if outcome.status == "skipped":
        return f"{name} was not moved, nothing was begun: {detail}"
    if outcome.status == "failed":
        return f"{name} was not moved: {detail}"
    if outcome.status == "going_on":
        return f"{name} may still be on its way to {there}: {detail}"
    return f"{name}: where it is cannot be said for certain: {detail}"


def _only_own_options(args: argparse.Namespace) -> None:
    foreign = {
        "--bandwidth": args.bandwidth,
        "--max-downtime": args.max_downtime,
        "--migrate-uri": args.migrate_uri,
        "--copy-storage": args.copy_storage or None,
    }
    named = [option for option, value in foreign.items() if value is not None]
    if named:
        raise UsageError(
            f"{', '.join(named)} cannot be asked of the cloud",
            "leave it out, or name the other host's libvirt: qemu+tls://HOST/system",
        )
    if args.timeout <= 0:
        raise UsageError("--timeout leaves no time", "write for example 10min")


def _try_dry(cloud: Cloud, vm: CloudVm, host: CloudHost, as_json: bool) -> int:
    refusals = cloud.refusals(vm, host)
    if as_json:
        plan = {"vm": encode(vm), "destination": encode(host), "refusals": refusals}
        print(json.dumps(plan, indent=2))
    elif refusals:
        print(f"{_name(vm)} would not be moved to {shown(host.name)}:")
        for refusal in refusals:
            print(f"  {shown(refusal)}")
    else:
        print(f"{_name(vm)} would be moved to {shown(host.name)}; dry run, nothing was changed")
    return EXIT_FAILED if refusals else 0


def _tell(outcome: MoveOutcome) -> None:
    done = outcome.status == "done"
    out = sys.stdout if done else sys.stderr
    out.write(f"{'' if done else 'vmpack: '}{told(outcome)}\n")
    if outcome.hint:
        out.write(f"  {shown(outcome.hint)}\n")


def _name(vm: CloudVm) -> str:
    return f"{shown(vm.name)} ({vm.id})"


class _View:
    """A line now and then: oned does not tell how far it is."""

    def __init__(self, quiet: bool) -> None:
        self._next_s = float("inf") if quiet else 0.0

    def show(self, state: MoveState, elapsed_s: float) -> None:
        if elapsed_s < self._next_s:
            return
        self._next_s = elapsed_s + TELL_EVERY_S
        # A reader who went away is told of at the end.
        with suppress(BrokenPipeError):
            print(f"{shown(state.detail)}, {format_seconds(elapsed_s)}", flush=True)
