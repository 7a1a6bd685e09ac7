"""The size of a balloon is the guest's own word: what becomes of impossible ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import libvirt
import pytest
from tests.fake_libvirt import SILENT, FakeDomain, FakeHypervisor, error
from tests.fake_vms import FakeClock

from vmpack.act.driver import LibvirtDriver
from vmpack.model.host import HostSnapshot
from vmpack.observe.source import HostSource
from vmpack.units import MIB

TOOK_MORE_THAN_IT_HAS_KIB = 18014398509480960
"""What libvirt shows where a guest's driver claims to have given 1 MiB more than its nominal."""


def observe(*domains: FakeDomain) -> HostSnapshot:
    source = HostSource(
        FakeHypervisor(*domains),  # type: ignore[arg-type]
        FakeClock(),
        pretended_bytes=None,
        frozen=lambda: False,
        claims=lambda: (),
        proc=Path("/proc"),
    )
    return source.observe()


@pytest.mark.parametrize("claim_kib", [0, -1, 262145, TOOK_MORE_THAN_IT_HAS_KIB, "much", 2.5])
def test_an_impossible_balloon_counts_as_nominal_and_is_told(claim_kib: object):
    """A guest could make the host believe that its memory is free, and the administrator would not know."""
    (guest,) = observe(FakeDomain(**{"balloon.current": claim_kib})).guests

    assert guest.balloon_bytes == guest.nominal_bytes == 256 * MIB
    assert guest.stats is None
    assert guest.stats_fault is not None and str(claim_kib) in guest.stats_fault


def test_a_silent_vm_holds_no_more_than_its_nominal():
    """One hung guest with a wild balloon would leave nothing of the budget for all the others."""
    hung = FakeDomain()
    hung.stats = SILENT | {"balloon.current": 2**50}

    (guest,) = observe(hung).unreadable

    assert guest.balloon_bytes == 256 * MIB


class OneDomain:
    """A virConnect with one running domain of 256 MiB whose balloon is as it claims."""

    def __init__(self, claim_kib: object) -> None:
        self._claim_kib = claim_kib

    def call(self, _what: str, function: Any, **_options: object) -> Any:
        return function(self)

    def lookupByUUIDString(self, _uuid: str) -> OneDomain:
        return self

    def name(self) -> str:
        return "g1"

    def state(self) -> tuple[int, int]:
        return libvirt.VIR_DOMAIN_RUNNING, 0

    def maxMemory(self) -> int:
        return 256 * 1024

    def metadata(self, _kind: int, _namespace: str) -> str:
        raise error(libvirt.VIR_ERR_NO_DOMAIN_METADATA)

    def memoryStats(self) -> dict[str, object]:
        return {"actual": self._claim_kib}

    def jobStats(self) -> dict[str, int]:
        return {"type": 0}


@pytest.mark.parametrize("claim_kib", [0, 262145, TOOK_MORE_THAN_IT_HAS_KIB])
def test_an_impossible_balloon_neither_pays_for_others_nor_keeps_them_from_growing(claim_kib: int):
    """Right before acting, a wild size would eat the room of the whole interval, and 0 would pay for it."""
    driver = LibvirtDriver(OneDomain(claim_kib))  # type: ignore[arg-type]

    assert driver.look("g1").balloon_bytes == 256 * MIB
    assert driver.balloon_bytes("g1") == 256 * MIB
