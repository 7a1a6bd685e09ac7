"""`vmpack opennebula convert HOST`: change a live host's drivers to vmpack's, or back."""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

from vmpack.cli import cloud_access
from vmpack.cli.amounts import duration_s
from vmpack.cli.safe_text import shown

if TYPE_CHECKING:
    from vmpack.clouds.opennebula_convert import ConversionPlan

DESCRIPTION = """\
Change the drivers of a live OpenNebula host: its VMs run on. The host goes offline for some seconds,
gets the other IM_MAD and VM_MAD, is enabled again, and is waited for until OpenNebula monitors it. When
that fails, or with Ctrl-C, it gets its old drivers back.

A VM keeps the VMM driver that its record names until it is moved to another host, or stopped or
undeployed and resumed: VMs that were started by `kvm` are packed, but their actions run the stock
scripts. They stay usable, because both drivers stay registered.

Run it on the front-end as oneadmin, after ./install.sh opennebula and, on the node, --node."""

EPILOG = """\
examples:
  vmpack opennebula convert node-a --dry-run       would it go? changes nothing
  vmpack opennebula convert node-a                 to vmpack/vmpack
  vmpack opennebula convert node-a --vm-mad kvm    monitoring by vmpack, VMs by kvm: keeps Sunstone's buttons
  vmpack opennebula convert node-a --back          to the drivers that it had before

--json: host, status (done, nothing, failed, refused, planned), im_mad, vm_mad (as they are now), detail,
vms (id, vm_mad).

exit code: 0 done or nothing to do, 1 refused, or failed and put back, 2 no such host, 69 no answer from
oned, 77 no permission."""


def add_parser(subparsers: Any) -> None:
    """Add the command to the tree."""
    parser = subparsers.add_parser(
        "opennebula",
        description="Work on OpenNebula itself.",
        epilog="example:\n  vmpack opennebula convert --help    all about a live host's drivers",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    convert = actions.add_parser(
        "convert",
        help="change a live host's drivers to vmpack's, or back",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    convert.add_argument("host", metavar="HOST", help="the host's name or number")
    way = convert.add_mutually_exclusive_group()
    way.add_argument("--back", action="store_true", help="to the drivers that it had before")
    way.add_argument(
        "--vm-mad", default="vmpack", metavar="NAME", help="another VM_MAD: kvm (default vmpack)"
    )
    convert.add_argument(
        "--timeout", type=duration_s, default=300.0, metavar="TIME", help="wait so long for it (default 5min)"
    )
    convert.add_argument("--dry-run", action="store_true", help="only say what would be done")
    convert.add_argument("--json", action="store_true", help="print one JSON object")
    cloud_access.add_arguments(convert)


def run(args: argparse.Namespace) -> int:
    """Convert one host. Raises UsageError for an unknown one, CloudError, UnavailableError without pyone."""
    from vmpack.clock import SystemClock
    from vmpack.clouds import opennebula_access, opennebula_convert
    from vmpack.clouds.opennebula_client import OpenNebulaClient

    access = cloud_access.configuration(args).opennebula
    wanted = None
    if not args.back:
        wanted = opennebula_convert.Drivers("vmpack", opennebula_convert.checked_name(args.vm_mad))
    client = OpenNebulaClient(opennebula_access.login(access), access.timeout_s)
    converter = opennebula_convert.Converter(client, SystemClock(), _tell)
    plan = converter.plan(args.host, wanted)
    if plan.refusals or args.dry_run:
        return _say_plan(plan, args.json)
    _end_in_order()
    done = converter.carry_out(plan, args.timeout)
    if args.json:
        print(_json(plan, done.status, done.detail, done.now.im_mad, done.now.vm_mad))
    elif done.status != "failed":
        print(f"{shown(done.host)} has the drivers {shown(str(done.now))}: {shown(done.detail)}")
        _say_vms(plan)
    if done.status == "failed" and not args.json:
        raise opennebula_convert.failure(done)
    return 1 if done.status == "failed" else 0


def _end_in_order() -> None:
    """A stop, or a closed terminal, is as Ctrl-C; a second one does not disturb what puts things back."""
    stops = [
        number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) != signal.SIG_IGN
    ]

    def end(_number: int, _frame: object) -> None:
        for number in stops:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in stops:
        signal.signal(number, end)


def _tell(text: str) -> None:
    # A terminal that is closed must not end what puts the drivers back.
    with contextlib.suppress(OSError):
        print(shown(text), file=sys.stderr, flush=True)


def _say_plan(plan: ConversionPlan, as_json: bool) -> int:
    status = "refused" if plan.refusals else "planned" if plan.needed else "nothing"
    if as_json:
        print(_json(plan, status, "; ".join(plan.refusals), plan.now.im_mad, plan.now.vm_mad))
    elif plan.refusals:
        for refusal in plan.refusals:
            print(f"{shown(plan.host.name)} cannot be converted: {shown(refusal)}")
    elif not plan.needed:
        print(f"{shown(plan.host.name)} has the drivers {shown(str(plan.now))} already")
    else:
        print(f"{shown(plan.host.name)} would go from {shown(str(plan.now))} to {shown(str(plan.wanted))}")
        _say_vms(plan)
    return 1 if plan.refusals else 0


def _say_vms(plan: ConversionPlan) -> None:
    for driver, count in sorted(Counter(driver for _, driver in plan.vms).items()):
        print(
            f"  {count} VM{'' if count == 1 else 's'} on it: actions by the driver {shown(driver)}, as before"
        )


def _json(plan: ConversionPlan, status: str, detail: str, im_mad: str, vm_mad: str) -> str:
    return json.dumps(
        {
            "host": plan.host.name,
            "status": status,
            "im_mad": im_mad,
            "vm_mad": vm_mad,
            "detail": detail,
            "vms": [{"id": vm_id, "vm_mad": driver} for vm_id, driver in plan.vms],
        },
        indent=2,
    )
