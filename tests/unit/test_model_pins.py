"""The note of pins as it is read back: what vmpack wrote, and what somebody else may have written there."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from xml.etree.ElementTree import Element

import pytest

from vmpack.model import pins
from vmpack.model.pins import PINS_ELEMENT, PINS_NAMESPACE, Pin, format_cpus, parse_cpus, pins_xml, read_pins

NOTED = (
    Pin("emulator", 0, "scheduler", (0, 1)),
    Pin("vcpu", 0, "hand", (3,), (0, 1, 2, 3, 5), (2,)),
    Pin("vcpu", 1, "scheduler", (4, 5, 6), (), ()),
)


def note(text: str) -> Element:
    """The note as libvirt gives it when asked for this metadata alone."""
    return ElementTree.fromstring(text)


def many(count: int, cpus: str = "0") -> Element:
    """A note of so many vCPUs' pins."""
    made = Element(PINS_ELEMENT)
    for number in range(count):
        attributes = {"thread": "vcpu", "number": str(number), "by": "hand", "cpus": cpus, "before": cpus}
        ElementTree.SubElement(made, "pin", attributes)
    return made


@pytest.mark.parametrize("cpus", [(), (0,), (0, 1), (0, 1, 2, 5, 7, 8), tuple(range(8192)), (0, 8191)])
def test_cpus_are_read_as_they_were_written(cpus: tuple[int, ...]) -> None:
    """A thread would be put back on other CPUs than it had."""
    assert parse_cpus(format_cpus(cpus)) == cpus


@pytest.mark.parametrize("text", ["0-8191,0-8191", "0-8191," * 2_000 + "0", "1,1", "3,2", "0-4,4-5", "0-4,2"])
def test_cpus_are_named_once_and_ascending(text: str) -> None:
    """The owner of one VM could keep the agent of the whole host busy with a list that repeats itself."""
    with pytest.raises(ValueError):
        parse_cpus(text)


def test_a_note_is_read_as_it_was_written() -> None:
    """Pins of vmpack's own would count as somebody else's, and never be taken off."""
    written = pins_xml(NOTED)
    assert written is not None
    in_domain = written.replace("<pins", f"<pins xmlns='{PINS_NAMESPACE}'", 1)

    assert read_pins(note(written)) == NOTED
    assert read_pins(note(in_domain)) == NOTED


@pytest.mark.parametrize(
    "other", ["<pen {}/>", "<o:pin xmlns:o='urn:other' {}/>", "<pins><pin {}/></pins>", "<!-- {} -->"]
)
@pytest.mark.parametrize("namespace", ["", f" xmlns='{PINS_NAMESPACE}'"])
def test_only_pins_of_the_notes_own_namespace_count(other: str, namespace: str) -> None:
    """What another program keeps beside them would be taken for a pin of vmpack's and be taken off."""
    pin = "thread='vcpu' number='{}' by='hand' cpus='1' before='all'"
    text = f"<pins{namespace}>{other.format(pin.format(0))}<pin {pin.format(1)}/></pins>"

    assert [found.key for found in read_pins(note(text))] == [("vcpu", 1)]


def test_a_pin_without_namespace_in_a_note_that_has_one_does_not_count() -> None:
    """libvirt never shows a note of vmpack's so: somebody else wrote it."""
    pin = "<pin thread='vcpu' number='0' by='hand' cpus='1' before='all'/>"

    assert read_pins(note(f"<p:pins xmlns:p='{PINS_NAMESPACE}'>{pin}</p:pins>")) == ()


def test_no_more_pins_are_read_than_a_vm_can_have_threads() -> None:
    """The owner of one VM could keep the agent of the whole host busy with a note that does not end."""
    assert len(read_pins(many(pins._MOST_PINS + 500))) == pins._MOST_PINS


def test_a_note_names_only_so_many_cpus() -> None:
    """A few hundred kilobytes of metadata would become gigabytes in the agent."""
    found = read_pins(many(4096, "0-8191"))

    assert 0 < sum(len(pin.cpus) + len(pin.before) for pin in found) < 1.1 * pins._MOST_NAMED_CPUS


def test_masks_of_pins_that_are_not_understood_count_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A forger would add a mistake to each pin, and keep the agent of the whole host as busy as before."""
    parsed: list[str] = []

    def counted(text: str) -> tuple[int, ...]:
        parsed.append(text)
        return parse_cpus(text)

    monkeypatch.setattr(pins, "parse_cpus", counted)
    forged = many(4096, "0-8191")
    for pin in forged:
        pin.set("instead_of", "mistake")

    assert read_pins(forged) == ()
    assert len(parsed) < 500


def test_a_large_vm_on_a_large_host_is_read_whole() -> None:
    """A bound against forgers must not make vmpack forget its own pins."""
    assert len(read_pins(many(512, "0-511"))) == 512
