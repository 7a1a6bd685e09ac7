"""The pair of labs: guests move between its hosts and back, and nothing of it stays behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import libvirt
import pytest

from tests.real.conftest import BootOn
from tests.waiting import eventually
from vmpack.config import load
from vmpack.errors import GuestGoneError, UnavailableError
from vmpack.lab.daemon import leftovers, running_reaper
from vmpack.lab.guest_spec import GuestSpec
from vmpack.lab.lab import Lab, LabGuest
from vmpack.lab.pair import Pair, end_pair
from vmpack.lab.state import named_pair, pair_hosts
from vmpack.units import GIB, MIB

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
    assert "mover" not in [guest.name for guest in pair.a.guests()]
    assert there.is_ready()
    there_up_s = there.control.ping()
    assert there_up_s > up_s
    there.control.run(["sh", "-c", "echo moved > /dev/ttyS0"])
    eventually("the console goes on", lambda: "moved" in there.console_text())
    pair.b.wait_ready()

    back = _migrate(there, pair.a)
    assert "mover" not in [guest.name for guest in pair.b.guests()]
    assert back.control.ping() > there_up_s
    assert back.control.progress()[0].held_bytes == 8 * MIB
    back.control.run(["sh", "-c", "echo returned > /dev/ttyS0"])
    eventually("the console goes on", lambda: "returned" in back.console_text())
    assert "READY " in back.console_text()


def test_a_host_that_lost_its_libvirt_migrates_again() -> None:
    """Tests kill the libvirt of either host: back again, it must be in the same network, with its guests."""
    with Pair.private() as pair:
        pair.b.kill_libvirt()
        pair.b.restart_libvirt()
        pair.a.start(GuestSpec("mover"))
        pair.a.kill_libvirt()
        pair.a.restart_libvirt()

        moved = _migrate(eventually("libvirt is back", lambda: _found(pair.a, "mover")), pair.b)
        pair.b.wait_ready()  # it moved while it booted
        assert moved.control.ping() > 0
        qemu = moved.pid
    assert not Path(f"/proc/{qemu}").exists()
    assert not pair.folder.exists()


@pytest.mark.long
def test_one_host_can_go_dark() -> None:
    """Tests of a lost host stand on this: its guests end with it, and the other host's run on."""
    with Pair.private() as pair:
        (here,) = pair.a.start(GuestSpec("here"))
        (there,) = pair.b.start(GuestSpec("there"))
        kept, lost = here.pid, there.pid

        pair.b.stop()

        assert not Path(f"/proc/{lost}").exists()
        assert Path(f"/proc/{kept}").exists()
        assert pair.a.guest("here").is_running()
    assert not Path(f"/proc/{kept}").exists()


def test_a_killed_owner_leaves_nothing_on_either_host() -> None:
    """A test run that is killed hard must not leave guests that have moved, nor their hosts."""
    program = (
        "import time, libvirt\n"
        "from vmpack.lab.guest_spec import GuestSpec\n"
        "from vmpack.lab.pair import Pair\n"
        "pair = Pair.private()\n"
        "moved, stays = pair.a.start(GuestSpec('moved'), GuestSpec('stays'))\n"
        "flags = libvirt.VIR_MIGRATE_PEER2PEER | libvirt.VIR_MIGRATE_LIVE\n"
        "moved.domain.migrateToURI3(pair.b.uri, {}, flags)\n"
        "print(pair.folder, flush=True)\n"
        "time.sleep(1000)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        hosts = pair_hosts(folder)
        assert len(leftovers(hosts[0])) == 2
        process.kill()

        for state in hosts:
            eventually("the reaper ends", lambda state=state: running_reaper(state) is None)
    assert leftovers(hosts[0]) == []
    shutil.rmtree(folder)


def test_down_clears_away_what_a_crash_left() -> None:
    """Even when the hosts' reapers are killed, one command must bring the machine back, and again is fine."""
    name = f"c{os.getpid()}"
    pair = Pair.up(name)
    (guest,) = pair.a.start(GuestSpec("k1"))
    _migrate(guest, pair.b)
    for lab in pair.hosts:
        reaper = running_reaper(lab.state)
        assert reaper is not None
        os.kill(reaper, signal.SIGKILL)
        eventually("the lock is free", lambda lab=lab: running_reaper(lab.state) is None)
    assert leftovers(pair.a.state) != []

    assert end_pair(name)

    assert leftovers(pair.a.state) == []
    assert not pair.folder.exists()
    assert not end_pair(name)


@pytest.mark.long
@pytest.mark.long
def test_up_load_list_down() -> None:
    """This is how people see a migration: two hosts, a configuration for each agent, one end."""
    name = f"p{os.getpid()}"
    try:
        said = _pair("up", "--guests", "1", "--host-memory", "1GiB", "--name", name).stdout
        pair = Pair.attach(name)
        files = [lab.state.root / "vmpack.toml" for lab in pair.hosts]
        assert all(f"vmpack agent --config {file}\n" in said for file in files)
        assert f"vmpack migrate g1 '{pair.b.uri}' --config {files[0]}\n" in said
        configs = [load([file]) for file in files]
        assert [config.connect_uri for config in configs] == [lab.uri for lab in pair.hosts]
        assert [config.settings.host.memory_bytes for config in configs] == [GIB, GIB]
        assert len({config.run_dir for config in configs} | {config.state_dir for config in configs}) == 4

        (guest,) = pair.a.guests()
        _migrate(guest, pair.b)
        assert "tmpfs" in _lab("load", "--pair", "--name", name, "g1", "--memory", "1MiB").stdout
        hosts = json.loads(_pair("list", "--json", "--name", name).stdout)["hosts"]
        assert [[record["name"] for record in host["guests"]] for host in hosts] == [[], ["g1"]]

        assert "starting" not in _pair("up", "--guests", "1", "--name", name).stderr
        assert load([files[0]]).settings.host.memory_bytes == GIB
    finally:
        assert "is down" in _pair("down", "--name", name).stdout
    assert not named_pair(name).exists()


def _lab(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vmpack.cli.main", "lab", *arguments],
        capture_output=True,
        text=True,
        check=True,
    )


def _pair(*arguments: str) -> subprocess.CompletedProcess[str]:
    return _lab("pair", *arguments)


def _found(lab: Lab, name: str) -> LabGuest | None:
    try:
        return lab.guest(name)
    except (GuestGoneError, UnavailableError):
        return None
