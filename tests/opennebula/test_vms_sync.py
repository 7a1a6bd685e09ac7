"""`vmpack vms --sync`: what owners ask for is carried out and told back; what administrators set stays."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tests.opennebula.conftest import FrontEnd, Listed, asks
from tests.opennebula.oned import Oned
from tests.opennebula.oned_objects import OnedHost, OnedVm
from vmpack.cli.main import main
from vmpack.errors import UnavailableError
from vmpack.units import GIB, MIB


@pytest.fixture
def host(oned: Oned, front_end: FrontEnd) -> OnedHost:
    """One host."""
    return oned.add_host("node-a", 8192)


def holds(front_end: FrontEnd, vm: OnedVm, **policy: Any) -> None:
    """The agent says that this holds for it."""
    front_end.agent("node-a", 0, 0, {f"one-{vm.id}": GIB}, policy)


def test_sync_tells_the_agent_and_then_the_owner(
    oned: Oned, vm: OnedVm, front_end: FrontEnd, listed: Listed
) -> None:
    """An owner sets a floor in the cloud, and sees in the cloud that it holds."""
    asks(vm, 'VMPACK_FLOOR="512MiB"\nMEM_OVER="15"')

    (record,) = listed("--sync")

    assert record["status"] == "done"
    assert front_end.told() == [
        f"node-a vmpack policy one-{vm.id} --of-owner --floor {512 * MIB} --headroom 0.150000"
    ]
    told = dict(vm.user_template)
    assert (told["VMPACK_APPLIED_FLOOR"], told["VMPACK_APPLIED_MEM_OVER"]) == ("524288", "15")
    assert (told["VMPACK_APPLIED_TARGET"], told["VMPACK_APPLIED_POLICY"]) == ("524288", "1")
    assert told["VMPACK_FLOOR"] == "512MiB"


def test_sync_twice_says_nothing(oned: Oned, vm: OnedVm, front_end: FrontEnd, listed: Listed) -> None:
    """Each telling is a row in oned's database and an ssh to a host."""
    asks(vm, 'VMPACK_SHARES="500"')
    listed("--sync")
    holds(front_end, vm, shares=500, of_owner=["shares"])
    listed("--sync")
    said, oned.calls[:] = front_end.told(), []

    assert listed("--sync") == []
    assert front_end.told() == said and not [call for call in oned.calls if call[0] == "vm.update"]


def test_a_wish_taken_back_is_forgotten_at_the_agent(
    oned: Oned, vm: OnedVm, front_end: FrontEnd, listed: Listed
) -> None:
    """An opt-out that its owner removed must not keep a VM's memory for ever."""
    asks(vm, 'VMPACK_OPT_OUT="yes"')
    listed("--sync")
    holds(front_end, vm, opt_out=True, of_owner=["opt_out"])
    asks(vm, 'VMPACK_OPT_OUT=""')

    listed("--sync")

    assert front_end.told()[-1] == f"node-a vmpack policy one-{vm.id} --of-owner"
    assert dict(vm.user_template)["VMPACK_APPLIED_POLICY"] == "0"


def test_what_an_administrator_set_on_the_host_stays(
    oned: Oned, vm: OnedVm, front_end: FrontEnd, listed: Listed
) -> None:
    """An owner who says nothing must not undo what was set for his VM by hand."""
    holds(front_end, vm, floor_bytes=256 * MIB, hold_until_s=1e18)

    (record,) = listed("--sync")

    assert record["policy"] is None and front_end.told() == []
    assert dict(vm.user_template)["VMPACK_APPLIED_FLOOR"] == str(256 * 1024)


def test_an_owners_word_does_not_undo_an_administrators(
    oned: Oned, vm: OnedVm, front_end: FrontEnd, listed: Listed
) -> None:
    """An owner could end an opt-out or take more shares than he was given, by one line in his template."""
    holds(front_end, vm, opt_out=True, floor_bytes=256 * MIB, shares=100)
    asks(vm, 'VMPACK_OPT_OUT="no"\nVMPACK_SHARES="1000"\nVMPACK_FLOOR="1"\nMEM_OVER="30"')

    (record,) = listed("--sync")

    told = front_end.told()[-1]
    assert told == f"node-a vmpack policy one-{vm.id} --of-owner --headroom 0.300000"
    policy = record["policy"]
    assert (policy["opt_out"], policy["floor_bytes"], policy["shares"]) == (True, 256 * MIB, 100)
    seen = dict(vm.user_template)
    assert seen["VMPACK_APPLIED_POLICY"] == "0" and "administrator" in seen["VMPACK_APPLIED_FAULT"]


