"""Refuses to pin by hand what OpenNebula placed itself. Called by cli/pin.py."""

from __future__ import annotations

from xml.etree.ElementTree import Element

from vmpack.clouds.opennebula_placement import placement
from vmpack.errors import UsageError


def refuse_placed(domain: Element) -> None:
    """Raises UsageError for a VM that OpenNebula pinned, UnavailableError where that cannot be known."""
    key = placement(domain)
    if key is not None:
        name = domain.findtext("name", default="")
        raise UsageError(f"{name} is placed by OpenNebula: its TOPOLOGY has {key}", "it is left alone")
