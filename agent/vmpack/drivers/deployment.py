"""The domain XML of a VM that OpenNebula is about to start, made ready for packing. Pure; called by hooks.py.

Promises: text is only added, so that what the stock action greps and edits is where it was; a VM that will
not be packed, and an owner's own <memballoon>, stay as they are.
"""

from __future__ import annotations

import xml.parsers.expat as expat
from xml.etree.ElementTree import Element

from vmpack.act.policy_xml import policy_xml
from vmpack.clouds.opennebula_xml import read_domain
from vmpack.errors import CloudError
from vmpack.model.guest import GuestPolicy
from vmpack.model.policy_namespace import POLICY_ELEMENT, POLICY_NAMESPACE, POLICY_PREFIX
from vmpack.observe.domain_facts import read_facts
from vmpack.units import KIB

_METADATA = "domain/metadata"
_DEVICES = "domain/devices"


def promised_bytes(xml: str) -> int:
    """What the owner of this domain pays for: its first size, not the one that it can be resized to.

    Raises CloudError.
    """
    domain = read_domain(xml)
    element = domain.find("currentMemory")
    if element is None:
        element = domain.find("memory")
    text = "" if element is None else (element.text or "").strip()
    if element is None or element.get("unit", "KiB") != "KiB" or not (text.isascii() and text.isdecimal()):
        raise CloudError("the domain's XML does not tell its memory in KiB")
    return int(text) * KIB


def prepared(xml: str, policy: GuestPolicy, *, period_s: int, page_reporting: bool) -> str | None:
    """The XML with a balloon that reports and gives way by itself, and with this policy; None: leave it.

    `page_reporting`: this QEMU can hand back pages that the guest has freed. Raises CloudError.
    """
    domain = read_domain(xml)
    if domain.find(f"metadata/{{{POLICY_NAMESPACE}}}{POLICY_ELEMENT}") is not None:
        raise CloudError("its metadata hold a policy already, perhaps by RAW")
    added = {_METADATA: _policy(policy)}
    if domain.find("devices/memballoon") is None:
        added[_DEVICES] = _balloon(period_s, page_reporting)
    ready = _inserted(xml, added)
    return None if _is_left_alone(read_domain(ready), ready) else ready


def _is_left_alone(domain: Element, xml: str) -> bool:
    try:
        return bool(read_facts(xml).exclusions)
    except ValueError as error:
        raise CloudError(f"the domain {domain.findtext('name', '')!r:.40} has odd values: {error}") from error


def _balloon(period_s: int, page_reporting: bool) -> str:
    reporting = " freePageReporting='on'" if page_reporting else ""
    return f"<memballoon model='virtio' autodeflate='on'{reporting}><stats period='{period_s}'/></memballoon>"


def _policy(policy: GuestPolicy) -> str:
    plain = policy_xml(policy)
    assert plain is not None, "it has a nominal"
    opening = f'<{POLICY_PREFIX}:{POLICY_ELEMENT} xmlns:{POLICY_PREFIX}="{POLICY_NAMESPACE}"'
    return plain.replace(f"<{POLICY_ELEMENT}", opening, 1)


def _inserted(xml: str, added: dict[str, str]) -> str:
    """The document with text added at the end of the first element at each of these paths."""
    data = xml.encode()
    ends = _ends(data)
    if _METADATA not in ends:
        added = {**added, "domain": f"<metadata>{added[_METADATA]}</metadata>"}
        del added[_METADATA]
    for path, text in sorted(added.items(), key=lambda item: -ends.get(item[0], 0)):
        at, tag = ends.get(path), path.rpartition("/")[2]
        if at is None or not data[at:].startswith(f"</{tag}".encode()):
            raise CloudError(f"the domain's XML has no <{tag}> to add to")
        data = data[:at] + text.encode() + data[at:]
    return data.decode()


def _ends(data: bytes) -> dict[str, int]:
    """Where the first element at each path ends, in bytes. The document is known to be well-formed."""
    ends: dict[str, int] = {}
    open_elements: list[str] = []
    parser = expat.ParserCreate("utf-8")

    def begin(name: str, _attributes: dict[str, str]) -> None:
        open_elements.append(name)

    def end(_name: str) -> None:
        ends.setdefault("/".join(open_elements), parser.CurrentByteIndex)
        open_elements.pop()

    parser.StartElementHandler, parser.EndElementHandler = begin, end
    parser.Parse(data, True)
    return ends
