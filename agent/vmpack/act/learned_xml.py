"""What was learned of a VM as the metadata element that observe/learned.py reads. Called by act/driver.py."""

from __future__ import annotations

from xml.etree.ElementTree import Element, tostring

from vmpack.model.learned import LEARNED_ELEMENT, Learned, to_attributes


def learned_xml(learned: Learned) -> str:
    """The element without its namespace, which libvirt adds."""
    return tostring(Element(LEARNED_ELEMENT, to_attributes(learned)), encoding="unicode")
