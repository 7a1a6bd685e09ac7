"""`vmpack release`: give a VM, or all of them, their memory back; without an agent too."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmpack.cli import agent_access
from vmpack.cli.action_text import asked_words, outcome_line
from vmpack.cli.safe_text import shown
from vmpack.decide.explain import words
from vmpack.errors import AgentBusyError, UnavailableError
from vmpack.model.codec import encode
from vmpack.units import format_bytes

if TYPE_CHECKING:
    from vmpack.config import Config
    from vmpack.host.messages import GivenBack
    from vmpack.model.plan import Plan

EXIT_STILL_PACKED = 3
DOES_NOT_FIT = "release_does_not_fit"

DESCRIPTION = """\
Give memory back now: one VM all that it was promised, and hold it; or --all VMs, put their
statistics periods back, and freeze the host so that nothing is packed again. Pins of vCPUs that vmpack
set come off, too. What the host cannot really hold stays packed, fairly, and is named with what would
clear it. Works with the agent dead."""

EPILOG = """\
examples:
  vmpack release web-1            everything back, then left alone until `vmpack hold web-1 --off`
  vmpack release --all --dry-run  what would be given back, and what would not fit
  vmpack release --all            everything back; `vmpack freeze --off` packs again

--json: given_bytes, outcomes [{action, status, detail, reached_bytes}], still_packed [{uuid, name,
packed_bytes, why, cure}], pins [{action, status, detail}]. With --dry-run: actions,
does_not_fit [{uuid, name, why, cure}].

exit code: 0 all given back, 1 something failed, 2 no such VM, 3 a part does not fit and stays
packed, 69 no libvirt, 75 an agent runs but does not answer here, 77 no permission."""


def add_parser(subparsers: Any) -> None:
    """Add the command to the tree."""
    parser = subparsers.add_parser(
        "release",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("vm", metavar="VM", nargs="?", help="the VM's name or uuid")
    which.add_argument("--all", action="store_true", help="every VM; freezes the host")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, change nothing")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--state-dir", type=Path, metavar="DIR", help="the agent's, when no agent answers")
    agent_access.add_arguments(parser, whole_host=True, any_libvirt=True)


def run(args: argparse.Namespace) -> int:
    """Release through the agent, or alone when none answers. Raises VmpackError when neither way is open."""
    if args.dry_run:
        plan = _look(args)
        print(json.dumps(plan_record(plan), indent=2) if args.json else "\n".join(plan_lines(plan)))
        return EXIT_STILL_PACKED if _unfit(plan) else 0
    try:
        given = agent_access.client(args).release(args.vm)
    except AgentBusyError:
        raise
    except UnavailableError:
        from vmpack.host.offline import release_offline

        given = release_offline(_configuration(args), args.vm)
    print(json.dumps(encode(given), indent=2) if args.json else "\n".join(given_lines(given, args.all)))
    if "failed" in [*(one.status for one in given.outcomes), *(one.status for one in given.pins)]:
        return 1
    return EXIT_STILL_PACKED if given.still_packed else 0


def given_lines(given: GivenBack, frozen: bool) -> list[str]:
    """What a release did, for people."""
    from vmpack.host.vcpu_loop import outcome_line as pin_line

    told = [outcome_line(outcome) for outcome in given.outcomes]
    told.append(f"given back: {format_bytes(given.given_bytes)}")
    told += [pin_line(pin) for pin in given.pins if pin.status != "done"]
    if given.pins:
        undone = sum(pin.status == "done" for pin in given.pins)
        told.append(f"pins of vCPUs taken off: {undone} of {len(given.pins)}")
    for left in given.still_packed:
        told.append(
            f"{shown(left.name)} stays packed by {format_bytes(left.packed_bytes)}: {shown(left.why)}"
        )
        told.append(f"  what would clear it: {shown(left.cure)}")
    if frozen:
        told.append("the host is frozen: `vmpack freeze --off` lets vmpack pack again")
    return told


def plan_lines(plan: Plan) -> list[str]:
    """What a release would do, for people."""
    told = [f"{shown(action.name)}: {asked_words(action)}" for action in plan.actions]
    for guest in _unfit(plan):
        why, cure = words(guest.reasons[-1])
        told += [f"{shown(guest.name)}: {shown(why)}", f"  what would clear it: {shown(cure)}"]
    return [
        "dry run, nothing was changed; a release would do:",
        *(told or ["nothing: there is nothing to give back"]),
    ]


def plan_record(plan: Plan) -> dict[str, Any]:
    """What a release would do, in the documented JSON form."""
    unfit = []
    for guest in _unfit(plan):
        why, cure = words(guest.reasons[-1])
        unfit.append({"uuid": guest.uuid, "name": guest.name, "why": why, "cure": cure})
    return {"actions": encode(plan.actions), "does_not_fit": unfit}


def _unfit(plan: Plan) -> list[Any]:
    return [guest for guest in plan.guests if guest.reasons and guest.reasons[-1].rule == DOES_NOT_FIT]


def _look(args: argparse.Namespace) -> Plan:
    """The release's plan, from the agent's newest interval, else from a look of our own."""
    from vmpack.decide.release import plan_release
    from vmpack.host.service import find_vm

    try:
        interval = agent_access.client(args).status().interval
    except UnavailableError:
        from vmpack.host.offline import preview_release

        return preview_release(_configuration(args), args.vm)
    if interval is None:
        raise UnavailableError("no interval went through yet", "try again in a moment")
    uuids = None if args.vm is None else frozenset({find_vm(interval.snapshot, args.vm).uuid})
    settings = agent_access.configuration(args).settings
    return plan_release(interval.snapshot, interval.plan.remembered, settings, uuids)


def _configuration(args: argparse.Namespace) -> Config:
    from vmpack.config import override

    state_dir = None if args.state_dir is None else str(args.state_dir.absolute())
    return override(agent_access.configuration(args), {"agent.state_dir": state_dir})
