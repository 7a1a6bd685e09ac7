"""A VM's own policy in words. Called by `explain`, `policy` and `hold`."""

from __future__ import annotations

import time

from vmpack.model.guest import GuestPolicy
from vmpack.units import format_bytes, format_ratio

LAST_DATE_S = 1e11
"""An expiry beyond this (some 3000 years) is no date for people."""


def policy_words(policy: GuestPolicy, now_s: float) -> str:
    """What is set, in one line; empty when nothing is. `now_s` is Unix time: an expired hold is not told."""
    parts = []
    if policy.floor_bytes is not None:
        parts.append(f"floor {format_bytes(policy.floor_bytes)}")
    if policy.shares is not None:
        parts.append(f"shares {policy.shares}")
    if policy.headroom_ratio is not None:
        parts.append(f"headroom {format_ratio(policy.headroom_ratio)} of use")
    if policy.headroom_min_bytes is not None:
        parts.append(f"headroom at least {format_bytes(policy.headroom_min_bytes)}")
    if policy.nominal_bytes is not None:
        parts.append(f"nominal {format_bytes(policy.nominal_bytes)} by its cloud")
    if policy.opt_out:
        parts.append("opted out")
    if policy.of_owner:
        names = (
            name.removesuffix("_bytes").removesuffix("_ratio").replace("_", "-") for name in policy.of_owner
        )
        parts.append(f"asked for by its owner: {' '.join(names)}")
    if policy.hold_until_s is not None and policy.hold_until_s > now_s:
        parts.append(f"held {until_words(policy.hold_until_s)}")
    return ", ".join(parts)


def until_words(until_s: float) -> str:
    """A Unix time as `until 2026-11-20 12:00:00`, or as what ends it when there is no date."""
    if until_s >= LAST_DATE_S:
        return "until `vmpack hold VM --off`"
    try:
        return time.strftime("until %Y-%m-%d %H:%M:%S", time.localtime(until_s))
    except (OverflowError, ValueError, OSError):
        return "until `vmpack hold VM --off`"
