"""`vmpack migrate VM HOST` against a double of oned: moved, refused, failed, and everything in between."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.opennebula.conftest import FrontEnd
from tests.opennebula.oned import ADMIN, Oned, Refusal
from tests.opennebula.oned_objects import MIGRATE, POWEROFF, UNKNOWN, OnedHost, OnedVm
from tests.opennebula.template import parse
from vmpack.cli.main import main
from vmpack.clouds import follow

Hosts = tuple[OnedHost, OnedHost]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look more often than people would."""
    monkeypatch.setattr(follow, "LOOK_S", 0.02)


@pytest.fixture
def hosts(oned: Oned, front_end: FrontEnd) -> Hosts:
    """Two hosts of 4 GiB."""
    return oned.add_host("node-a", 4096), oned.add_host("node-b", 4096)


@pytest.fixture
def vm(oned: Oned, hosts: Hosts) -> OnedVm:
    """A VM of 1 GiB that runs on the first."""
    return oned.add_vm("web", 1024, hosts[0])


def migrate(*words: str, to: str = "node-b") -> int:
    return main(["migrate", "web", to, *words])


def asked(oned: Oned) -> list[tuple[Any, ...]]:
    """The migrations that oned was asked for."""
    return [call for call in oned.calls if call[0] == "vm.migrate"]


def test_a_move_is_live_enforced_and_proven_by_history(
    oned: Oned, vm: OnedVm, hosts: Hosts, capsys: pytest.CaptureFixture[str]
) -> None:
    """A cold migration stops the guest; one without enforce fills a host beyond what it was given."""
    assert migrate() == 0

    assert asked(oned) == [("vm.migrate", vm.id, hosts[1].id, True, True)]
    assert f"web ({vm.id}) runs on node-b now: took" in capsys.readouterr().out
    assert vm.stays[-1].host_id == hosts[1].id and not oned.cold_migrations


def test_it_is_watched_until_it_is_there(oned: Oned, vm: OnedVm, capsys: pytest.CaptureFixture[str]) -> None:
    """An accepted call is no migration: success must not be told while it is under way."""
    go, looks = threading.Event(), list[int]()

    def looked() -> None:
        if vm.lcm_state == MIGRATE:
            looks.append(1)
            if len(looks) == 5:
                go.set()

    oned.before["one.vm.info"] = looked
    oned.migrate_hook = lambda *_: go.wait(60)

    assert migrate() == 0
    assert len(looks) >= 5 and "on its way to node-b" in capsys.readouterr().out


def test_one_that_fails_is_told_as_one_that_failed(
    oned: Oned, vm: OnedVm, hosts: Hosts, capsys: pytest.CaptureFixture[str]
) -> None:
    """oned tells nobody that a live migration failed: the VM is simply RUNNING again, where it was."""
    oned.migrate_hook = lambda *_: False

    assert migrate() == 1

    said = capsys.readouterr().err
    assert "was not moved: OpenNebula shows it running on node-a again" in said
    assert f"/var/log/one/{vm.id}.log" in said
    assert [stay.host_id for stay in vm.stays] == [hosts[0].id, hosts[1].id, hosts[0].id]


