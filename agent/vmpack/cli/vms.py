"""`vmpack vms`: the cloud's VMs, what is packed and what not, and what their owners asked for."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from vmpack.cli import cloud_access
from vmpack.cli.policy_text import policy_words
from vmpack.cli.safe_text import shown
from vmpack.errors import UsageError
from vmpack.model.codec import encode
from vmpack.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from vmpack.model.cluster import CloudVm, GuestReport

EXIT_WARNINGS = 3

DESCRIPTION = """\
Show the cloud's VMs: how much memory each was promised and has, why one is left alone, what its owner
asked for and what its guest reports. With --sync what owners ask for is told to the agents of the
hosts (by ssh), and what holds is told to the owners, who see it in `onevm show`; only what changed. What
was told of a VM that is now on a host without vmpack is taken back."""

EPILOG = """\
examples:
  vmpack vms                       all
  vmpack vms 42 web-1              these, by id or name
  vmpack vms --sync --dry-run      what would be told to whom
  vmpack vms --sync                tell it

what an owner may set in the VM's attributes (USER_TEMPLATE), under OpenNebula:
  VMPACK_FLOOR     never less than this: 512MiB; a plain number is MiB
  VMPACK_HEADROOM  kept above use, as a share of it: 30% (or MEM_OVER, in percent)
  MIN_FREE_MEM     the least that is kept above use, in KiB
  VMPACK_SHARES    weight under scarcity, at most opennebula.shares_max
  VMPACK_OPT_OUT   yes: leave the VM alone
What an administrator has set for the VM (vmpack policy) holds instead; a floor or headroom below the host's
own counts as the host's. What holds is in VMPACK_APPLIED_*: FLOOR, MIN_FREE and TARGET in KiB, MEM_OVER in
percent, SHARES, OPT_OUT, POLICY (1: all that the owner asked for) and FAULT (what does not hold, and why).

--json: vms [{id, name, domain, state, running, host_id, host_name, nominal_bytes, balloon_bytes,
verdict, left_alone, policy, policy_named, policy_faults, policy_unclear, told, report {total_bytes,
available_bytes, free_bytes, age_s} or null}], faults. With --sync: vms [{id, name, policy, told,
status (done, planned, failed), detail}], faults.

exit code: 0 ok, 2 no such VM, 3 something could not be read or told, 69 no answer from the cloud, 77
no permission."""


def add_parser(subparsers: Any) -> None:
    """Add the command to the tree."""
    parser = subparsers.add_parser(
        "vms", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("vms", metavar="VM", nargs="*", help="id, libvirt name or name (default: all)")
    parser.add_argument("--sync", action="store_true", help="tell agents and owners what changed")
    parser.add_argument("--dry-run", action="store_true", help="with --sync: only say what would be told")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    cloud_access.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Show or sync. Raises CloudError, UnavailableError, UsageError for an unknown VM."""
    from vmpack.clock import SystemClock

    if args.dry_run and not args.sync:
        raise UsageError("--dry-run belongs to --sync", "without --sync nothing is changed anyway")
    cloud = cloud_access.cloud(cloud_access.configuration(args), SystemClock())
    everyone, unread = cloud.vms()
    chosen = [cloud_access.vm_named(everyone, word) for word in args.vms] or list(everyone)
    faults = list(unread)
    if args.sync:
        from vmpack.cli import vms_sync

        return vms_sync.run(cloud, chosen, faults, dry_run=args.dry_run, as_json=args.json)
    if args.json:
        print(json.dumps({"vms": [encode(vm) for vm in chosen], "faults": faults}, indent=2))
    else:
        _show(chosen)
        for fault in faults:
            sys.stderr.write(f"vmpack: {shown(fault)}\n")
    return EXIT_WARNINGS if faults else 0


def report_words(report: GuestReport | None) -> str:
    """What a guest reported, with its age."""
    if report is None:
        return "-"
    age = "of unknown age" if report.age_s is None else f"{format_seconds(report.age_s)} old"
    return f"{format_bytes(report.available_bytes)} available, {age}"


def _show(vms: list[CloudVm]) -> None:
    import time

    from rich import box
    from rich.table import Table

    from vmpack.cli.screen import ascii_only, console

    screen = console()
    if not vms:
        screen.print("the cloud has no VMs that this user may see")
        return
    table = Table(box=box.ASCII if ascii_only(screen) else box.SIMPLE_HEAD)
    table.add_column("id", justify="right", no_wrap=True)
    for title in ("name", "state", "host"):
        table.add_column(title)
    for title in ("nominal", "balloon"):
        table.add_column(title, justify="right", no_wrap=True)
    for title in ("agent", "guest says", "owner asks"):
        table.add_column(title)
    for vm in vms:
        table.add_row(
            vm.id,
            shown(vm.name),
            shown(vm.state),
            shown(vm.host_name) or "-",
            format_bytes(vm.nominal_bytes),
            "-" if vm.balloon_bytes is None else format_bytes(vm.balloon_bytes),
            shown(vm.verdict) or "-",
            report_words(vm.report),
            policy_words(vm.policy, time.time()) or "-",
        )
    screen.print(table)
    for vm in vms:
        for line in (*(f"left alone: {why}" for why in vm.left_alone if vm.running), *vm.policy_faults):
            screen.print(f"{shown(vm.name)} ({vm.id}): {shown(line)}")
