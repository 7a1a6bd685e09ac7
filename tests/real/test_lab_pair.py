"""The pair of labs: guests move between its hosts and back, and nothing of it stays behind."""

from __future__ import annotations

import os
from pathlib import Path

import libvirt
import pytest

from tests.real.conftest import BootOn
from tests.waiting import eventually
from vmpack.lab.guest_spec import GuestSpec
from vmpack.lab.lab import Lab, LabGuest
from vmpack.lab.pair import Pair
from vmpack.units import MIB

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a pair of hosts needs root")

_LIVE = libvirt.VIR_MIGRATE_PEER2PEER | libvirt.VIR_MIGRATE_LIVE


def _migrate(guest: LabGuest, destination: Lab) -> LabGuest:
    guest.domain.migrateToURI3(destination.uri, {}, _LIVE)
    return destination.guest(guest.name)


def test_a_guest_moves_there_and_back(pair: Pair, boot_on: BootOn) -> None:
    """Every test of migration stands on this: the same guest, with its load, under control on either host."""
    (here,) = boot_on(pair.a, GuestSpec("mover"))
    here.control.load_tmpfs(8 * MIB)
    eventually("the load is there", lambda: here.control.progress()[0].state == "done")
    up_s, qemu = here.control.ping(), here.pid

    there = _migrate(here, pair.b)
    assert not Path(f"/proc/{qemu}").exists()
    assert pair.a.guests() == []
    assert there.is_ready()
    there_up_s = there.control.ping()
    assert there_up_s > up_s
    there.control.run(["sh", "-c", "echo moved > /dev/ttyS0"])
    eventually("the console goes on", lambda: "moved" in there.console_text())
    pair.b.wait_ready()

    back = _migrate(there, pair.a)
    assert pair.b.guests() == []
    assert back.control.ping() > there_up_s
    assert back.control.progress()[0].held_bytes == 8 * MIB
    back.control.run(["sh", "-c", "echo returned > /dev/ttyS0"])
    eventually("the console goes on", lambda: "returned" in back.console_text())
    assert "READY " in back.console_text()