def test_a_lost_answer_is_not_told_as_nothing(
    oned: Oned, vm: OnedVm, capsys: pytest.CaptureFixture[str]
) -> None:
    """The call may have been carried out: a script must not start a second one."""
    oned.raw["one.vm.migrate"] = "?"

    assert migrate() == 1
    assert "whether it was begun is not known" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('TOPOLOGY=[ PIN_POLICY="CORE" ]', "pinned"),
        ('PCI=[ VENDOR="10de" ]', "PCI device"),
        ('DISK=[ TYPE="FILESYSTEM" ]', "FILESYSTEM"),
    ],
)
def test_what_cannot_move_live_is_told_before(
    text: str, why: str, oned: Oned, hosts: Hosts, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every refusal of oned is known beforehand, so that a plan of moves does not break half-way."""
    oned.add_vm("web", 1024, hosts[0], text)

    assert migrate("--dry-run") == 1
    assert why in capsys.readouterr().out
    assert migrate() == 1
    assert f"nothing was begun: {'it' if why != 'pinned' else 'its'}" in capsys.readouterr().err
    assert not asked(oned)


@pytest.mark.parametrize("state", [(POWEROFF, 0), (3, UNKNOWN), (3, MIGRATE), (3, 2)])
def test_a_vm_that_does_not_run_is_never_moved_cold(
    state: tuple[int, int], oned: Oned, vm: OnedVm, capsys: pytest.CaptureFixture[str]
) -> None:
    """Asked live for a VM that does not run oned moves it cold, and says nothing."""
    vm.state, vm.lcm_state = state

    assert migrate() == 1

    assert "would move it cold" in capsys.readouterr().err
    assert not asked(oned) and not oned.cold_migrations


def test_one_that_stops_in_the_last_moment_is_not_moved_cold(
    oned: Oned, vm: OnedVm, capsys: pytest.CaptureFixture[str]
) -> None:
    """Between the checks and the call is time enough for an owner to switch it off."""
    looks: list[int] = []

    def switched_off() -> None:
        looks.append(1)
        if len(looks) == 2:
            vm.state, vm.lcm_state = POWEROFF, 0

    oned.before["one.vm.info"] = switched_off

    assert migrate() == 1
    assert not asked(oned) and "POWEROFF now" in capsys.readouterr().err


def test_no_room_names_the_numbers_and_the_cure(
    oned: Oned, vm: OnedVm, hosts: Hosts, capsys: pytest.CaptureFixture[str]
) -> None:
    """A full host is the usual reason, and packing the usual cure."""
    oned.add_vm("large", 3584, hosts[1])

    assert migrate() == 1
    said = capsys.readouterr().err
    assert "512 MiB" in said and "vmpack grant" in said and not asked(oned)


def test_the_same_host_is_no_destination(vm: OnedVm, capsys: pytest.CaptureFixture[str]) -> None:
    """It costs nothing to say it before."""
    assert migrate(to="node-a") == 1
    assert "runs on node-a already" in capsys.readouterr().err


def test_what_only_oned_knows_is_told_in_its_words(
    oned: Oned, vm: OnedVm, hosts: Hosts, capsys: pytest.CaptureFixture[str]
) -> None:
    """Datastores, and what changes meanwhile, are oned's to judge; its reason must reach people."""
    oned.before["one.vm.migrate"] = lambda: setattr(vm, "locked", 3)

    assert migrate() == 1
    assert "nothing was begun: OpenNebula refuses" in (said := capsys.readouterr().err)
    assert "VM is locked" in said and "onevm unlock" in said and "run as oneadmin" not in said


@pytest.mark.parametrize("level", [1, 2, 3])
def test_a_locked_vm_is_not_asked_for(
    level: int, oned: Oned, vm: OnedVm, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each lock binds oneadmin too, and a plan of moves would break on it half-way."""
    vm.locked = level
    assert migrate() == 1
    assert "it is locked" in capsys.readouterr().err and not asked(oned)
    with pytest.raises(Refusal):
        oned.one_vm_migrate(ADMIN, vm.id, 1, True, True)


def test_another_cluster_is_told_before(
    oned: Oned, vm: OnedVm, hosts: Hosts, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its images are not there; within what its requirements name it may go."""
    requirements = "(CLUSTER_ID = 0 | CLUSTER_ID = 12) & !(PUBLIC_CLOUD = YES)"
    vm.template = [*vm.template, *parse(f'AUTOMATIC_REQUIREMENTS="{requirements}"')]
    oned.clusters |= {number: type(oned.clusters[0])(number, "other") for number in (1, 12)}
    hosts[1].cluster_id = 1
    assert migrate() == 1
    assert "in cluster 1" in capsys.readouterr().err and not asked(oned)
    with pytest.raises(Refusal):
        oned.one_vm_migrate(ADMIN, vm.id, 1, True, True)
    hosts[1].cluster_id = 12
    assert migrate() == 0


def test_no_cpus_left_to_promise_is_told_before(
    oned: Oned, vm: OnedVm, hosts: Hosts, capsys: pytest.CaptureFixture[str]
) -> None:
    """oned counts CPUs as it counts memory."""
    hosts[1].record.max_cpu_pct = 50
    assert migrate() == 1
    assert "0.5 CPUs left to promise, it needs 1" in capsys.readouterr().err and not asked(oned)
    with pytest.raises(Refusal):
        oned.one_vm_migrate(ADMIN, vm.id, 1, True, True)
    hosts[1].record.max_cpu_pct = 100
    assert migrate() == 0


def test_a_state_that_is_odd_for_a_moment_ends_no_watch(
    oned: Oned, vm: OnedVm, capsys: pytest.CaptureFixture[str]
) -> None:
    """A VM between two states would be told as lost, and a script would start the next move."""
    go, looks = threading.Event(), list[int]()

    def looked() -> None:
        if asked(oned):
            looks.append(1)
            if len(looks) < 4:
                vm.lcm_state = 2
            elif len(looks) == 4:
                vm.lcm_state = MIGRATE
                go.set()

    oned.before["one.vm.info"] = looked
    oned.migrate_hook = lambda *_: go.wait(60)

    assert migrate() == 0, capsys.readouterr().err


def test_somebody_elses_move_is_not_taken_for_ours(
    oned: Oned, vm: OnedVm, hosts: Hosts, capsys: pytest.CaptureFixture[str]
) -> None:
    """A rescheduler that moved it in the same moment must not make ours look done."""
    third = oned.add_host("node-c", 4096)

    def raced(*_: object) -> bool:
        with oned.lock:
            vm.stays[-1].host_id, vm.stays[-1].host_name = third.id, "node-c"
        return True

    oned.migrate_hook = raced

    assert migrate() == 1
    assert "somebody else moved it to node-c" in capsys.readouterr().err


def test_one_that_ends_on_its_way_is_unclear(
    oned: Oned, vm: OnedVm, capsys: pytest.CaptureFixture[str]
) -> None:
    """A VM that was switched off meanwhile neither moved nor stayed."""

    def ends(*_: object) -> bool:
        with oned.lock:
            vm.state, vm.lcm_state = 6, 0
        return True

    oned.migrate_hook = ends

    assert migrate() == 1
    assert "cannot be said for certain" in (said := capsys.readouterr().err) and "DONE" in said


def test_past_the_time_budget_it_is_said_what_goes_on(
    oned: Oned, vm: OnedVm, capsys: pytest.CaptureFixture[str]
) -> None:
    """oned cannot abort: nobody may believe that the VM stays where it was."""
    go = threading.Event()
    oned.migrate_hook = lambda *_: go.wait(60)

    assert migrate("--timeout", "100ms") == 1
    said = capsys.readouterr().err
    go.set()

    assert "the migration itself goes on" in said and f"vmpack vms {vm.id}" in said


def test_ctrl_c_says_what_goes_on(oned: Oned, vm: OnedVm, capfd: pytest.CaptureFixture[str]) -> None:
    """Who interrupts must know that the VM still moves."""
    go = threading.Event()

    def journey(*_: object) -> bool:
        os.kill(os.getpid(), signal.SIGINT)
        return go.wait(60)

    oned.migrate_hook = journey
    assert migrate() == 130
    go.set()

    said = capfd.readouterr().err
    assert "the cloud goes on with the migration" in said and "may still be on its way" in said


def test_a_oned_that_falls_silent_meanwhile_is_waited_for(
    oned: Oned, vm: OnedVm, capsys: pytest.CaptureFixture[str]
) -> None:
    """A restart of oned in the middle changes nothing about where the VM is."""
    go = threading.Event()
    oned.migrate_hook = lambda *_: go.wait(60)
    asks: list[int] = []

    def broken() -> None:
        if vm.lcm_state == MIGRATE and len(asks) < 4:
            asks.append(1)
            oned.raw["one.vm.info"] = "?"
        else:
            oned.raw.pop("one.vm.info", None)
            if asks:
                go.set()

    oned.before["one.vm.info"] = broken

    assert migrate() == 0
    assert len(asks) == 4 and "gave no" not in capsys.readouterr().err


def test_json_is_the_whole_outcome(vm: OnedVm, capsys: pytest.CaptureFixture[str], oned: Oned) -> None:
    """Programs decide by these fields."""
    assert migrate("--json") == 0

    record = json.loads(capsys.readouterr().out)
    assert set(record) == {"vm", "destination", "status", "detail", "hint", "elapsed_s"}
    assert (record["status"], record["vm"]["id"]) == ("done", str(vm.id))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["wbe", "node-b"], "did you mean web?"),
        (["web", "node-c"], "no host 'node-c'"),
        (["web", "node-b", "--bandwidth", "10MiB/s"], "cannot be asked of the cloud"),
        (["web", "node-b", "--copy-storage"], "cannot be asked of the cloud"),
        (["web", "node-b", "--timeout", "0s"], "leaves no time"),
    ],
)
def test_wrong_words_begin_nothing(
    words: list[str], said: str, oned: Oned, vm: OnedVm, capsys: pytest.CaptureFixture[str]
) -> None:
    """A typing mistake must not move another VM, or this one in another way."""
    assert main(["migrate", *words]) == 2
    assert said in capsys.readouterr().err and not asked(oned)


def test_a_name_that_two_have_is_asked_about(
    oned: Oned, vm: OnedVm, hosts: Hosts, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names are the owners' to choose, and two may choose the same."""
    other = oned.add_vm("web", 512, hosts[0])

    assert migrate() == 2
    assert f"{vm.id}, {other.id}" in capsys.readouterr().err
    assert main(["migrate", f"one-{other.id}", "node-b"]) == 0


def test_a_libvirt_address_stays_with_libvirt(
    oned: Oned, vm: OnedVm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On hosts without a cloud nothing changes, and oned is not asked."""
    migrators: list[str] = []

    class Elsewhere(Exception):
        pass

    def connect(uri: str) -> Callable[[], None]:
        migrators.append(uri)
        raise Elsewhere

    monkeypatch.setattr("vmpack.hypervisor.Hypervisor", connect)
    with pytest.raises(Elsewhere):
        migrate(to="qemu+tls://node-b/system")

    assert migrators and not oned.calls
