"""What the cloud promised where the VM was built with more: the ceiling, and what is reckoned from it."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import libvirt
import pytest
from tests.builders import EAGER, NOW_S, SETTINGS, guest, host
from tests.fake_libvirt import XML, FakeDomain, FakeHypervisor, error
from tests.fake_vms import FakeClock

from vmpack.act.policy_xml import policy_xml
from vmpack.decide.memory import plan
from vmpack.decide.release import plan_release
from vmpack.hypervisor import nominal_bytes
from vmpack.model.guest import GuestPolicy, GuestSnapshot
from vmpack.model.plan import Remembered
from vmpack.model.policy_namespace import POLICY_NAMESPACE
from vmpack.observe.domain_facts import read_facts
from vmpack.observe.source import HostSource
from vmpack.units import MIB

NOTHING = Remembered()


def with_metadata(element: str) -> str:
    """A domain's XML with vmpack's element in it."""
    return re.sub(r"<vmpack:policy [^>]*/>", lambda _: element, XML, count=1)


def promised(size: object) -> str:
    return f'<vmpack:policy xmlns:vmpack="{POLICY_NAMESPACE}" nominal="{size}"/>'


def observed(size: object, **stats: object) -> GuestSnapshot:
    """The VM of the captured XML, built with 256 MiB, as one look at the host finds it."""
    domain = FakeDomain(**stats)
    domain.xml = with_metadata(promised(size))
    source = HostSource(
        FakeHypervisor(domain),  # type: ignore[arg-type]
        FakeClock(),
        pretended_bytes=None,
        frozen=lambda: False,
        claims=lambda: (),
        proc=Path("/proc"),
    )
    (found,) = source.observe().guests
    return found


def resized(balloon: int, used: int, **fields: object) -> GuestSnapshot:
    """A guest that was built with 512 MiB, and whose owner pays for 256."""
    return guest(nominal=256, balloon=balloon, used=used, maximum_bytes=512 * MIB, **fields)


def target_mib(entry: GuestSnapshot, budget: int | None = None) -> float:
    return plan(host(entry, budget=budget), NOTHING, EAGER).guests[0].target_bytes / MIB


def test_the_cloud_s_word_is_the_ceiling():
    """An owner would be given memory that he does not pay for."""
    found = observed(128 * MIB, **{"balloon.current": 100 * 1024, "balloon.available": 90 * 1024})
    assert (found.nominal_bytes, found.maximum_bytes, found.built_bytes) == (128 * MIB, 256 * MIB, 256 * MIB)
    assert found.balloon_bytes == 100 * MIB


@pytest.mark.parametrize("size", [512 * MIB, 256 * MIB])
def test_no_more_than_the_vm_was_built_with(size: int):
    """vmpack would ask QEMU for memory that the VM does not have."""
    found = observed(size)
    assert (found.nominal_bytes, found.maximum_bytes) == (256 * MIB, None)


@pytest.mark.parametrize("size", ["", "0", "-1", "1e9", "x", "9" * 40, "٣"])
def test_a_nominal_that_cannot_be_is_told_and_not_used(size: str):
    """A broken attribute could take a VM's memory to nothing."""
    facts = read_facts(with_metadata(promised(size)))
    assert facts.policy.nominal_bytes is None
    assert len(facts.policy_faults) == 1 and "is not a number of bytes" in facts.policy_faults[0]


def test_a_balloon_above_nominal_is_what_it_is():
    """Memory that a VM has beyond its nominal (it was resized) would not count against the host's budget."""
    found = observed(128 * MIB, **{"balloon.last-update": 1})
    assert (found.balloon_bytes, found.stats_fault) == (256 * MIB, None)
    assert found.stats is not None and found.stats.available_bytes > 128 * MIB


@pytest.mark.parametrize("field", ["floor_bytes", "hold_until_s", "shares", "headroom_ratio"])
def test_what_is_written_besides_keeps_the_nominal(field: str):
    """A hold or a floor set by hand would take the ceiling away."""
    values = {"floor_bytes": 5 * MIB, "hold_until_s": 12.5, "shares": 7, "headroom_ratio": 0.5}
    policy = dataclasses.replace(GuestPolicy(nominal_bytes=128 * MIB), **{field: values[field]})
    text = policy_xml(policy)
    assert text is not None
    element = text.replace("<policy", f'<vmpack:policy xmlns:vmpack="{POLICY_NAMESPACE}"', 1)
    assert read_facts(with_metadata(element)).policy == policy


