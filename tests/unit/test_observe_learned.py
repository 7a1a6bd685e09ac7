"""What was learned of a VM before, as one look at its new host finds it."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest
from tests.fake_libvirt import WALL_S, XML, FakeDomain, FakeHypervisor
from tests.fake_vms import FakeClock

from vmpack.act.learned_xml import learned_xml
from vmpack.model.guest import GuestPolicy
from vmpack.model.learned import LEARNED_NAMESPACE, Lapse, Learned
from vmpack.observe.domain_facts import read_facts
from vmpack.observe.source import NEW_S, HostSource
from vmpack.units import MIB


class SkewedClock(FakeClock):
    """The hour in which the XML was captured, by a wall clock that may be wrong."""

    ahead_s = 0.0

    def wall_s(self) -> float:
        return WALL_S + self.now_s - 1000.0 + self.ahead_s


LEARNED = Learned(WALL_S - 100, 256 * MIB, 3600.0, (0.0, 2.5), Lapse(1, 900.0, 200 * MIB))


def with_element(element: str) -> str:
    """The captured XML with this beside the policy."""
    return re.sub(r"(<vmpack:policy [^>]*/>)", lambda found: found[1] + element, XML, count=1)


def element_of(learned: Learned) -> str:
    """As libvirt writes it, with the namespace."""
    text = learned_xml(learned).replace("<learned ", f'<x:learned xmlns:x="{LEARNED_NAMESPACE}" ')
    assert LEARNED_NAMESPACE in text
    return text


def source_of(clock: FakeClock, element: str) -> HostSource:
    domain = FakeDomain()
    domain.xml = with_element(element)
    return HostSource(
        FakeHypervisor(domain),  # type: ignore[arg-type]
        clock,
        pretended_bytes=None,
        frozen=lambda: False,
        claims=lambda: (),
        proc=Path("/proc"),
    )


def test_it_is_read_beside_the_policy() -> None:
    """One of the two would hide the other, and owners' floors would be gone."""
    facts = read_facts(with_element(element_of(LEARNED)))

    assert facts.learned == LEARNED and facts.learned_fault == ""
    assert facts.policy != GuestPolicy() and facts.policy == read_facts(XML).policy


@pytest.mark.parametrize(("ahead_s", "age_s"), [(0.0, 100.0), (-50.0, 50.0), (-1e6, 0.0), (1e5, 100100.0)])
def test_ages_count_and_clocks_do_not(ahead_s: float, age_s: float) -> None:
    """A host whose clock is a day behind would keep for a day more what it takes for the future."""
    clock = SkewedClock()
    clock.ahead_s = ahead_s
    (guest,) = source_of(clock, element_of(LEARNED)).observe().guests

    assert guest.learned is not None
    assert clock.time_s() - guest.learned.written_s == pytest.approx(age_s)
    assert guest.learned.counts == LEARNED.counts and guest.learned.pressed == LEARNED.pressed


def test_it_is_told_while_the_vm_is_new() -> None:
    """The journal would hold it in every interval, a thousand times a day and VM."""
    clock = SkewedClock()
    source = source_of(clock, element_of(LEARNED))
    told = []
    for _ in range(3):
        (guest,) = source.observe().guests
        told.append(guest.learned is not None)
        clock.now_s += NEW_S / 2

    assert told == [True, True, False]


def test_a_text_that_cannot_be_used_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """A broken text would end the interval of every VM, or fill the log."""
    clock = SkewedClock()
    source = source_of(clock, f'<x:learned xmlns:x="{LEARNED_NAMESPACE}" v="9"/>')
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            (guest,) = source.observe().guests
            clock.now_s += 1

    assert guest.learned is None and guest.policy_faults == ()
    assert len([line for line in caplog.messages if "learned" in line and "'9'" in line]) == 1
