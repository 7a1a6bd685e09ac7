"""The pins that vmpack set on one VM, as they are noted in its libvirt metadata; there is no other record.

act/ writes the note before it pins anything, observe/ reads it. It lies in the running VM alone and goes with
it. Whoever writes metadata may write anything there: a pin that is not understood counts as not noted.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from itertools import islice
from typing import Literal, NamedTuple
from xml.etree.ElementTree import Element, SubElement, tostring

from vmpack.model.thread import ThreadKey, ThreadKind
from vmpack.units import cpu_ranges

PINS_NAMESPACE = "urn:vmpack:pins:1"
"""Not the policy's: libvirt keeps one element per namespace."""
PINS_PREFIX = "vmpack-pins"
PINS_ELEMENT = "pins"
PINS_PATH = f"metadata/{{{PINS_NAMESPACE}}}{PINS_ELEMENT}"
"""In a domain's XML."""

PinnedBy = Literal["hand", "scheduler"]

_PIN_ELEMENT = "pin"
_ANY = "all"
_KINDS: tuple[ThreadKind, ...] = ("vcpu", "emulator", "iothread")
_BY: tuple[PinnedBy, ...] = ("hand", "scheduler")
_NUMBER = re.compile(r"[0-9]{1,5}", re.ASCII)
_RANGE = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", re.ASCII)
_MOST_CPUS = 8192
_LONGEST_LIST = 20_000
_MOST_PINS = 4096 + 4096 + 1
"""As many as a VM can have vCPUs (KVM's limit) and I/O threads, and the emulator."""
_MOST_NAMED_CPUS = 1_000_000
"""In all masks of one note together, about; a pin that is not understood counts as one mask of all CPUs."""


class Pin(NamedTuple):
    """One thread that was pinned."""

    thread: ThreadKind
    number: int
    """Of the vCPU or I/O thread; 0 for the emulator."""
    by: PinnedBy
    cpus: tuple[int, ...]
    """What it was pinned to, ascending; never empty."""
    before: tuple[int, ...] = ()
    """What it ran on before vmpack; empty: any."""
    instead_of: tuple[int, ...] = ()
    """An earlier pin of vmpack that may still be the one that holds; empty: none."""

    @property
    def key(self) -> ThreadKey:
        """The thread."""
        return self.thread, self.number

    def holds(self, cpus: Collection[int], online: Iterable[int]) -> bool:
        """True while the mask that was found (empty: any CPU) is this pin: nobody has changed it since.

        The kernel leaves out CPUs that are off; a pin to nothing else holds whatever it made of it.
        """
        on = set(online)
        found = on.intersection(cpus or on)
        return any(on.intersection(mask) in (found, set()) for mask in (self.cpus, self.instead_of) if mask)


def read_pins(element: Element | None) -> tuple[Pin, ...]:
    """The pins in the metadata's element, one a thread; what is not understood is left out.

    Of more than a VM can have, or than one note may name CPUs, the first count.
    """
    pins: dict[ThreadKey, Pin] = {}
    named = 0
    for child in () if element is None else islice(_pin_elements(element), _MOST_PINS):
        if named > _MOST_NAMED_CPUS:
            break
        try:
            pin = _read_pin(child)
        except (KeyError, ValueError):
            named += _MOST_CPUS
            continue
        named += len(pin.cpus) + len(pin.before) + len(pin.instead_of)
        pins.setdefault(pin.key, pin)
    return tuple(pins[key] for key in sorted(pins))


def pins_xml(pins: Iterable[Pin]) -> str | None:
    """The element without its namespace, which libvirt adds; None without pins, to remove it."""
    element = Element(PINS_ELEMENT)
    for pin in sorted(pins):
        attributes = {
            "thread": pin.thread,
            "number": str(pin.number),
            "by": pin.by,
            "cpus": format_cpus(pin.cpus),
            "before": format_cpus(pin.before),
        }
        if pin.instead_of:
            attributes["instead_of"] = format_cpus(pin.instead_of)
        SubElement(element, _PIN_ELEMENT, attributes)
    return tostring(element, encoding="unicode") if len(element) else None


def format_cpus(cpus: Iterable[int]) -> str:
    """(0, 1, 2, 5) as "0-2,5"; none as "all"."""
    return cpu_ranges(sorted(set(cpus))) or _ANY


def parse_cpus(text: str) -> tuple[int, ...]:
    """The opposite of `format_cpus`. Raises ValueError, also where ranges do not ascend or overlap."""
    if text == _ANY:
        return ()
    if len(text) > _LONGEST_LIST:
        raise ValueError(text)
    cpus: list[int] = []
    for part in text.split(","):
        found = _RANGE.fullmatch(part)
        if found is None:
            raise ValueError(text)
        first, last = int(found[1]), int(found[2] or found[1])
        if not first <= last < _MOST_CPUS or (cpus and first <= cpus[-1]):
            raise ValueError(text)
        cpus.extend(range(first, last + 1))
    return tuple(cpus)


def _pin_elements(note: Element) -> Iterable[Element]:
    """Those in the note's own namespace: libvirt takes it off both when asked for the metadata alone."""
    namespace = note.tag.removesuffix(PINS_ELEMENT)
    return (child for child in note if child.tag == namespace + _PIN_ELEMENT)


def _read_pin(element: Element) -> Pin:
    (kind,) = (kind for kind in _KINDS if kind == element.attrib["thread"])
    (by,) = (by for by in _BY if by == element.attrib["by"])
    number = element.attrib["number"]
    if _NUMBER.fullmatch(number) is None or (kind == "emulator" and int(number)):
        raise ValueError(number)
    cpus = parse_cpus(element.attrib["cpus"])
    if not cpus:
        raise ValueError(element.attrib["cpus"])
    before, instead_of = (parse_cpus(element.get(name, _ANY)) for name in ("before", "instead_of"))
    return Pin(kind, int(number), by, cpus, before, instead_of)
