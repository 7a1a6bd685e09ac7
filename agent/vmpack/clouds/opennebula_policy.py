"""What a VM's owner asks for in USER_TEMPLATE, and how it is told what holds. Pure.

Called by opennebula_vms.py and `vmpack vms --sync`. The owner writes these texts: each is
checked by itself, a bad one counts as not set and is named.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from vmpack.model.cluster import Applied
from vmpack.model.guest import GuestPolicy
from vmpack.model.policy_namespace import HEADROOM_LARGEST_RATIO
from vmpack.units import KIB, MIB, format_bytes, parse_bytes

APPLIED = "VMPACK_APPLIED_"
"""What holds is told under these names."""
_FAULT_LONGEST = 256
TARGET_STEP_BYTES = 16 * MIB
"""A target moves all the time, and each telling is a row written in oned's database."""

_LONGEST = 32


def read_policy(
    user_template: Mapping[str, str], nominal_bytes: int, shares_max: int
) -> tuple[GuestPolicy, bool, tuple[str, ...], tuple[str, ...]]:
    """The policy, and whether anything was asked for; what cannot be meant: sentences, and the fields."""
    values: dict[str, Any] = {}
    faults: list[str] = []
    unclear: set[str] = set()
    named = False
    for name, (field, read, wanted) in _READERS.items():
        text = user_template.get(name, "").strip()
        if not text:
            continue
        named = True
        try:
            if len(text) > _LONGEST:
                raise ValueError(text)
            values[field] = read(text)
        except (ValueError, OverflowError):
            faults.append(f"{name}={text!r:.40} is not {wanted}")
            unclear.add(field)
    for name, field in (("VMPACK_FLOOR", "floor_bytes"), ("MIN_FREE_MEM", "headroom_min_bytes")):
        if values.get(field, 0) > nominal_bytes:
            faults.append(f"{name} is above its memory, {format_bytes(nominal_bytes)}: that holds")
            values[field] = nominal_bytes
    if values.get("shares", 0) > shares_max:
        faults.append(f"VMPACK_SHARES is above {shares_max}, the most that an owner may set: that holds")
        values["shares"] = shares_max
    asked = tuple(sorted(field for field, value in values.items() if value is not False))
    return GuestPolicy(**values, of_owner=asked), named, tuple(faults), tuple(sorted(unclear - values.keys()))


def applied_texts(applied: Applied) -> dict[str, str]:
    """What the owner is told: whole numbers (KiB, percent, 0 or 1) for tools in the guest; empty: not set."""
    policy, target = applied.policy, applied.target_bytes
    if target is not None:
        target = -(-target // TARGET_STEP_BYTES) * TARGET_STEP_BYTES
    return {
        f"{APPLIED}POLICY": "1" if applied.of_owner and not applied.faults else "0",
        f"{APPLIED}FAULT": _plain("; ".join(applied.faults)),
        f"{APPLIED}FLOOR": _kib(applied.floor_bytes if policy.floor_bytes is None else policy.floor_bytes),
        f"{APPLIED}MEM_OVER": ""
        if policy.headroom_ratio is None
        else str(round(policy.headroom_ratio * 100)),
        f"{APPLIED}MIN_FREE": _kib(policy.headroom_min_bytes),
        f"{APPLIED}SHARES": "" if policy.shares is None else str(policy.shares),
        f"{APPLIED}OPT_OUT": "1" if policy.opt_out else "0",
        f"{APPLIED}TARGET": _kib(target),
    }


def _plain(text: str) -> str:
    """As template text can hold it: what owners wrote is in it."""
    return re.sub(r"[^ !#-\[^-~]", "_", text)[:_FAULT_LONGEST]


def _kib(amount_bytes: int | None) -> str:
    return "" if amount_bytes is None else str(max(0, amount_bytes) // KIB)


def _floor(text: str) -> int:
    return int(text) * MIB if re.fullmatch(r"[0-9]{1,9}", text) else parse_bytes(text)


def _kib_bytes(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,15}", text):
        raise ValueError(text)
    return int(text) * KIB


def _shares(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,6}", text) or int(text) < 1:
        raise ValueError(text)
    return int(text)


def _headroom(text: str) -> float:
    number, percent, rest = text.partition("%")
    if rest:
        raise ValueError(text)
    return _within(_decimal(number) / (100 if percent else 1), HEADROOM_LARGEST_RATIO)


def _mem_over(text: str) -> float:
    return _within(_decimal(text) / 100, HEADROOM_LARGEST_RATIO)


def _decimal(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", text.strip()):
        raise ValueError(text)
    return float(text)


def _within(value: float, largest: float) -> float:
    """Rounded to what is told to agents, so that it compares equal there."""
    if not math.isfinite(value) or not 0 <= value <= largest:
        raise ValueError(value)
    return round(value, 6)


def _flag(text: str) -> bool:
    known = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
    if text.lower() not in known:
        raise ValueError(text)
    return known[text.lower()]


_READERS: Mapping[str, tuple[str, Callable[[str], Any], str]] = {
    "MEM_OVER": ("headroom_ratio", _mem_over, f"a percentage from 0 to {HEADROOM_LARGEST_RATIO * 100:g}"),
    "VMPACK_HEADROOM": ("headroom_ratio", _headroom, "a share of use such as 30% or 0.3, at most 500%"),
    "MIN_FREE_MEM": ("headroom_min_bytes", _kib_bytes, "a whole number of KiB"),
    "VMPACK_FLOOR": ("floor_bytes", _floor, "an amount of memory such as 512MiB; a plain number is MiB"),
    "VMPACK_SHARES": ("shares", _shares, "a whole number from 1"),
    "VMPACK_OPT_OUT": ("opt_out", _flag, "yes or no"),
}
"""Where two names set the same, the later one here counts."""
