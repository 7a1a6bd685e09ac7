"""How a VM's policy is named in libvirt's domain metadata; observe/ reads it, act/ writes it."""

POLICY_NAMESPACE = "urn:vmpack:vm:1"
POLICY_PREFIX = "vmpack"
POLICY_ELEMENT = "policy"
FLOOR_LARGEST_BYTES = 2**60
SHARES_LARGEST = 100_000
HEADROOM_LARGEST_RATIO = 5.0
HOLD_UNTIL_LARGEST_S = 1e18
"""Stands for "until the hold is lifted"."""
