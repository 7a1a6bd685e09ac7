"""Empty VMs that are paused before their first instruction: they cost little, so there can be many."""

from __future__ import annotations

from typing import Any
from xml.sax.saxutils import escape

import libvirt

from vmpack.lab.lab import Lab

_MACHINE = """<os><type arch='x86_64' machine='q35'>hvm</type></os>
<devices><controller type='usb' model='none'/><memballoon model='virtio'/></devices>"""


def start_paused(lab: Lab, name: str, *, memory_mib: int = 128, metadata: str = "") -> Any:
    """The virDomain of a VM of this name, however odd, that does not run."""
    xml = (
        f"<domain type='qemu'><name>{escape(name)}</name><memory unit='MiB'>{memory_mib}</memory>"
        f"<metadata>{metadata}</metadata>{_MACHINE}</domain>"
    )
    return lab.hypervisor.connection().createXML(xml, libvirt.VIR_DOMAIN_START_PAUSED)