class OneDomain:
    """A domain of 256 MiB with this answer to the question for its metadata."""

    def __init__(self, answer: str | libvirt.libvirtError) -> None:
        self.answer = answer

    def name(self) -> str:
        return "g1"

    def maxMemory(self) -> int:
        return 256 * 1024

    def metadata(self, _kind: int, _namespace: str) -> str:
        if isinstance(self.answer, libvirt.libvirtError):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    ("answer", "mib"),
    [
        (f'<policy nominal="{128 * MIB}"/>', 128),
        (f'<policy nominal="{512 * MIB}"/>', 256),
        ("<policy/>", 256),
        ('<policy nominal="x"/>', 256),
        ("<policy", 256),
        (error(libvirt.VIR_ERR_NO_DOMAIN_METADATA), 256),
    ],
    ids=str,
)
def test_what_acts_sees_the_same_nominal(answer: str | libvirt.libvirtError, mib: int):
    """Every change would be refused as "its nominal has changed", or one made against a nominal that has."""
    assert nominal_bytes(OneDomain(answer)) == mib * MIB


@pytest.mark.parametrize("autodeflate", [False, True])
def test_use_is_reckoned_from_what_the_vm_was_built_with(autodeflate: bool):
    """A guest whose MemTotal counts the balloon would seem to use all that its owner does not pay for."""
    entry = resized(balloon=200, used=60, autodeflate=autodeflate)
    if autodeflate:
        assert entry.stats is not None
        stats = dataclasses.replace(entry.stats, available_bytes=entry.stats.available_bytes + 256 * MIB)
        entry = dataclasses.replace(entry, stats=stats)
    (decided,) = plan(host(entry), NOTHING, SETTINGS).guests
    assert decided.used_bytes == 60 * MIB


def test_nothing_grows_beyond_nominal():
    """A needy owner would be given another's memory for nothing."""
    assert target_mib(resized(balloon=200, used=190)) == 256
    assert target_mib(resized(balloon=256, used=215)) == 256


def test_what_is_unpaid_and_unused_is_taken():
    """A VM that its owner made smaller would keep what it had."""
    assert target_mib(resized(balloon=400, used=190)) == 256
    assert target_mib(resized(balloon=400, used=30)) < 256


def test_what_is_unpaid_but_used_is_not_torn_away():
    """The guest of an owner who resized it below its use would kill its processes."""
    target = target_mib(resized(balloon=400, used=300))
    assert 300 + 38 <= target <= 400
    assert target_mib(resized(balloon=400, used=361)) == 400


def test_above_nominal_and_scarce_nothing_is_planned_below_use():
    """A shortage on the host would end in kills in the guest, or the plan in a crash."""
    entry = resized(balloon=400, used=355)
    other = guest("g2", nominal=256, balloon=100, used=90)
    decided = plan(host(entry, other, budget=450), NOTHING, EAGER)
    target = {seen.name: seen.target_bytes for seen in decided.guests}
    assert target["g1"] >= 393 * MIB


def test_a_release_gives_no_more_than_nominal_and_takes_nothing():
    """Giving back would give what nobody paid for, or squeeze a VM."""
    small, large = (
        resized(balloon=100, used=30),
        dataclasses.replace(resized(balloon=400, used=300), uuid="uuid-g2", name="g2"),
    )
    for uuids in (None, frozenset({small.uuid, large.uuid})):
        given = plan_release(host(small, large), NOTHING, SETTINGS, uuids)
        orders = {action.uuid: action.to_bytes for action in given.actions if action.kind == "set_memory"}
        assert orders == {small.uuid: 256 * MIB}


def test_a_stuck_balloon_above_nominal_is_a_floor_too():
    """A guest that cannot give more would be squeezed again and again."""
    entry = resized(balloon=400, used=30)
    first = plan(host(entry), NOTHING, EAGER)
    known = first.remembered.guests[entry.uuid]._replace(
        learned_floor_bytes=390 * MIB, learned_floor_until_s=NOW_S + 100
    )
    decided = plan(host(entry), Remembered({entry.uuid: known}), EAGER)
    assert decided.guests[0].target_bytes == 390 * MIB
