"""One interval as ready-to-print texts for OpenNebula's probes, one per category.

Called by the publisher, which writes them under RUN_DIR/probe/; a probe then only prints its file.
One syntax error makes OpenNebula refuse the whole message and put the host in ERROR, so every value is
quoted ASCII, and names that had a value once keep one (an explicit 0), for OpenNebula never forgets a name.
"""

from __future__ import annotations

import base64
import re
from typing import Literal

from vmpack.model.guest import GuestSnapshot
from vmpack.model.interval import Interval
from vmpack.model.plan import GuestPlan
from vmpack.units import KIB

State = Literal["ACTIVE", "OBSERVE", "FROZEN"]

CATEGORIES = ("host-system", "vm-snapshot")

_UUID = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}\Z")
_UNKNOWN_VM_ID = "-1"


def host_state(interval: Interval, observe_only: bool) -> State:
    """What the agent may do on this host: a frozen host stays FROZEN in observe mode too."""
    if interval.snapshot.frozen:
        return "FROZEN"
    return "OBSERVE" if observe_only else "ACTIVE"


def render(interval: Interval, version: str, observe_only: bool) -> dict[str, str]:
    """Text by category, for each of CATEGORIES; a text is empty or ends with a newline."""
    texts = _host_system(interval, version, host_state(interval, observe_only)), _vm_snapshot(interval)
    return dict(zip(CATEGORIES, texts, strict=True))


def _host_system(interval: Interval, version: str, state: State) -> str:
    offer = interval.plan.offer
    return _lines(
        {
            "PACKEDMEMORY": _kib(offer.packed_bytes),
            "OFFEREDMEMORY": _kib(offer.memory_bytes),
            "VMPACK_STATE": state,
            "VMPACK_VERSION": version,
        }
    )


def _vm_snapshot(interval: Interval) -> str:
    plans = {plan.uuid: plan for plan in interval.plan.guests}
    guests = (guest for guest in interval.snapshot.guests if _UUID.match(guest.uuid))
    return "".join(_vm_block(guest, plans.get(guest.uuid)) for guest in guests)


def _vm_block(guest: GuestSnapshot, plan: GuestPlan | None) -> str:
    monitor = _lines(
        {
            "REALMEMORY": _kib(guest.balloon_bytes),
            "MAXMEMORY": _kib(guest.nominal_bytes),
            "PACKEDMEMORY": _kib(guest.nominal_bytes - guest.balloon_bytes),
            "VMPACK_FLOOR": _kib(plan.floor_bytes if plan else 0),
            "VMPACK_TARGET": _kib(plan.target_bytes if plan else 0),
            "VMPACK_STATE": plan.verdict.upper() if plan else "UNKNOWN",
            "VMPACK_REASON": plan.reasons[-1].rule if plan and plan.reasons else "none",
        }
    )
    encoded = base64.b64encode(monitor.encode("ascii")).decode("ascii")
    return f'VM = [ ID="{_UNKNOWN_VM_ID}", DEPLOY_ID="{guest.uuid}", MONITOR="{encoded}" ]\n'


def _lines(values: dict[str, str]) -> str:
    return "".join(f'{name}="{_quotable(value)}"\n' for name, value in values.items())


def _quotable(value: str) -> str:
    return re.sub(r"[^ !#-\[^-~]|\](?=\])", "_", value)


def _kib(amount_bytes: int) -> str:
    return str(max(0, amount_bytes) // KIB)
