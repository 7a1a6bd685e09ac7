"""What tests with real guests share: one private lab for the session, and guests that end with their test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vmpack.errors import UnavailableError
from vmpack.lab.domain_xml import find_emulator
from vmpack.lab.guest_spec import GuestSpec
from vmpack.lab.lab import Lab, LabGuest

Boot = Callable[..., list[LabGuest]]


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
