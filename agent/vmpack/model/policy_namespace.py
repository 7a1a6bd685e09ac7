"""How a VM's policy is named in libvirt's domain metadata; observe/ reads it, act/ writes it."""

from __future__ import annotations

POLICY_NAMESPACE = "urn:vmpack:vm:1"
POLICY_PREFIX = "vmpack"
POLICY_ELEMENT = "policy"
FLOOR_LARGEST_BYTES = 2**60
SHARES_LARGEST = 100_000
HEADROOM_LARGEST_RATIO = 5.0
HOLD_UNTIL_LARGEST_S = 1e18
"""Stands for "until the hold is lifted"."""
ACTION_HOLD_S = 30.0
"""How long an action of the cloud holds a VM at a time; it asks again while it goes on."""
OWNER_FIELDS = ("floor_bytes", "headroom_min_bytes", "headroom_ratio", "opt_out", "shares")
"""What an owner may ask for, as fields of GuestPolicy; in the attribute `of_owner` separated by blanks."""
NOMINAL_ATTRIBUTE = "nominal"
NOMINAL_LARGEST_BYTES = 2**60


def read_nominal(text: str) -> int:
    """The value of the attribute `nominal`: bytes, plain. Raises ValueError."""
    if not (text.isascii() and text.isdecimal() and len(text) <= 19):
        raise ValueError(text)
    size_bytes = int(text)
    if not 0 < size_bytes <= NOMINAL_LARGEST_BYTES:
        raise ValueError(text)
    return size_bytes
