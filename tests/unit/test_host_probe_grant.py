"""What the probe adds to a host's memory: the rule of `vmpack grant`, from what the agent itself knows."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import builders, intervals

from vmpack.decide.grant import plan_grant
from vmpack.host.probe_grant import probe_grant_bytes
from vmpack.model.cluster import AgentReport, CloudHost, ReportedVm
from vmpack.model.interval import Interval
from vmpack.model.settings import GrantSettings
from vmpack.units import GIB, MIB

BY_PROBE = GrantSettings("probe")
MIBS = st.integers(1, 16 * 1024)


def turn(total_mib: int, offered_mib: int, *vms: tuple[str, int, int], frozen: bool = False) -> Interval:
    """A host of this size that offers so much; VMs by name, nominal and balloon in MiB."""
    guests = tuple(builders.guest(name, nominal=nominal, balloon=balloon) for name, nominal, balloon in vms)
    packed = sum(guest.nominal_bytes - guest.balloon_bytes for guest in guests)
    made = intervals.interval(frozen=frozen)
    seen = dataclasses.replace(made.snapshot, guests=guests, memory_total_bytes=total_mib * MIB)
    offer = dataclasses.replace(made.plan.offer, memory_bytes=offered_mib * MIB, packed_bytes=max(0, packed))
    return dataclasses.replace(made, snapshot=seen, plan=dataclasses.replace(made.plan, offer=offer))


FULL = ("one-1", 8192, 4096)


@pytest.mark.parametrize(
    ("total", "offered", "vm", "factor", "granted"),
    [
        (8192, 3072, FULL, 1.0, 3072),
        (8192, 6000, FULL, 1.0, 4096),
        (8192, 6000, FULL, 0.5, 2048),
        (8192, 6000, FULL, 0.0, 0),
        (16384, 3072, FULL, 1.0, 0),
        (12288, 5120, FULL, 1.0, 1024),
        (8192, 3072, ("web", 8192, 4096), 1.0, 0),
    ],
    ids=["the offer", "what is packed", "a share of it", "no share", "half empty", "a third empty", "wild"],
)
def test_the_scheduler_is_promised_nothing_twice(
    total: int, offered: int, vm: tuple[str, int, int], factor: float, granted: int
) -> None:
    """It sees what is unused already: with the whole offer on top VMs would be placed on nothing."""
    found = probe_grant_bytes(turn(total, offered, vm), False, GrantSettings("probe", factor))
    assert found == granted * MIB


@given(MIBS, MIBS, st.lists(st.tuples(MIBS, MIBS), max_size=4), st.floats(0, 1))
def test_it_is_the_rule_of_the_command(
    total: int, offered: int, sizes: list[tuple[int, int]], factor: float
) -> None:
    """Two ways to tell the scheduler that disagree would make one of them wrong on every host."""
    offered = min(total, offered)
    vms = [(f"one-{number}", max(pair), min(pair)) for number, pair in enumerate(sizes)]
    interval = turn(total, offered, *vms)
    names = tuple(name for name, _, _ in vms)
    promised = sum(nominal for _, nominal, _ in vms) * MIB
    host = CloudHost(
        "0", "a", "up", "c", True, total * MIB, total * MIB, promised, granted_bytes=None, domains=names
    )
    reported = tuple(ReportedVm(name, name, nominal * MIB, had * MIB) for name, nominal, had in vms)
    packed = interval.plan.offer.packed_bytes
    answer = AgentReport("active", False, total * MIB, packed, offered * MIB, reported)
    settings = GrantSettings("probe", factor, step_bytes=1)
    by_command = plan_grant(host, {}, answer, settings, 0.0).granted_bytes
    assert probe_grant_bytes(interval, False, settings) == by_command


def test_a_pretended_host_grants_from_its_pretended_size() -> None:
    """What the configuration keeps from the cloud would otherwise count as free there."""
    real = turn(32768, 3072, FULL)
    small = dataclasses.replace(real, snapshot=dataclasses.replace(real.snapshot, pretended_bytes=8 * GIB))
    assert probe_grant_bytes(real, False, BY_PROBE) == 0
    assert probe_grant_bytes(small, False, BY_PROBE) == 3 * GIB


@pytest.mark.parametrize(("observe_only", "frozen"), [(True, False), (False, True)])
def test_an_agent_that_changes_nothing_grants_nothing(observe_only: bool, frozen: bool) -> None:
    """It could not get that memory back from its guests when the scheduler's new VM wants it."""
    assert probe_grant_bytes(turn(8192, 3072, FULL, frozen=frozen), observe_only, BY_PROBE) == 0


def test_by_default_the_probe_grants_nothing() -> None:
    """With RESERVED_MEM as the way, a raised TOTALMEMORY would grant the same memory twice."""
    assert probe_grant_bytes(turn(8192, 3072, FULL), False, GrantSettings()) == 0
