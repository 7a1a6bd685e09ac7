"""`vmpack lab`: make, load and end tiny real guests under a libvirt of their own."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from vmpack.cli import lab_pair
from vmpack.cli.agent_access import LAB_ADDRESS
from vmpack.cli.amounts import memory_bytes
from vmpack.cli.lab_list import guest_record, print_guests
from vmpack.cli.lab_options import DEFAULT_NAME, add_verb, guest_count, name_option
from vmpack.cli.main import EXIT_INTERRUPTED
from vmpack.cli.safe_text import shown
from vmpack.errors import UsageError
from vmpack.units import format_bytes, format_seconds, parse_rate

if TYPE_CHECKING:
    from vmpack.lab.guest_spec import GuestSpec
    from vmpack.lab.lab import Lab, LabGuest

EXIT_WARNED = 3

_DESCRIPTION = """\
Tiny real guests (QEMU, with or without KVM) under a private libvirt, to see and test packing without
touching anybody's VMs. Needs QEMU and libvirt's daemon; root or an ordinary user; nothing is installed and
the system's own libvirt is left alone.

examples:
  vmpack lab up                                  four guests of 128 MiB
  vmpack lab load g1 --memory 60MiB --rate 10MiB/s
  vmpack lab load g1 --free
  vmpack lab exec g1 cat /proc/meminfo
  memory_coordinator 2 --connect lab
  vmpack lab down                                ends all of it
  vmpack lab pair up                             two hosts, to migrate guests between them
"""
_UP = """\
Start the lab, or add the guests it lacks, and wait until all have booted. They are called g1, g2, ... and
run until `vmpack lab down`. Guests that run already keep what they were started with (exit code 3 when the
options ask for something else). After Ctrl-C what was started stays.

examples:
  vmpack lab up
  vmpack lab up --guests 2 --memory 256MiB --autodeflate
  vmpack lab up --name other --guests 1
"""
_EXEC = """\
Run a command in a guest; its exit code is ours, its output (errors included) comes on standard output.

examples:
  vmpack lab exec g1 free -m
  vmpack lab exec g1 sh -c 'dmesg | tail'
"""
_LOAD = """\
Make a guest use memory or CPU, from inside. Loads add up until they are ended.

examples:
  vmpack lab load g1 --memory 60MiB               at once, in a file system in memory
  vmpack lab load g1 --memory 60MiB --rate 10MiB/s
  vmpack lab load g1 --memory 60MiB --anonymous   the guest's OOM killer may take this
  vmpack lab load g1 --cpu 1                      one busy loop
  vmpack lab load g1 --free                       end every load
  vmpack lab load g1                              show the loads
