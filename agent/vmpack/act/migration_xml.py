"""The XML that a VM gets at its destination, where it must not be the one that it has here.

Called by migration.py. libvirt cannot forget a pin of a running VM: a thread that was pinned and runs on all
CPUs again has all CPUs of this host by name, and a host with fewer may refuse it.
"""

from __future__ import annotations

from typing import Any
from xml.dom import minidom

from vmpack.model.pins import parse_cpus

_PINS = ("vcpupin", "emulatorpin", "iothreadpin")


def destination_xml(connection: Any, domain: Any) -> str | None:
    """The VM's XML without the pins that are none; None where there are no such pins. Raises libvirtError."""
    import libvirt

    count = connection.getCPUMap()[0]
    if _without_empty_pins(domain.XMLDesc(0), count) is None:
        return None
    whole = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_MIGRATABLE | libvirt.VIR_DOMAIN_XML_SECURE)
    return _without_empty_pins(whole, count)


def _without_empty_pins(xml: str, count: int) -> str | None:
    # Not ElementTree: that would give the metadata of others new prefixes.
    document: Any = minidom.parseString(xml)
    everywhere = set(range(count))
    empty = [
        pin
        for tune in document.documentElement.childNodes
        if tune.nodeName == "cputune"
        for pin in tune.childNodes
        if pin.nodeName in _PINS and everywhere.issubset(parse_cpus(pin.getAttribute("cpuset")))
    ]
    for pin in empty:
        pin.parentNode.removeChild(pin)
    return str(document.documentElement.toxml()) if empty else None
