"""What was learned of a VM before, from its libvirt metadata. Called by domain_facts. Never raises."""

from __future__ import annotations

from xml.etree.ElementTree import Element

from vmpack.model.learned import LEARNED_ELEMENT, LEARNED_NAMESPACE, Learned, from_attributes

_TAG = f"{{{LEARNED_NAMESPACE}}}{LEARNED_ELEMENT}"


def read_learned(domain: Element) -> tuple[Learned | None, str]:
    """What was learned of the domain, in Unix time; else why that cannot be used, "" for nothing."""
    element = domain.find(f"metadata/{_TAG}")
    if element is None:
        return None, ""
    try:
        return from_attributes(element.attrib), ""
    except ValueError as error:
        return None, str(error)