def test_a_word_that_cannot_be_meant_changes_nothing_and_is_told(
    oned: Oned, vm: OnedVm, front_end: FrontEnd, listed: Listed, capsys: pytest.CaptureFixture[str]
) -> None:
    """A typing mistake would take away the floor that the VM has, and say that all is as asked."""
    holds(front_end, vm, floor_bytes=512 * MIB, of_owner=["floor_bytes"])
    asks(vm, 'VMPACK_FLOOR="512 ] \\\\ MiBs"')

    (record,) = listed("--sync", code=3)

    assert record["policy"] is None and front_end.told() == []
    seen = dict(vm.user_template)
    assert seen["VMPACK_APPLIED_POLICY"] == "0" and "VMPACK_FLOOR=" in seen["VMPACK_APPLIED_FAULT"]
    assert main(["vms", "--sync"]) == 3
    assert "VMPACK_FLOOR" in capsys.readouterr().err


def test_what_an_owner_writes_into_what_he_is_told_counts_for_nothing(
    vm: OnedVm, front_end: FrontEnd, listed: Listed
) -> None:
    """With one line in his own template an owner would wipe what an administrator set."""
    holds(front_end, vm, floor_bytes=256 * MIB, opt_out=True)
    asks(vm, 'VMPACK_APPLIED_POLICY="1"')

    listed("--sync")

    assert front_end.told() == []


def test_a_host_that_is_not_reached_is_asked_once_and_holds_up_no_other(
    oned: Oned, vm: OnedVm, host: OnedHost, front_end: FrontEnd, listed: Listed, monkeypatch: Any
) -> None:
    """A hundred VMs on one hung host would cost a hundred deadlines, and others their word."""
    other = oned.add_host("node-b", 8192)
    more = [oned.add_vm(f"more{index}", 1024, other) for index in range(3)]
    front_end.agent("node-b", 0, 0, {f"one-{each.id}": GIB for each in more})
    for each in (vm, *more):
        asks(each, 'VMPACK_SHARES="500"')
    asked = []

    def tell(name: str, _words: list[str]) -> None:
        asked.append(name)
        if name == "node-b":
            raise UnavailableError("no answer by ssh within 30 s", "look at that host")

    monkeypatch.setattr("vmpack.clouds.agents.tell", tell)

    records = listed("--sync", code=3)

    assert sorted(asked) == ["node-a", "node-b"]
    assert sorted(record["status"] for record in records) == ["done", "failed", "failed", "failed"]


def test_hosts_are_told_at_once(
    oned: Oned, vm: OnedVm, host: OnedHost, front_end: FrontEnd, listed: Listed, monkeypatch: Any
) -> None:
    """Each of many slow hosts would make all others wait."""
    other = oned.add_host("node-b", 8192)
    more = oned.add_vm("more", 1024, other)
    front_end.agent("node-b", 0, 0, {f"one-{more.id}": GIB})
    asks(vm, 'VMPACK_SHARES="500"')
    asks(more, 'VMPACK_SHARES="500"')
    both = threading.Barrier(2, timeout=120)
    monkeypatch.setattr("vmpack.clouds.agents.tell", lambda _name, _words: both.wait())

    assert {record["status"] for record in listed("--sync")} == {"done"}


def test_where_vmpack_is_no_more_owners_are_told_nothing_more(
    oned: Oned, vm: OnedVm, host: OnedHost, front_end: FrontEnd, listed: Listed
) -> None:
    """A VM that moved to a host without vmpack would seem to keep a floor that nobody knows there."""
    asks(vm, 'VMPACK_FLOOR="512MiB"')
    listed("--sync")
    host.im_mad = "kvm"

    (record,) = listed("--sync")

    assert (record["status"], record["policy"]) == ("done", None)
    assert dict(vm.user_template) == {"VMPACK_FLOOR": "512MiB"}
    assert listed("--sync") == []


def test_a_dry_run_tells_nobody(oned: Oned, vm: OnedVm, front_end: FrontEnd, listed: Listed) -> None:
    """Looking first must be safe."""
    asks(vm, 'VMPACK_SHARES="500"')

    (record,) = listed("--sync", "--dry-run")

    assert (record["status"], record["policy"]["shares"]) == ("planned", 500)
    assert front_end.told() == [] and "VMPACK_APPLIED_SHARES" not in dict(vm.user_template)


def test_one_locked_vm_costs_no_other(
    oned: Oned, vm: OnedVm, host: OnedHost, front_end: FrontEnd, listed: Listed
) -> None:
    """A locked VM, or one that ended meanwhile, must not end the pass."""
    other = oned.add_vm("db", 1024, host)
    front_end.agent("node-a", 0, 0, {f"one-{vm.id}": GIB, f"one-{other.id}": GIB})
    vm.locked = True

    records = listed("--sync", code=3)

    assert {record["name"]: record["status"] for record in records} == {"web": "failed", "db": "done"}


def test_a_silent_host_is_told_and_its_vms_left(
    oned: Oned, vm: OnedVm, front_end: FrontEnd, capsys: pytest.CaptureFixture[str]
) -> None:
    """Owners must not be told of values that nobody applies."""
    front_end.silent("node-a")

    assert main(["vms", "--sync"]) == 3
    assert "node-a: its VMs are left as they are" in capsys.readouterr().err
    assert "VMPACK_APPLIED_FLOOR" not in dict(vm.user_template)