"""


def add_parser(subparsers: Any) -> None:
    """Register the command and its verbs."""
    parser = add_verb(subparsers, "lab", "make and load tiny real guests", _DESCRIPTION)
    verbs = parser.add_subparsers(title="verbs", dest="verb", required=True, metavar="VERB")
    up = add_verb(verbs, "up", "start the lab, or the guests it lacks", _UP)
    up.add_argument("--guests", type=guest_count, default=4, metavar="N", help="how many (default: 4)")
    up.add_argument("--memory", type=memory_bytes, metavar="SIZE", help="of each (default: 128MiB)")
    up.add_argument("--vcpus", type=guest_count, metavar="N", help="of each (default: 2)")
    up.add_argument(
        "--autodeflate",
        action="store_const",
        const=True,
        help="let the balloon give way before the guest's OOM killer acts",
    )
    up.add_argument(
        "--no-free-page-reporting",
        action="store_const",
        const=False,
        dest="free_page_reporting",
        help="keep what a guest frees until it is ballooned",
    )
    for verb, what in (
        ("list", "show the guests"),
        ("uri", "print libvirt's address"),
        ("down", "end the lab"),
    ):
        add_verb(verbs, verb, what, what[0].upper() + what[1:] + ".")
    verbs.choices["list"].add_argument("--json", action="store_true", help="print one JSON object")
    execute = add_verb(verbs, "exec", "run a command in a guest", _EXEC)
    execute.add_argument("guest", metavar="GUEST")
    execute.add_argument(
        "argv", nargs=argparse.REMAINDER, metavar="CMD...", help="the command and its arguments"
    )
    load = add_verb(verbs, "load", "make a guest use memory or CPU", _LOAD)
    load.add_argument("guest", metavar="GUEST")
    load.add_argument("--memory", type=memory_bytes, metavar="SIZE", help="take so much more")
    load.add_argument(
        "--rate", type=_rate, default=0, metavar="SIZE/s", help="no faster than this (default: at once)"
    )
    load.add_argument("--anonymous", action="store_true", help="memory of a process, which can be OOM-killed")
    load.add_argument("--cpu", type=guest_count, metavar="N", help="start N busy loops")
    load.add_argument("--free", action="store_true", help="end all loads of the guest")
    for verb_parser in verbs.choices.values():
        verb_parser.add_argument("--name", default=DEFAULT_NAME, help="which lab (default: default)")
    for verb_parser in (execute, load):
        verb_parser.add_argument(
            "--pair", action="store_true", help="a guest of the pair of this name, on either host"
        )
    lab_pair.add_parser(verbs)


def run(args: argparse.Namespace) -> int:
    """Run one verb. Raises VmpackError."""
    verbs: dict[str, Callable[[argparse.Namespace], int]] = {
        "up": _up,
        "list": _list,
        "uri": _uri,
        "exec": _exec,
        "load": _load,
        "down": _down,
        "pair": lab_pair.run,
    }
    return verbs[args.verb](args)


def _up(args: argparse.Namespace) -> int:
    from vmpack.lab.guest_spec import GuestSpec
    from vmpack.lab.image import build_image, is_built
    from vmpack.lab.state import named_state

    options = {
        "memory_bytes": args.memory,
        "vcpus": args.vcpus,
        "autodeflate": args.autodeflate,
        "free_page_reporting": args.free_page_reporting,
    }
    asked = {name: value for name, value in options.items() if value is not None}
    specs = [GuestSpec(f"g{number}", **asked) for number in range(1, args.guests + 1)]
    try:
        if not is_built():
            _say("making the guests' image, once (on Debian and Ubuntu from a download)")
            build_image()
        return _bring_up(args.name, specs, asked)
    except KeyboardInterrupt:
        print(file=sys.stderr)  # behind the terminal's ^C
        if named_state(args.name).is_locked():
            _say(
                f"interrupted: lab {args.name} stays, with the guests started so far; "
                f"end it with `vmpack lab down{name_option(args.name)}`"
            )
        return EXIT_INTERRUPTED


def _bring_up(name: str, specs: list[GuestSpec], asked: dict[str, Any]) -> int:
    from vmpack.lab.accelerator import detect_accelerator
    from vmpack.lab.lab import Lab

    started_s = time.monotonic()
    lab = Lab.up(name)
    running = {guest.name: guest for guest in lab.guests()}
    missing = [spec for spec in specs if spec.name not in running]
    if missing:
        accelerator = detect_accelerator()
        _say(f"starting {_guests(len(missing))} with {accelerator.kind.upper()} ({accelerator.reason})")
        lab.start(*missing)
    lab.wait_ready()
    if missing:
        _say(f"up after {format_seconds(time.monotonic() - started_s)}: {_names(lab)}")
    else:
        _say(f"lab {name} is up already: {_names(lab)}")
    different = [
        spec.name for spec in specs if spec.name in running and _differs(running[spec.name].spec(), asked)
    ]
    if different:
        option = name_option(name)
        _say(
            f"{', '.join(different)} ran already with other options and "
            f"{'keeps its own' if len(different) == 1 else 'keep their own'}; "
            f"for new guests: `vmpack lab down{option}`, then up again"
        )
    print(_next_steps(lab.uri, name))
    return EXIT_WARNED if different else 0


def _differs(spec: GuestSpec, asked: dict[str, Any]) -> bool:
    return any(getattr(spec, name) != value for name, value in asked.items())


def _next_steps(uri: str, name: str) -> str:
    option = name_option(name)
    address = LAB_ADDRESS if name == DEFAULT_NAME else f"'{uri}'"
    steps = (
        (f"memory_coordinator 2 --connect {address}", "pack these guests (Ctrl-C ends it)"),
        ("vmpack status", "what it does, from another terminal"),
        (f"vmpack lab load g1 --memory 60MiB{option}", "give a guest something to do"),
        (f"vmpack lab down{option}", "end the guests and their libvirt"),
    )
    return "\n".join(["next:", *(f"  {command:<38} {what}" for command, what in steps)])


def _list(args: argparse.Namespace) -> int:
    lab = _attach(args)
    records = [guest_record(guest) for guest in lab.guests()]
    if args.json:
        print(json.dumps({"name": args.name, "uri": lab.uri, "guests": records}, indent=2))
        return 0
    print_guests(records)
    return 0


def _uri(args: argparse.Namespace) -> int:
    print(_attach(args).uri)
    return 0


def _exec(args: argparse.Namespace) -> int:
    if not args.argv:
        raise UsageError("no command given", "write for example: vmpack lab exec g1 free -m")
    result = _guest(args).control.run(args.argv)
    sys.stdout.write(result.output)
    return result.exit_code


def _load(args: argparse.Namespace) -> int:
    if args.memory is None and (args.rate or args.anonymous):
        raise UsageError("--rate and --anonymous belong to --memory", "add for example --memory 60MiB")
    control = _guest(args).control
    if args.free:
        control.free()
        control.calm()
    if args.memory is not None:
        start = control.load_anonymous if args.anonymous else control.load_tmpfs
        start(args.memory, args.rate)
    if args.cpu is not None:
        control.burn(args.cpu)
    loads = control.progress()
    for load in loads:
        amount = (
            ""
            if load.kind == "cpu"
            else f" {format_bytes(load.held_bytes)} of {format_bytes(load.wanted_bytes)},"
        )
        print(f"{args.guest}: {load.kind}{amount} {load.state}")
    if not loads:
        print(f"{args.guest}: no load")
    return 0


def _down(args: argparse.Namespace) -> int:
    from vmpack.lab.lab import end_lab

    if end_lab(args.name):
        print(f"lab {args.name} is down: no guest of it runs any more")
    else:
        print(f"lab {args.name} was not up")
    return 0


def _attach(args: argparse.Namespace) -> Lab:
    from vmpack.lab.lab import Lab

    return Lab.attach(args.name)


def _guest(args: argparse.Namespace) -> LabGuest:
    from vmpack.lab.pair import Pair

    labs = Pair.attach(args.name) if args.pair else _attach(args)
    return labs.guest(args.guest)


def _names(lab: Lab) -> str:
    return ", ".join(shown(guest.name) for guest in lab.guests())


def _guests(count: int) -> str:
    return "1 guest" if count == 1 else f"{count} guests"


def _say(text: str) -> None:
    print(f"vmpack lab: {text}", file=sys.stderr, flush=True)


def _rate(text: str) -> int:
    try:
        return parse_rate(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
