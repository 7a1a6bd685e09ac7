"""`vmpack agent` in whose way somebody does something to a VM, right before its memory is set.

Orders: {"deed": its name, "uuid": the VM, "to": a file or a name it may need}. It is done while there is no
`done.json` beside the orders; what came of it is written there.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import libvirt

from tests.real.patched_agent import ORDERS, orders
from vmpack.act.driver import LibvirtDriver
from vmpack.cli.main import main

_real_set_memory = LibvirtDriver.set_memory


def suspend_to_ram(domain: Any, _to: str) -> None:
    """As a laptop's lid does: the guest sleeps, QEMU stays."""
    domain.pMSuspendForDuration(libvirt.VIR_NODE_SUSPEND_TARGET_MEM, 0)


def save_meanwhile(domain: Any, to: str) -> None:
    """A save that has only begun when the memory is set."""
    threading.Thread(target=domain.save, args=(to,), daemon=True).start()


def snapshot(domain: Any, to: str) -> None:
    """Memory and all, into a file."""
    memory = f"<domainsnapshot><memory snapshot='external' file='{to}'/></domainsnapshot>"
    domain.snapshotCreateXML(memory, libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA)


def rename(domain: Any, to: str) -> None:
    """The same VM under another name: it is ended, and started anew with its uuid."""
    definition = ElementTree.fromstring(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_SECURE))
    name = definition.find("name")
    assert name is not None
    name.text = to
    connection = domain.connect()
    domain.destroy()
    connection.createXML(ElementTree.tostring(definition, encoding="unicode"))


DEEDS: dict[str, Callable[[Any, str], Any]] = {
    "destroy": lambda domain, _to: domain.destroy(),
    "pause": lambda domain, _to: domain.suspend(),
    "save": lambda domain, to: domain.save(to),
    "reset": lambda domain, _to: domain.reset(0),
    "sleep": suspend_to_ram,
    "shrink nominal": lambda domain, _to: domain.setMaxMemory(128 * 1024),
    "stop statistics": lambda domain, _to: domain.setMemoryStatsPeriod(0),
    "save meanwhile": save_meanwhile,
    "snapshot": snapshot,
    "rename": rename,
}


def set_memory(driver: LibvirtDriver, uuid: str, size_bytes: int) -> None:
    """The real thing, after the deed."""
    order = orders()
    done = Path(os.environ[ORDERS]).with_name("done.json")
    if order.get("uuid") == uuid and not done.exists():
        said = "ok"
        try:
            domain = driver._hypervisor.connection().lookupByUUIDString(uuid)
            DEEDS[order["deed"]](domain, order.get("to", ""))
        except libvirt.libvirtError as error:
            said = str(error)
        done.write_text(json.dumps(said))
    _real_set_memory(driver, uuid, size_bytes)


LibvirtDriver.set_memory = set_memory  # type: ignore[method-assign]

if __name__ == "__main__":
    sys.exit(main())
