"""The domain XML on its way to libvirt: what is added, and that nothing else changes."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmpack.drivers.deployment import prepared, promised_bytes
from vmpack.errors import CloudError
from vmpack.model.guest import GuestPolicy
from vmpack.observe.policy import read_policy
from vmpack.units import MIB

POLICY = GuestPolicy(nominal_bytes=256 * MIB, floor_bytes=64 * MIB)
DOMAIN = """<?xml version='1.0' encoding='UTF-8'?>
<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
\t<name>one-12</name>
\t<title>it's "ours" &amp; \u00fcml\u00e4ut &#36;HOME</title>
\t<cputune>
\t\t<shares>1024</shares>
\t</cputune>
\t<memory>524288</memory>
\t<currentMemory>262144</currentMemory>
\t<devices>
\t\t<disk type='file' device='disk'>
\t\t\t<source file='/var/lib/one//datastores/0/12/disk.0'/>
\t\t\t<target dev='vda'/>
\t\t</disk>
\t</devices>
\t<!-- </devices> </metadata> -->
\t<devices>
\t\t<input type='tablet'/>
\t</devices>
\t<metadata>
\t\t<one:vm xmlns:one="http://opennebula.org/xmlns/libvirt/1.0">
\t\t\t<one:name><![CDATA[</metadata></devices>]]></one:name>
\t\t</one:vm>
\t</metadata>
</domain>
"""
BALLOON = (
    "<memballoon model='virtio' autodeflate='on' freePageReporting='on'><stats period='1'/></memballoon>"
)


def ready(xml: str = DOMAIN, page_reporting: bool = True) -> str:
    text = prepared(xml, POLICY, period_s=1, page_reporting=page_reporting)
    assert text is not None
    return text


def test_the_vm_reports_gives_way_and_knows_what_is_paid_for() -> None:
    """No VM of OpenNebula would report its use, and one that can be resized would get unpaid memory."""
    domain = ElementTree.fromstring(ready())
    assert read_policy(domain) == (POLICY, ())
    (balloon,) = domain.findall("devices/memballoon")
    assert balloon.attrib == {"model": "virtio", "autodeflate": "on", "freePageReporting": "on"}
    assert balloon.find("stats[@period='1']") is not None


def test_nothing_else_changes() -> None:
    """The stock script edits this text with sed: with other quotes its disks would not be found."""
    text = ready()
    policy = text[text.index("<vmpack:policy") : text.index("/>", text.index("<vmpack:policy")) + 2]
    assert text.replace(BALLOON, "", 1).replace(policy, "", 1) == DOMAIN


def test_an_old_qemu_is_not_asked_for_page_reporting() -> None:
    """The VM would not start."""
    assert "freePageReporting" not in ready(page_reporting=False)


def test_metadata_are_made_where_there_are_none() -> None:
    """A domain without metadata would have no ceiling."""
    xml = "<domain><memory>262144</memory><devices>\n</devices></domain>"
    assert read_policy(ElementTree.fromstring(ready(xml))) == (POLICY, ())


@pytest.mark.parametrize(
    "own", ["<memballoon model='virtio'/>", "<memballoon model='virtio' autodeflate='off'/>"]
)
def test_an_owner_s_own_balloon_stays(own: str) -> None:
    """What an administrator wrote into RAW would be overruled."""
    xml = DOMAIN.replace("<input type='tablet'/>", own)
    text = ready(xml)
    assert text.count("<memballoon") == 1 and own in text
    assert read_policy(ElementTree.fromstring(text))[0] == POLICY


@pytest.mark.parametrize(
    "part",
    [
        "<memoryBacking><hugepages/></memoryBacking>",
        "<maxMemory slots='4'>1048576</maxMemory>",
        "<launchSecurity type='sev'/>",
        "<vcpu>1</vcpu><cputune><vcpupin vcpu='0' cpuset='3'/></cputune>",
        "<devices><hostdev mode='subsystem' type='pci'/></devices>",
        "<devices><memballoon model='none'/></devices>",
    ],
)
def test_a_vm_that_is_not_packed_is_left_as_it_is(part: str) -> None:
    """A VM with a GPU or huge pages would be started with a device that its owner never asked for."""
    assert (
        prepared(DOMAIN.replace("<cputune>", part + "<cputune>", 1), POLICY, period_s=1, page_reporting=True)
        is None
    )


@pytest.mark.parametrize(
    "xml",
    [
        "",
        "<domain>",
        "<vm/>",
        "<domain/>",
        "<domain><memory>1</memory><devices/></domain>",
        "<domain><memory>x</memory><devices></devices></domain>",
        '<!DOCTYPE domain [<!ENTITY a "b">]><domain><memory>1</memory><devices></devices></domain>',
        "<domain><memory>1</memory><devices></devices><metadata/></domain>",
        DOMAIN.replace("<metadata>", '<metadata><p:policy xmlns:p="urn:vmpack:vm:1" nominal="1"/>'),
        "\udcff" + DOMAIN,
    ],
    ids=lambda text: repr(text)[:30],
)  # fmt: skip
def test_what_cannot_be_added_to_is_refused(xml: str) -> None:
    """A half-made XML would keep the VM from starting; refused, it is deployed as oned made it."""
    with pytest.raises(CloudError):
        prepared(xml, POLICY, period_s=1, page_reporting=True)


@given(
    st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"), exclude_characters="\ufffe\uffff"))
)
def test_text_of_owners_never_moves_what_is_added(text: str) -> None:
    """An owner could name his VM so that it has no ceiling, or does not start."""
    title = ElementTree.Element("title")
    title.text = text
    xml = DOMAIN.replace("\t<cputune>", ElementTree.tostring(title, encoding="unicode") + "\t<cputune>", 1)
    made = ready(xml)
    assert len(made) - len(xml) == len(ready()) - len(DOMAIN)
    assert read_policy(ElementTree.fromstring(made))[0] == POLICY


@pytest.mark.parametrize(
    ("old", "new", "mib"),
    [
        ("", "", 256),
        ("\t<currentMemory>262144</currentMemory>\n", "", 512),
        ("<currentMemory>", "<currentMemory unit='KiB'>", 256),
    ],
)
def test_the_first_size_is_what_is_paid_for(old: str, new: str, mib: int) -> None:
    """With MEMORY_MAX an owner would have all that he may one day be resized to."""
    assert promised_bytes(DOMAIN.replace(old, new) if old else DOMAIN) == mib * MIB


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("<currentMemory>262144", "<currentMemory unit='GiB'>1"),
        ("262144", "-1"),
        ("262144", "1e6"),
        ("262144", ""),
    ],
)
def test_a_size_that_is_not_told_plainly_is_not_guessed(old: str, new: str) -> None:
    """A VM could be held to a thousandth of what it was promised."""
    with pytest.raises(CloudError):
        promised_bytes(DOMAIN.replace(old, new, 1))
