"""Fixed intervals for the tests of screens: sizes in MiB, so that expected texts can be read off."""

from __future__ import annotations

from dataclasses import replace

from vmpack.model.action import Outcome, SetMemory
from vmpack.model.guest import GuestSnapshot
from vmpack.model.host import HostSnapshot, Pressure
from vmpack.model.interval import AgentStatus, Interval
from vmpack.model.plan import Budget, GuestPlan, GuestVerdict, Offer, Plan, Reason, Remembered
from vmpack.units import GIB, MIB

WALL_S = 1_790_000_000.0
EVIL_NAME = "evil\x1b[31m[bold]x[/bold]\n\u202e:smile:"


def guest(name: str, balloon_mib: int = 192, nominal_mib: int = 256) -> GuestSnapshot:
    """A running VM."""
    return GuestSnapshot(
        uuid=f"uuid-of-{name}",
        name=name,
        state="running",
        nominal_bytes=nominal_mib * MIB,
        balloon_bytes=balloon_mib * MIB,
    )


def guest_plan(name: str, verdict: GuestVerdict = "hold", used_mib: int | None = 64) -> GuestPlan:
    """A plan for the VM of this name; targets 128 MiB."""
    reason = (
        Reason("excluded", {}, "huge_pages")
        if verdict == "excluded"
        else Reason("released", {"nominal_bytes": 1})
    )
    return GuestPlan(
        uuid=f"uuid-of-{name}",
        name=name,
        verdict=verdict,
        target_bytes=128 * MIB,
        floor_bytes=80 * MIB,
        minimum_bytes=96 * MIB,
        wanted_bytes=128 * MIB,
        used_bytes=None if used_mib is None else used_mib * MIB,
        reasons=(reason,),
    )


def interval(
    guests: tuple[GuestSnapshot, ...] = (), plans: tuple[GuestPlan, ...] | None = None, *, number: int = 7
) -> Interval:
    """A host of 4 GiB: 512 MiB its own, 256 MiB overhead, 256 MiB reserve, so a budget of 3 GiB."""
    own, overhead, reserve = 512 * MIB, 256 * MIB, 256 * MIB
    chosen = tuple(guest_plan(entry.name) for entry in guests) if plans is None else plans
    packed = sum(entry.nominal_bytes - entry.balloon_bytes for entry in guests)
    return Interval(
        number=number,
        snapshot=HostSnapshot(
            time_s=1000.0,
            wall_s=WALL_S,
            memory_total_bytes=4 * GIB,
            memory_available_bytes=2 * GIB,
            pressure=Pressure(0.02, 0.0, 0, 0),
            guests=guests,
        ),
        plan=Plan(
            actions=(),
            room_bytes=0,
            guests=chosen,
            budget=Budget(4 * GIB, reserve, own, overhead, 3 * GIB),
            offer=Offer(700 * MIB, packed, 0, 0, None, ()),
            reasons=(),
            migration=None,
            remembered=Remembered(),
        ),
        outcomes=(),
    )


def shrinking(entry: GuestSnapshot, of: Interval, outcome: Outcome | None) -> Interval:
    """The interval with one shrink of this VM to 128 MiB in its plan, and what came of it."""
    action = SetMemory(entry.uuid, entry.name, entry.balloon_bytes, 128 * MIB, entry.nominal_bytes)
    done = () if outcome is None else (replace(outcome, action=action),)
    return replace(of, plan=replace(of.plan, actions=(action,)), outcomes=done)


def status(newest: Interval | None, **changes: object) -> AgentStatus:
    """A healthy agent on qemu:///system with this newest interval."""
    healthy = AgentStatus("0.1.0", 42, "qemu:///system", False, 5.0, WALL_S - 600, None, newest)
    return replace(healthy, **changes)  # type: ignore[arg-type]
