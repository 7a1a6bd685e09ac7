"""What tests with real guests share: one private lab for the session, and guests that end with their test."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vmpack.errors import UnavailableError
from vmpack.lab.domain_xml import find_emulator
from vmpack.lab.guest_spec import GuestSpec
from vmpack.lab.lab import Lab, LabGuest
from vmpack.lab.pair import Pair

Boot = Callable[..., list[LabGuest]]
BootOn = Callable[..., list[LabGuest]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder boots real guests."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.real)


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """A libvirt of the tests' own; it ends with this process, however that ends."""
    try:
        find_emulator()
    except UnavailableError as error:
        pytest.skip(str(error))
    with Lab.private() as private:
        yield private


@pytest.fixture(scope="session")
def pair() -> Iterator[Pair]:
    """Two hosts that migrate guests to each other; they end with this process, however that ends."""
    if os.geteuid() != 0:
        pytest.skip("a pair of hosts needs root")
    try:
        find_emulator()
    except UnavailableError as error:
        pytest.skip(str(error))
    with Pair.private() as private:
        yield private


@pytest.fixture
def boot_on(pair: Pair) -> Iterator[BootOn]:
    """`boot_on(pair.a, spec, ...)` starts guests there and waits until they are ready.

    After the test they end, wherever they are, and a libvirt that the test killed is back.
    """
    names: set[str] = set()

    def start(host: Lab, *specs: GuestSpec) -> list[LabGuest]:
        names.update(spec.name for spec in specs)
        guests = host.start(*specs)
        host.wait_ready()
        return guests

    yield start
    for host in pair.hosts:
        host.restart_libvirt()
        for name in names:
            LabGuest(host, name).destroy()


@pytest.fixture
def boot(lab: Lab) -> Iterator[Boot]:
    """`boot(spec, ...)` starts guests, waits until they are ready, and ends them after the test."""
    started: list[LabGuest] = []

    def start(*specs: GuestSpec) -> list[LabGuest]:
        guests = lab.start(*specs)
        started.extend(guests)
        lab.wait_ready()
        return guests

    yield start
    for guest in started:
        guest.destroy()
