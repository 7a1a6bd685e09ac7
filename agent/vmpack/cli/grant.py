"""`vmpack grant`: let the cloud's scheduler use the memory that its hosts have packed; one pass."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vmpack.cli import cloud_access
from vmpack.cli.safe_text import shown
from vmpack.errors import CloudError, ConfigError, VmpackError
from vmpack.units import format_bytes

if TYPE_CHECKING:
    from vmpack.clouds.cloud import Cloud
    from vmpack.model.cluster import GrantPlan
    from vmpack.model.settings import GrantSettings

EXIT_FAILED = 1
EXIT_WARNINGS = 3

DESCRIPTION = """\
Tell the cloud's scheduler how much more it may place on each host, from what the host's agent offers
(asked by ssh). Under OpenNebula that is the host's RESERVED_MEM; the administrator's own value is kept
and counted in, and --off puts it back. A host whose agent does not answer, is frozen, only observes or
has old data gets its grant withdrawn. Lowered at once, raised in steps (grant.step_bytes) and not soon
after the last change (grant.calm_s), never beyond grant.factor x packed.

One pass: run it from cron or a timer every minute until the cluster manager does it. Runs on the
front-end as oneadmin."""

EPILOG = """\
examples:
  vmpack grant --dry-run           what would be granted, and why
  vmpack grant                     all hosts of vmpack's
  vmpack grant node-a              this one
  vmpack grant --off               take every grant back: RESERVED_MEM is the administrator's again

--json: hosts [{id, name, own_bytes, promised_bytes, before_bytes, granted_bytes, status (written,
kept, planned, failed), reason}], faults. before_bytes is null where nothing was granted.

exit code: 0 ok, 1 no grant could be written, 2 no such host, 3 some could not be written or read,
69 no answer from the cloud, 77 no permission, 78 grants go another way (grant.via): all are taken back."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one host's plan."""

    plan: GrantPlan
    status: str
    detail: str = ""


def add_parser(subparsers: Any) -> None:
    """Add the command to the tree."""
    parser = subparsers.add_parser(
        "grant", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("hosts", metavar="HOST", nargs="*", help="name or id (default: all of vmpack's)")
    parser.add_argument("--off", action="store_true", help="take the grants back")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    cloud_access.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Grant. Raises CloudError, UnavailableError, ConfigError, UsageError for an unknown host."""
    from vmpack.clock import SystemClock

    config, clock = cloud_access.configuration(args), SystemClock()
    elsewhere = config.grant.via != "reserved" and not args.off
    cloud = cloud_access.cloud(config, clock)
    if args.off or elsewhere:
        plans, faults = _withdrawals(args, cloud, "switched off" if args.off else "grant.via is another")
    else:
        plans, faults = _plans(args, cloud, config.grant, clock.wall_s())
    results = _pass(cloud, plans, args.dry_run)
    if args.json:
        print(json.dumps({"hosts": [_record(result) for result in results], "faults": faults}, indent=2))
    else:
        _tell(results)
        for fault in faults:
            sys.stderr.write(f"vmpack: {shown(fault)}\n")
    if elsewhere:
        raise ConfigError(
            f"grant.via is {config.grant.via!r}: the hosts' probes raise TOTALMEMORY, so nothing is granted",
            'set grant.via = "reserved" here and on the hosts for grants by RESERVED_MEM',
        )
    failed = [result for result in results if result.status == "failed"]
    if failed and not any(result.status == "written" for result in results):
        return EXIT_FAILED
    return EXIT_WARNINGS if failed or faults else 0


def _withdrawals(args: argparse.Namespace, cloud: Cloud, why: str) -> tuple[list[GrantPlan], list[str]]:
    """Every grant goes; and what could not be read."""
    from vmpack.decide.grant import plan_withdrawal

    hosts, faults = cloud.hosts()
    return [plan_withdrawal(host, why) for host in cloud_access.chosen_hosts(hosts, args.hosts)], list(faults)


def _plans(
    args: argparse.Namespace, cloud: Cloud, settings: GrantSettings, now_s: float
) -> tuple[list[GrantPlan], list[str]]:
    """What shall be granted, and what could not be read.

    Agents first, then the cloud: a VM that is placed in between is on its way, not overlooked. Where the
    cloud's VMs cannot be read grants can still be lowered.
    """
    from vmpack.decide.grant import plan_grant
    from vmpack.model.cluster import NoReport

    hosts = cloud_access.chosen_hosts(cloud.hosts()[0], args.hosts)
    answers = cloud_access.agents_of(hosts)
    nominals, faults = _nominals(cloud)
    present, more = cloud.hosts()
    newest = {host.id: host for host in present}
    asked = [newest[host.id] for host in hosts if host.id in newest]
    standing = [host for host in asked if host.granted_bytes is not None]
    faults += [*more, *(f"{host.name}: {host.fault}" for host in standing if host.fault)]
    unknown = NoReport("it was not asked")
    plans = [plan_grant(host, nominals, answers.get(host.name, unknown), settings, now_s) for host in asked]
    return plans, faults


def _nominals(cloud: Cloud) -> tuple[dict[str, int] | None, list[str]]:
    """What each VM was promised, by libvirt name or UUID; None where nobody tells."""
    try:
        vms, faults = cloud.vms()
    except CloudError as error:
        return None, [f"the cloud's VMs cannot be read, so nothing is raised: {error.message}"]
    return {vm.domain: vm.nominal_bytes for vm in vms}, list(faults)


def _pass(cloud: Cloud, plans: list[GrantPlan], dry_run: bool) -> list[Result]:
    """Carry the plans out; what is lowered comes first, and one host's failure costs no other."""
    results = []
    for plan in sorted(plans, key=lambda plan: plan.granted_bytes > (plan.host.granted_bytes or 0)):
        if not plan.write:
            results.append(Result(plan, "kept"))
        elif dry_run:
            results.append(Result(plan, "planned"))
        else:
            results.append(_written(cloud, plan))
    return sorted(results, key=lambda result: result.plan.host.name)


def _written(cloud: Cloud, plan: GrantPlan) -> Result:
    try:
        cloud.grant(plan.host, plan.granted_bytes)
    except VmpackError as error:
        return Result(plan, "failed", str(error))
    return Result(plan, "written")


def _record(result: Result) -> dict[str, Any]:
    host = result.plan.host
    return {
        "id": host.id,
        "name": host.name,
        "own_bytes": host.base_bytes,
        "promised_bytes": host.promised_bytes,
        "before_bytes": host.granted_bytes,
        "granted_bytes": result.plan.granted_bytes,
        "status": result.status,
        "reason": result.detail or result.plan.reason,
    }


def _tell(results: list[Result]) -> None:
    if not results:
        print("no host of vmpack's, and none with a grant; name hosts, or see `vmpack hosts`")
    for result in results:
        plan = result.plan
        before = "nothing" if plan.host.granted_bytes is None else format_bytes(plan.host.granted_bytes)
        name, size, why = shown(plan.host.name), format_bytes(plan.granted_bytes), shown(plan.reason)
        if result.status == "failed":
            sys.stderr.write(f"vmpack: {name}: not written, {before} as before: {shown(result.detail)}\n")
        elif result.status == "kept":
            print(f"{name}: {size} granted; {why}")
        else:
            would = "would go" if result.status == "planned" else "went"
            print(f"{name}: {would} from {before} to {size} granted; {why}")
