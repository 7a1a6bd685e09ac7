"""A VM's own settings, read from its libvirt metadata.

Called by domain_facts. The owner writes this text, so it is checked value by value: a bad one counts as
not set and is named in the faults. Never raises.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any
from xml.etree.ElementTree import Element

from vmpack.model.guest import GuestPolicy
from vmpack.model.policy_namespace import (
    FLOOR_LARGEST_BYTES,
    HEADROOM_LARGEST_RATIO,
    HOLD_UNTIL_LARGEST_S,
    NOMINAL_ATTRIBUTE,
    OWNER_FIELDS,
    POLICY_ELEMENT,
    POLICY_NAMESPACE,
    SHARES_LARGEST,
    read_nominal,
)
from vmpack.units import parse_bytes

_TAG = f"{{{POLICY_NAMESPACE}}}{POLICY_ELEMENT}"
_LONGEST_VALUE = 64


def read_policy(domain: Element) -> tuple[GuestPolicy, tuple[str, ...]]:
    """The policy in a domain's XML, and one sentence for each part of it that could not be used."""
    element = domain.find(f"metadata/{_TAG}")
    if element is None:
        return GuestPolicy(), ()
    values: dict[str, Any] = {}
    faults: list[str] = []
    for attribute, text in element.attrib.items():
        if attribute not in _READERS:
            faults.append(f"{attribute!r:.40} is not a setting")
            continue
        field, reader, wanted = _READERS[attribute]
        try:
            values[field] = reader(_short(text))
        except (ValueError, OverflowError):
            faults.append(f"{attribute}={text!r:.40} is not {wanted}")
    return GuestPolicy(**values), tuple(faults)


def _short(text: str) -> str:
    if len(text) > _LONGEST_VALUE:
        raise ValueError(text)
    return text


def _floor(text: str) -> int:
    return int(_within(parse_bytes(text), 0, FLOOR_LARGEST_BYTES))


def _shares(text: str) -> int:
    return int(_within(int(text), 1, SHARES_LARGEST))


def _headroom(text: str) -> float:
    return _within(float(text), 0.0, HEADROOM_LARGEST_RATIO)


def _opt_out(text: str) -> bool:
    if text not in ("yes", "no"):
        raise ValueError(text)
    return text == "yes"


def _of_owner(text: str) -> tuple[str, ...]:
    names = text.split()
    if not set(names) <= set(OWNER_FIELDS):
        raise ValueError(text)
    return tuple(sorted(set(names)))


def _hold_until(text: str) -> float:
    return _within(float(text), 0.0, HOLD_UNTIL_LARGEST_S)


def _within(value: float, smallest: float, largest: float) -> float:
    if not math.isfinite(value) or not smallest <= value <= largest:
        raise ValueError(value)
    return value


_READERS: Mapping[str, tuple[str, Callable[[str], Any], str]] = {
    "floor": ("floor_bytes", _floor, "an amount of memory such as 100MiB"),
    "shares": ("shares", _shares, f"a whole number from 1 to {SHARES_LARGEST}"),
    "headroom": ("headroom_ratio", _headroom, f"a ratio from 0 to {HEADROOM_LARGEST_RATIO:g}"),
    "headroom_min": ("headroom_min_bytes", _floor, "an amount of memory such as 100MiB"),
    "opt_out": ("opt_out", _opt_out, "yes or no"),
    "hold_until": ("hold_until_s", _hold_until, "a Unix time in seconds"),
    "action_until": ("action_until_s", _hold_until, "a Unix time in seconds"),
    "of_owner": ("of_owner", _of_owner, "a list of settings"),
    NOMINAL_ATTRIBUTE: ("nominal_bytes", read_nominal, "a number of bytes"),
}
