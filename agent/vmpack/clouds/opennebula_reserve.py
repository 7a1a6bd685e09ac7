"""RESERVED_MEM: what it means to oned, whose value it is, and what is written in its place. Pure.

Called by opennebula_hosts.py. The administrator's own value is kept beside ours in the host's template, in
the same write, so whoever comes next can put it back; a value that is not what we wrote is his newest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from vmpack.clouds.opennebula_xml import Template

RESERVED = "RESERVED_MEM"
KEPT = "VMPACK_RESERVED_BASE"
"""The administrator's own RESERVED_MEM while ours stands in its place."""
WRITTEN = "VMPACK_RESERVED_SET"
"""What we wrote into RESERVED_MEM; empty when nothing of ours is there."""
GRANTED = "VMPACK_GRANTED"
"""KiB, for people."""
CHANGED = "VMPACK_GRANT_TIME"
"""Unix time of the newest change."""

OURS = (KEPT, WRITTEN, GRANTED, CHANGED)

_LARGEST_KIB = 2**53
_LARGEST_PCT = 10_000


@dataclass(frozen=True, slots=True)
class Reservation:
    """What is reserved on one host. KiB, as oned counts."""

    own: str
    """The administrator's own value on the host, as he wrote it; empty: the cluster's holds."""
    base_kib: int
    """What he keeps from the scheduler, the cluster's value counted in; negative: he overcommits."""
    granted_kib: int | None
    """None where nothing of ours is set; where `fault` is of the base, oned goes without one."""
    marked: bool
    """Names of ours stand there: with a grant, or left behind when somebody set another value."""
    changed_s: float | None
    fault: str = ""
    """Why nothing can be granted."""


def reserved_kib(value: str, total_kib: int) -> int | None:
    """What oned subtracts from `total_kib` for this text; None for one that oned ignores as senseless."""
    text = value.strip()
    if not value:
        return 0
    match = re.fullmatch(r"([+-]?[0-9]{1,18})(%?)", text)
    if match is None or abs(int(match[1])) > (_LARGEST_PCT if match[2] else _LARGEST_KIB):
        return None
    if not match[2]:
        return int(match[1])
    return total_kib - int(total_kib * (1 - int(match[1]) / 100.0))


def stands(host: Template) -> bool:
    """What is reserved there is what we wrote, and not an administrator's value."""
    ours = host.values.get(WRITTEN, "").strip()
    return bool(ours) and host.values.get(RESERVED, "").strip() == ours


def reservation(host: Template, cluster: Template, total_kib: int) -> Reservation:
    """Read what is reserved from the templates of a host and of its cluster."""
    present, written = host.values.get(RESERVED, ""), host.values.get(WRITTEN, "").strip()
    ours = stands(host)
    own = host.values.get(KEPT, "") if ours else present
    inherited = cluster.values.get(RESERVED, "")
    fault = ""
    if RESERVED in host.vectors:
        fault = f"{RESERVED} is given as a vector, which OpenNebula ignores: correct it with `onehost update`"
    base = reserved_kib(own or inherited, total_kib)
    if base is None:
        whose, command = ("its", "onehost") if own else ("its cluster's", "onecluster")
        fault = (
            f"{whose} {RESERVED} is {own or inherited!r:.60}, which OpenNebula ignores: "
            f"correct it with `{command} update`"
        )
    set_kib = reserved_kib(written, total_kib) if ours else None
    return Reservation(
        own=own,
        base_kib=base or 0,
        granted_kib=None if set_kib is None else (base or 0) - set_kib,
        marked=bool(written or host.values.get(KEPT)),
        changed_s=_time(host.values.get(CHANGED, "")),
        fault=fault,
    )


def written(found: Reservation, granted_kib: int, now_s: float) -> Mapping[str, str]:
    """The attributes that grant so much; with 0 those that put the administrator's own value back.

    A value that he has set himself since is left as it is.
    """
    when = {CHANGED: str(int(now_s)), GRANTED: str(granted_kib)}
    if granted_kib == 0:
        back = {} if found.granted_kib is None else {RESERVED: found.own}
        return {**back, KEPT: "", WRITTEN: "", **when}
    ours = str(found.base_kib - granted_kib)
    return {RESERVED: ours, KEPT: found.own, WRITTEN: ours, **when}


def put_back(host: Template) -> Mapping[str, str | None]:
    """The attributes that leave nothing of ours, whatever else is set there. None: no longer."""
    gone: dict[str, str | None] = {name: None for name in OURS if name in host.values}
    return {**gone, RESERVED: host.values.get(KEPT, "")} if stands(host) else gone


def _time(text: str) -> float | None:
    return float(text) if re.fullmatch(r"[0-9]{1,12}", text.strip()) else None
