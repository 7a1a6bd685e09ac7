"""Whether OpenNebula itself placed a VM on CPUs of its own. Called by cli/pin.py and host/vcpus.py.

OpenNebula never reads pins back, so ours are safe on all other VMs; on these they would break what was paid
for.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element

from vmpack.clouds.opennebula_xml import DOCUMENT_LARGEST_CHARACTERS, read_vm
from vmpack.errors import CloudError, UnavailableError, UsageError

_SYSTEM_DATASTORE = "metadata/{http://opennebula.org/xmlns/libvirt/1.0}vm/{*}system_datastore"
_PLACED = ("PIN_POLICY", "NODE_AFFINITY", "HUGEPAGE_SIZE")


def placement(domain: Element) -> str | None:
    """The word of its TOPOLOGY by which OpenNebula placed it, from its libvirt XML; None where it did not.

    Raises UnavailableError where that cannot be known.
    """
    folder = domain.findtext(_SYSTEM_DATASTORE)
    if folder is None:
        return None
    path, name = Path(folder) / "vm.xml", domain.findtext("name", default="")
    try:
        with path.open(encoding="utf-8") as stream:
            vm = read_vm(stream.read(DOCUMENT_LARGEST_CHARACTERS + 1))
    except (OSError, UnicodeDecodeError, CloudError) as error:
        raise UnavailableError(
            f"whether OpenNebula pinned {name} cannot be known: {path}: {error}",
            "run this as oneadmin or root",
        ) from error
    placed = (key for key in _PLACED if vm.template.value("TOPOLOGY", key) not in ("", "NONE"))
    return next(placed, None)


def refuse_placed(domain: Element) -> None:
    """Raises UsageError for a VM that OpenNebula pinned, UnavailableError where that cannot be known."""
    if key := placement(domain):
        name = domain.findtext("name", default="")
        raise UsageError(f"{name} is placed by OpenNebula: its TOPOLOGY has {key}", "it is left alone")
