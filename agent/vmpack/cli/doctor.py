"""`vmpack doctor`: what on this host works, what does not, and what to do about it. Changes nothing."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Generator, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vmpack.cli import agent_access, doctor_checks, gpu_checks
from vmpack.cli.doctor_checks import Finding
from vmpack.cli.safe_text import shown
from vmpack.cli.status import is_stale
from vmpack.errors import AccessError, ConfigError, UnavailableError, VmpackError
from vmpack.model.host import HostSnapshot
from vmpack.model.plan import Remembered

DESCRIPTION = """\
Check this host from top to bottom: Python and libvirt, the connection and its rights, KVM, memory
pressure, swap, GPUs, directories, configuration, the agent, every VM; and say how much of the promised
memory could be lent and where the rest is. Changes nothing."""

EPILOG = """\
examples:
  vmpack doctor
  vmpack doctor --connect qemu:///session     another libvirt than the configured one
  vmpack doctor --connect lab                 the guests of `vmpack lab up`
  vmpack doctor --json | jq '.findings[] | select(.level != "ok")'

--json: level (ok, warn or fail: the gravest), findings [{subject, level, text, todo}].

exit code: 0 all well, 3 warnings, 1 failures."""

_EXIT_CODES = {"ok": 0, "warn": 3, "fail": 1}
_SIGNS = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}
_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}
SUBJECT_CELLS = 15


def add_parser(subparsers: Any) -> None:
    """Add the command to the tree."""
    parser = subparsers.add_parser(
        "doctor", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--state-dir", type=Path, metavar="DIR", help="the agent's state directory")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    agent_access.add_arguments(parser, whole_host=True, any_libvirt=True)


def run(args: argparse.Namespace) -> int:
    """Print the findings as they come. Raises nothing that a check can find."""
    findings = []
    for finding in examine(args):
        findings.append(finding)
        if not args.json:
            show(finding)
    level = doctor_checks.worst(findings)
    if args.json:
        print(json.dumps({"level": level, "findings": [asdict(finding) for finding in findings]}, indent=2))
    return _EXIT_CODES[level]


def show(finding: Finding) -> None:
    """Print one finding, and beneath it what to do."""
    from rich.text import Text

    from vmpack.cli.screen import console

    line = Text.assemble((_SIGNS[finding.level], _STYLES[finding.level]), "  ")
    line.append(f"{shown(finding.subject):<{SUBJECT_CELLS}} ", style="bold").append(shown(finding.text))
    screen = console()
    screen.print(line, soft_wrap=True)
    if finding.todo and finding.level != "ok":
        screen.print(Text(f"      {'':<{SUBJECT_CELLS}} -> {shown(finding.todo)}"), soft_wrap=True)


def examine(args: argparse.Namespace) -> Iterator[Finding]:
    """Every finding, in the order in which a person would look."""
    from vmpack.config import load, override

    yield from doctor_checks.software()
    yield doctor_checks.accelerator()
    try:
        config = load([args.config] if args.config else None)
        files = ", ".join(map(str, config.files)) or "none: every key has its default"
        yield Finding("configuration", "ok", files)
    except (AccessError, ConfigError) as error:
        config = load(())
        yield doctor_checks.failed("configuration", error)
    config = override(config, agent_access.connect_changes(args.connect))
    yield doctor_checks.directory("run directory", agent_access.run_dir(args, config))
    yield doctor_checks.directory("state directory", args.state_dir or config.state_dir)
    agent_uri = yield from _agent(args)
    yield from gpu_checks.gpus(config.gpu.devices)
    yield from _host((None if args.connect else agent_uri) or config.connect_uri, config.settings)


def _agent(args: argparse.Namespace) -> Generator[Finding, None, str | None]:
    """How the agent is; returns the libvirt that it works on, None when it did not say."""
    try:
        status = agent_access.client(args).status()
    except UnavailableError as error:
        yield doctor_checks.failed("agent", error, "warn")
        return None
    except VmpackError as error:
        yield doctor_checks.failed("agent", error)
        return None
    yield from doctor_checks.agent(status, is_stale(status, time.time()))
    return status.uri


def _host(uri: str, settings: Any) -> Iterator[Finding]:
    from vmpack.decide.memory import plan
    from vmpack.hypervisor import Hypervisor

    hypervisor = Hypervisor(uri)
    try:
        found = doctor_checks.connection(hypervisor)
        yield found
        if found.level == "fail":
            return
        snapshot = _look(hypervisor, settings)
        decided = plan(snapshot, Remembered(), settings)
        yield from doctor_checks.machine(snapshot)
        yield from doctor_checks.guests(snapshot, decided)
        yield doctor_checks.packable(snapshot, decided)
    except VmpackError as error:
        yield doctor_checks.failed("host", error)
    finally:
        hypervisor.close()


def _look(hypervisor: Any, settings: Any) -> HostSnapshot:
    from vmpack.clock import SystemClock
    from vmpack.observe.source import HostSource

    source = HostSource(
        hypervisor,
        SystemClock(),
        pretended_bytes=settings.host.memory_bytes,
        frozen=lambda: False,
        claims=lambda: (),
    )
    return source.observe()
