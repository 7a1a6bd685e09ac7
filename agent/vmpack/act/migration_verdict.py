"""What both hosts show after a migration, and what that means. Pure; called by migration.py."""

from __future__ import annotations

import shlex
from typing import Literal, NamedTuple

from vmpack.hypervisor import UNTOLD_JOB
from vmpack.model.migration import Migrate, Presence

Verdict = Literal["arrived", "stayed", "unclear"]

_WORDS: dict[Presence, str] = {
    "running": "runs",
    "paused": "stands still (paused)",
    "stopped": "is only defined, not running",
    "absent": "is not there",
    "unreachable": "cannot be seen: that libvirt does not answer",
}


class Sides(NamedTuple):
    """What the two hosts show of one VM."""

    source: Presence
    destination: Presence


def judge(sides: Sides, expected: Presence) -> Verdict:
    """Where a VM is that was `expected` (running or paused) before; only what is certain is claimed."""
    if sides.destination == expected and sides.source in ("absent", "stopped"):
        return "arrived"
    if sides.source == expected and sides.destination == "absent":
        return "stayed"
    return "unclear"


def told(sides: Sides) -> str:
    """What was seen, for people."""
    return f"at the source it {_WORDS[sides.source]}; at the destination it {_WORDS[sides.destination]}"


def cure(sides: Sides, action: Migrate, source_uri: str, job: str | None) -> str:
    """What helps when it is unclear where the VM is; `job` is what runs on it at the source.

    What a running job has not finished must not be ended by hand: its other half may be the only whole one.
    """
    here = _Virsh(source_uri, action.uuid)
    there = _Virsh(action.destination_uri, action.uuid)
    if "unreachable" in sides:
        looks = f"{here.line('domstate', '--reason')} and {there.line('domstate', '--reason')}"
        runs = " it runs at the source;" if sides.source == "running" else ""
        return f"{runs} once both answer, look with {looks}, and start or resume nothing before".strip()
    if job is not None and sides != ("running", "running"):
        told_job = "a job may run" if job == UNTOLD_JOB else f"a job runs ({job})"
        return (
            f"at the source {told_job} on it: leave both alone until {here.line('domjobinfo')} "
            f"shows none, then look with {here.line('domstate')} and {there.line('domstate')}"
        )
    cures: dict[Sides, str] = {
        Sides("running", "paused"): (
            f"never resume the unfinished copy; when it does not go by itself, and "
            f"{here.line('domjobinfo')} shows no job: {there.line('destroy')}"
        ),
        Sides("paused", "running"): (
            f"never resume the old one; when it does not go by itself: {here.line('destroy')}"
        ),
        Sides("running", "running"): (
            f"two copies run: end the one at the destination at once: {there.line('destroy')}"
        ),
        Sides("paused", "absent"): f"let it go on: {here.line('resume')}",
        Sides("absent", "paused"): f"let it go on: {there.line('resume')}",
        Sides("paused", "paused"): (
            f"resume only one: unless it has run at the destination meanwhile, "
            f"first {there.line('destroy')}, then {here.line('resume')}"
        ),
        Sides("stopped", "absent"): f"it ended: {here.line('start')}",
    }
    ended = "its guest may have ended by itself: libvirt's logs on both hosts, /var/log/libvirt/qemu, tell"
    return cures.get(sides, ended)


class _Virsh(NamedTuple):
    uri: str
    uuid: str

    def line(self, command: str, *options: str) -> str:
        return f"`{shlex.join(['virsh', '-c', self.uri, command, self.uuid, *options])}`"
