"""A VM's own settings as the metadata element that observe/policy.py reads. Called by act/driver.py."""

from __future__ import annotations

from xml.etree.ElementTree import Element, tostring

from vmpack.model.guest import GuestPolicy
from vmpack.model.policy_namespace import NOMINAL_ATTRIBUTE, POLICY_ELEMENT


def policy_xml(policy: GuestPolicy) -> str | None:
    """The element without its namespace, which libvirt adds; None when nothing is set, to remove it."""
    settings = {
        "floor": None if policy.floor_bytes is None else str(policy.floor_bytes),
        "shares": None if policy.shares is None else str(policy.shares),
        "headroom": None if policy.headroom_ratio is None else repr(policy.headroom_ratio),
        "headroom_min": None if policy.headroom_min_bytes is None else str(policy.headroom_min_bytes),
        "opt_out": "yes" if policy.opt_out else None,
        "hold_until": None if policy.hold_until_s is None else repr(policy.hold_until_s),
        "action_until": None if policy.action_until_s is None else repr(policy.action_until_s),
        "of_owner": " ".join(policy.of_owner) or None,
        NOMINAL_ATTRIBUTE: None if policy.nominal_bytes is None else str(policy.nominal_bytes),
    }
    present = {name: text for name, text in settings.items() if text is not None}
    return tostring(Element(POLICY_ELEMENT, present), encoding="unicode") if present else None
