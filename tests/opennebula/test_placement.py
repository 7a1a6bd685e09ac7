"""Whether OpenNebula placed a VM itself, as the folder of its running VM says."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from xml.etree.ElementTree import Element

import pytest

from vmpack.clouds.opennebula_placement import placement, refuse_placed
from vmpack.errors import UnavailableError, UsageError


def domain(folder: Path) -> Element:
    return ElementTree.fromstring(
        "<domain><name>one-7</name><metadata><one:vm xmlns:one='http://opennebula.org/xmlns/libvirt/1.0'>"
        f"<one:system_datastore>{folder}</one:system_datastore></one:vm></metadata></domain>"
    )


def deployed(folder: Path, topology: str) -> Element:
    (folder / "vm.xml").write_text(
        "<VM><ID>7</ID><STATE>3</STATE><LCM_STATE>3</LCM_STATE><TEMPLATE><MEMORY>512</MEMORY>"
        f"{topology}</TEMPLATE></VM>"
    )
    return domain(folder)


@pytest.mark.parametrize("key", ["PIN_POLICY", "NODE_AFFINITY", "HUGEPAGE_SIZE"])
def test_a_placed_vm_is_known(tmp_path: Path, key: str) -> None:
    """CPUs that an owner pays for would be shared."""
    found = deployed(tmp_path, f"<TOPOLOGY><{key}>1</{key}></TOPOLOGY>")
    assert placement(found) == key
    with pytest.raises(UsageError, match=f"its TOPOLOGY has {key}"):
        refuse_placed(found)


@pytest.mark.parametrize("topology", ["", "<TOPOLOGY><PIN_POLICY>NONE</PIN_POLICY></TOPOLOGY>"])
def test_any_other_vm_may_be_pinned(tmp_path: Path, topology: str) -> None:
    """No VM of OpenNebula would ever be balanced."""
    found = deployed(tmp_path, topology)
    assert placement(found) is None
    refuse_placed(found)
    refuse_placed(ElementTree.fromstring("<domain/>"))


@pytest.mark.parametrize("text", [None, b"<VM>\xff", b"<VM", b""])
def test_what_cannot_be_known_is_said(tmp_path: Path, text: bytes | None) -> None:
    """A VM whose folder cannot be read would be taken for one that nobody placed."""
    if text is not None:
        (tmp_path / "vm.xml").write_bytes(text)
    with pytest.raises(UnavailableError, match="whether OpenNebula pinned one-7 cannot be known"):
        placement(domain(tmp_path))
