"""`vmpack lab pair`: two hosts on this machine that live-migrate tiny real guests to each other."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from vmpack.cli.agent_access import lab_directories
from vmpack.cli.amounts import memory_bytes
from vmpack.cli.lab_list import guest_record, print_guests
from vmpack.cli.lab_options import DEFAULT_NAME, add_verb, guest_count, name_option
from vmpack.cli.main import EXIT_INTERRUPTED
from vmpack.units import format_seconds

if TYPE_CHECKING:
    from pathlib import Path

    from vmpack.lab.guest_spec import GuestSpec
    from vmpack.lab.lab import Lab
    from vmpack.lab.pair import Pair

_DESCRIPTION = """\
Two hosts, a and b, on this one machine: each has a libvirt, a name and an identity of its own, and they
live-migrate guests to each other over a network that nobody else is in. Needs root; the system's own
libvirt is left alone, and nothing is installed.

examples:
  vmpack lab pair up --host-memory 1GiB          guests g1 and g2 on host a, none on b
  vmpack lab load --pair g1 --memory 60MiB       on whichever host g1 is
  vmpack lab pair list
  vmpack lab pair down                           ends all of it
"""
_UP = """\
Start both hosts, or the guests that are lacking, and wait until all have booted. The guests are called g1,
g2, ... and begin on host a. For each host's agent there is a ready configuration file with directories of
its own; --host-memory lets each agent see a small host. All of it runs until `vmpack lab pair down`.

examples:
  vmpack lab pair up
  vmpack lab pair up --guests 3 --memory 256MiB --host-memory 1GiB
"""


def add_parser(verbs: Any) -> None:
    """Register the verb and its own verbs."""
    parser = add_verb(verbs, "pair", "two hosts that migrate guests to each other", _DESCRIPTION)
    actions = parser.add_subparsers(title="verbs", dest="pair_verb", required=True, metavar="VERB")
    up = add_verb(actions, "up", "start both hosts, or what they lack", _UP)
    up.add_argument(
        "--guests", type=guest_count, default=2, metavar="N", help="how many, on host a (default: 2)"
    )
    up.add_argument("--memory", type=memory_bytes, metavar="SIZE", help="of each guest (default: 128MiB)")
    up.add_argument(
        "--host-memory",
        type=memory_bytes,
        metavar="SIZE",
        help="what each host's agent takes for the host's memory (default: all that the machine has)",
    )
    for verb, what in (("list", "show the guests of both hosts"), ("down", "end both hosts")):
        add_verb(actions, verb, what, what[0].upper() + what[1:] + ".")
    actions.choices["list"].add_argument("--json", action="store_true", help="print one JSON object")
    for action in actions.choices.values():
        action.add_argument("--name", default=DEFAULT_NAME, help="which pair (default: default)")


def run(args: argparse.Namespace) -> int:
    """Run one verb. Raises VmpackError."""
    verbs: dict[str, Callable[[argparse.Namespace], int]] = {"up": _up, "list": _list, "down": _down}
    return verbs[args.pair_verb](args)


def _up(args: argparse.Namespace) -> int:
    from vmpack.lab.guest_spec import GuestSpec
    from vmpack.lab.image import build_image, is_built
    from vmpack.lab.pair import Pair
    from vmpack.lab.state import named_pair, pair_hosts

    size = {} if args.memory is None else {"memory_bytes": args.memory}
    specs = [GuestSpec(f"g{number}", **size) for number in range(1, args.guests + 1)]
    started_s = time.monotonic()
    try:
        if not is_built():
            _say("making the guests' image, once (on Debian and Ubuntu from a download)")
            build_image()
        pair = Pair.up(args.name)
        _start_missing(pair, specs)
    except KeyboardInterrupt:
        print(file=sys.stderr)  # behind the terminal's ^C
        if any(state.is_locked() for state in pair_hosts(named_pair(args.name))):
            _say(
                f"interrupted: pair {args.name} stays, with what was started so far; "
                f"end it with `vmpack lab pair down{name_option(args.name)}`"
            )
        return EXIT_INTERRUPTED
    files = [_write_config(lab, args.host_memory) for lab in pair.hosts]
    _say(f"up after {format_seconds(time.monotonic() - started_s)}")
    print(_next_steps(pair, files, args.name))
    return 0


def _start_missing(pair: Pair, specs: list[GuestSpec]) -> None:
    names = {guest.name for lab in pair.hosts for guest in lab.guests()}
    missing = [spec for spec in specs if spec.name not in names]
    if missing:
        _say(f"starting {', '.join(spec.name for spec in missing)} on host a")
        pair.a.start(*missing)
    for lab in pair.hosts:
        lab.wait_ready()


def _write_config(lab: Lab, host_memory_bytes: int | None) -> Path:
    """Write what the host's agent needs to know, and return the file; a size that was set before stays."""
    from vmpack.config import load
    from vmpack.config_keys import keys
    from vmpack.publish.atomic import write_atomically

    path = lab.state.root / "vmpack.toml"
    if host_memory_bytes is None and path.exists():
        host_memory_bytes = load([path]).settings.host.memory_bytes
    run_dir, state_dir = lab_directories(lab.state)
    values: dict[str, Any] = {
        "agent.connect_uri": lab.uri,
        "agent.run_dir": run_dir,
        "agent.state_dir": state_dir,
    }
    if host_memory_bytes is not None:
        values["host.memory_bytes"] = host_memory_bytes
    lines = [f"{key.name} = {key.toml(values[key.name])}\n" for key in keys() if key.name in values]
    write_atomically(path, "".join(lines))
    return path


def _next_steps(pair: Pair, files: list[Path], name: str) -> str:
    option = name_option(name)
    steps = (
        ("pack host a, and in another terminal host b (Ctrl-C ends it):", ""),
        *(("", f"vmpack agent --config {file}") for file in files),
        ("what an agent does:", f"vmpack status --config {files[0]}"),
        ("give a guest something to do:", f"vmpack lab load --pair{option} g1 --memory 60MiB"),
        ("move it to host b:", f"vmpack migrate g1 '{pair.b.uri}' --config {files[0]}"),
        ("see where it is:", f"vmpack lab pair list{option}"),
        ("once the agents have ended, end the guests and both hosts:", f"vmpack lab pair down{option}"),
    )
    lines = (line for what, command in steps for line in (what and f"  {what}", command and f"    {command}"))
    return "\n".join(["next:", *(line for line in lines if line)])


def _list(args: argparse.Namespace) -> int:
    from vmpack.lab.pair import Pair

    pair = Pair.attach(args.name)
    hosts: list[dict[str, Any]] = [
        {"host": lab.state.root.name, "uri": lab.uri, "guests": [guest_record(g) for g in lab.guests()]}
        for lab in pair.hosts
    ]
    if args.json:
        print(json.dumps({"name": args.name, "hosts": hosts}, indent=2))
        return 0
    for host in hosts:
        print(f"host {host['host']}: {host['uri']}")
        print_guests(host["guests"])
    return 0


def _down(args: argparse.Namespace) -> int:
    from vmpack.lab.pair import end_pair

    if end_pair(args.name):
        print(f"pair {args.name} is down: no guest of it runs any more")
    else:
        print(f"pair {args.name} was not up")
    return 0


def _say(text: str) -> None:
    print(f"vmpack lab pair: {text}", file=sys.stderr, flush=True)
