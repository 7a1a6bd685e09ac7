"""Short ways to write snapshots in tests; sizes in MiB, as people think of them."""

from __future__ import annotations

import dataclasses
from typing import Any

from vmpack.model.guest import GuestPolicy, GuestSnapshot, MemoryStats
from vmpack.model.host import HostSnapshot, UnreadableGuest
from vmpack.model.machine import Machine
from vmpack.model.plan import Plan
from vmpack.model.settings import Settings
from vmpack.units import GIB, MIB

KERNEL_MIB = 38
OVERHEAD_MIB = 100
NOW_S = 1000.0
MACHINE = Machine(cpus=8, cpu_mhz=2400, cgroups_version=2)


def guest(
    name: str = "g1",
    *,
    nominal: int = 256,
    balloon: int = 256,
    used: int = 30,
    autodeflate: bool = False,
    age_s: float = 1.0,
    now_s: float = NOW_S,
    policy: GuestPolicy | None = None,
    **fields: Any,
) -> GuestSnapshot:
    """A running guest whose balloon driver reports `used` MiB of use, as Linux does in either mode."""
    in_total = nominal if autodeflate else balloon
    usable = max(0, balloon - KERNEL_MIB - used)
    stats = MemoryStats(
        sampled_s=now_s - age_s,
        available_bytes=(in_total - KERNEL_MIB) * MIB,
        usable_bytes=usable * MIB,
        unused_bytes=usable * MIB,
        swap_in_bytes=0,
        swap_out_bytes=0,
        major_faults=100,
        minor_faults=1000,
    )
    values: dict[str, Any] = {
        "uuid": f"uuid-{name}",
        "name": name,
        "state": "running",
        "nominal_bytes": nominal * MIB,
        "balloon_bytes": balloon * MIB,
        "autodeflate": autodeflate,
        "stats_period_s": 1,
        "stats": stats,
        "rss_bytes": (balloon + OVERHEAD_MIB) * MIB,
        "ram_rss_bytes": balloon * MIB,
        "oom_kills": 0,
        "policy": policy or GuestPolicy(),
    }
    return GuestSnapshot(**values | fields)


def unreadable(name: str, balloon: int = 256) -> UnreadableGuest:
    """A VM whose QEMU gives no answer."""
    return UnreadableGuest(f"uuid-{name}", name, balloon * MIB)


def host(
    *guests: GuestSnapshot, budget: int | None = None, now_s: float = NOW_S, **fields: Any
) -> HostSnapshot:
    """A large real host; with `budget` a pretended one that leaves just that many MiB for balloons."""
    pretended = None
    if budget is not None:
        overhead = sum((entry.rss_bytes or 0) - (entry.ram_rss_bytes or 0) for entry in guests)
        pretended = (budget + SETTINGS.host.reserve_min_bytes // MIB) * MIB + overhead
    values: dict[str, Any] = {
        "time_s": now_s,
        "wall_s": now_s + 1_700_000_000.0,
        "memory_total_bytes": 1024 * GIB,
        "memory_available_bytes": 1000 * GIB,
        "pretended_bytes": pretended,
        "guests": tuple(guests),
    }
    return HostSnapshot(**values | fields)


def settings(**memory: Any) -> Settings:
    """Default settings with a flat reserve, and `memory` keys replaced."""
    base = Settings()
    return Settings(
        host=dataclasses.replace(base.host, reserve_ratio=0.0),
        memory=dataclasses.replace(base.memory, **memory),
    )


SETTINGS = settings()
EAGER = settings(calm_s=0.0, shrink_step_ratio=1.0)
"""Shrinks at once and whole: for tests of where, not of when."""


def carried_out(snapshot: HostSnapshot, decided: Plan, later_s: float = 0.0) -> HostSnapshot:
    """The same host after every planned balloon has arrived and every guest has reported again."""
    targets = {action.uuid: action.to_bytes for action in decided.actions if action.kind == "set_memory"}
    now_s = snapshot.time_s + later_s
    guests = []
    for entry in snapshot.guests:
        to = targets.get(entry.uuid, entry.balloon_bytes)
        moved = to - entry.balloon_bytes
        stats = entry.stats
        if stats is not None:
            stats = dataclasses.replace(
                stats,
                sampled_s=stats.sampled_s + later_s,
                available_bytes=stats.available_bytes + (0 if entry.autodeflate else moved),
                usable_bytes=max(0, stats.usable_bytes + moved),
            )
        rss, ram = entry.rss_bytes, entry.ram_rss_bytes
        if rss is not None and ram is not None:
            rss, ram = rss + moved, ram + moved
        guests.append(
            dataclasses.replace(entry, balloon_bytes=to, stats=stats, rss_bytes=rss, ram_rss_bytes=ram)
        )
    return dataclasses.replace(snapshot, time_s=now_s, wall_s=snapshot.wall_s + later_s, guests=tuple(guests))
