"""The double of OpenNebula's monitoring does what the real one does to good and to bad probes."""

from __future__ import annotations

import base64
import random
from pathlib import Path

import pytest

from tests.opennebula import remotes, wire
from tests.opennebula.host_record import HostRecord, VmRecord, max_kib
from tests.opennebula.monitord import CATEGORIES, Client, Monitord, StartFailedError
from tests.opennebula.wire import Message


def add(node: Path, category: str, body: str, name: str = "ours.sh") -> None:
    """A probe of this shell text."""
    path = node / "im/kvm-probes.d" / category / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """A node of a stock installation."""
    return remotes.synchronize(remotes.front_end(tmp_path / "R"), tmp_path / "N")


def cloud(node: Path, **options: object) -> tuple[HostRecord, Monitord, Client]:
    """A host with the VM 7, its monitord and its client."""
    host = HostRecord(vms={7: VmRecord(1024)}, **options)  # type: ignore[arg-type]
    monitord = Monitord({0: host})
    environment = {"LIBVIRT_DEFAULT_URI": "qemu+unix:///system?socket=/nonexistent"}
    return host, monitord, Client(node, monitord, im_mad="kvm", environment=environment)


def message(kind: wire.Kind, text: str, *, succeeded: bool = True, epoch_s: int = 100) -> bytes:
    return wire.encode(Message(kind, succeeded, 0, epoch_s, text))


def vm_block(text: str, number: int = 7) -> str:
    return f'VM=[ ID="{number}", MONITOR="{base64.b64encode(text.encode()).decode()}" ]\n'


def test_a_stock_host_is_monitored(node: Path) -> None:
    """A double in which even the stock probes fail would prove nothing about ours."""
    host, monitord, client = cloud(node)
    client.start()
    client.turn()
    assert host.state == "MONITORED" and host.total_kib > 0 and host.told("HYPERVISOR") == "kvm"
    assert host.monitoring["FREE_MEMORY"] > 0 and monitord.log == []


def test_a_missing_directory_ends_the_client(node: Path) -> None:
    """A category that is left out would put every host in ERROR."""
    (node / "im/kvm-probes.d/vm/execution").rename(node / "elsewhere")
    with pytest.raises(StartFailedError):
        cloud(node)[2].start()


def test_an_executable_client_is_run_twice(node: Path) -> None:
    """A wrong mode on the client's library would start it by the wrong hand."""
    (node / "im/kvm.d/monitord-client.rb").chmod(0o755)
    with pytest.raises(StartFailedError):
        cloud(node)[2].start()


@pytest.mark.parametrize(("category", "state"), [("host/system", "ERROR"), ("vm/status", "INIT")])
def test_one_failing_probe_stops_its_category(node: Path, category: str, state: str) -> None:
    """What earlier probes of the category printed is lost, and at the start the host goes to ERROR."""
    add(node, category, "echo lost; exit 3", "aaa.sh")
    host, _, client = cloud(node)
    assert not client.run(category).succeeded
    client.turn([category])
    assert host.state == state
    with pytest.raises(StartFailedError):
        client.start()
    assert host.state == "ERROR"


def test_a_failure_later_on_makes_vms_unknown() -> None:
    """Why a probe may never exit with anything but 0: fencing hooks hang on this."""
    host = HostRecord(state="MONITORED", vms={7: VmRecord(1024), 8: VmRecord(1024, "POWEROFF")})
    monitord = Monitord({0: host})
    monitord.receive(message("MONITOR_HOST", "Error executing x: ", succeeded=False))
    assert host.state == "ERROR"
    assert [vm.state for vm in host.vms.values()] == ["UNKNOWN", "POWEROFF"]
    monitord.receive(message("MONITOR_HOST", "FREEMEMORY=1\n"))
    assert host.state == "ERROR"
    monitord.receive(message("SYSTEM_HOST", "TOTALMEMORY=1000\n"))
    assert host.state == "MONITORED"


@pytest.mark.parametrize(("kind", "state"), [("MONITOR_VM", "ERROR"), ("SYSTEM_HOST", "MONITORED")])
def test_a_syntax_error_rejects_all_of_it(kind: wire.Kind, state: str) -> None:
    """One bad line among hundreds of good ones must not pass unseen in our tests."""
    host = HostRecord(state="MONITORED", total_kib=5)
    Monitord({0: host}).receive(message(kind, "TOTALMEMORY=7\noops oops\n"))
    assert (host.state, host.total_kib) == (state, 5)


def test_host_monitor_has_a_white_list() -> None:
    """What we would put there vanishes without a word."""
    host = HostRecord()
    Monitord({0: host}).receive(message("MONITOR_HOST", "FREEMEMORY=5\nUSEDCPU=1.5\nPACKEDMEMORY=6\n"))
    assert host.monitoring == {"FREE_MEMORY": 5} and host.template == []


def test_vm_blocks_merge_by_id_and_stay() -> None:
    """Our own block beside the stock one, and values that stay until they are printed again."""
    host = HostRecord(vms={7: VmRecord(1024)})
    monitord = Monitord({0: host})
    monitord.receive(message("MONITOR_VM", vm_block("CPU=1\nMEMORY=2\n") + vm_block("REALMEMORY=3\n")))
    monitord.receive(message("MONITOR_VM", vm_block("CPU=9\n") + vm_block("X=1\n", -1) + "VM=[ A=1 ]\n"))
    assert dict(host.vms[7].monitoring) == {"MEMORY": "2", "REALMEMORY": "3", "CPU": "9"}
    monitord.receive(message("MONITOR_VM", 'VM=[ ID="7", MONITOR="b29wcyBvb3Bz" ]\n'))
    assert host.state == "INIT" and len(host.vms[7].monitoring) == 3


def test_a_full_list_of_states_ends_what_it_lacks() -> None:
    """Why no second probe may ever print SYNC_STATE."""
    host = HostRecord(vms={7: VmRecord(1), 8: VmRecord(1)})
    monitord = Monitord({0: host})
    monitord.receive(message("STATE_VM", 'VM=[ ID="7", STATE="RUNNING" ]\n'))
    assert host.vms[8].state == "RUNNING"
    sync = 'SYNC_STATE=yes\nMISSING_STATE=POWEROFF\nVM=[ ID="7", STATE="SUSPENDED" ]\n'
    monitord.receive(message("STATE_VM", sync))
    assert [vm.state for vm in host.vms.values()] == ["SUSPENDED", "POWEROFF"]


def test_capacity_follows_total_and_reservation() -> None:
    """The arithmetic by which the scheduler takes or refuses a VM."""
    host = HostRecord(vms={1: VmRecord(1)})
    host.take_system("TOTALMEMORY=10240\n")
    assert (host.max_kib, host.fits(9), host.fits(10)) == (10240, True, False)
    host.update('RESERVED_MEM="-3072"\n')
    assert host.max_kib == 13312 and host.told("TOTALMEMORY") == "10240"
    host.update("X=1\n", append=False)
    assert host.told("TOTALMEMORY") is None and host.max_kib == 10240
    assert [max_kib(1000, text) for text in ("20%", "-20%", "oops", "1.5", None)] == [
        800,
        1200,
        1000,
        1000,
        1000,
    ]


@pytest.mark.parametrize(("forgets", "total_kib"), [(True, 0), (False, 500)])
def test_a_system_message_without_capacity(forgets: bool, total_kib: int) -> None:
    """Before 7.0 it takes all capacity away, so it must never happen."""
    host = HostRecord(forgets_capacity=forgets)
    host.take_system("TOTALMEMORY=500\nTOTALMEMORY=600\n")
    assert host.total_kib == 500
    host.take_system("OTHER=1\n")
    assert host.total_kib == total_kib


def test_messages_arrive_as_they_were_sent() -> None:
    """The wire format, and what monitord does not understand."""
    for kind in wire.KINDS:
        sent = Message(kind, True, 3, 1234, 'A="1"\nB="2"\n')
        assert wire.decode(wire.encode(sent)) == sent
    assert [wire.decode(junk) for junk in (b"", b"HELLO SUCCESS 1 2 x", b"EXEC_VM SUCCESS 1 2 !!")] == [
        None
    ] * 3


def test_a_datagram_has_an_end() -> None:
    """A message that does not fit never arrives, and nobody says so."""
    noise = random.Random(1).randbytes(70_000).hex()
    with pytest.raises(OSError, match="too long"):
        wire.encode(Message("MONITOR_VM", True, 0, 1, noise))
    assert wire.encode(Message("STATE_VM", True, 0, 1, noise))


def test_older_messages_are_passed_over() -> None:
    """A node whose clock is stepped back is not heard until it has caught up."""
    host = HostRecord()
    monitord = Monitord({0: host})
    monitord.receive(message("SYSTEM_HOST", "A=1\n", epoch_s=100))
    monitord.receive(message("SYSTEM_HOST", "A=2\n", epoch_s=99))
    assert host.told("A") == "1"


def test_the_order_of_probes_can_be_turned(node: Path) -> None:
    """Before 7.0 the order is any, so what is right must be right both ways."""
    add(node, "host/system", "echo TOTALMEMORY=1", "aaa.sh")
    host, monitord, client = cloud(node)
    client.start()
    assert host.total_kib == 1
    backwards = Client(node, monitord, im_mad="kvm", order=-1)
    assert backwards.run("host/system").text.rstrip().endswith("TOTALMEMORY=1")


def test_the_probes_get_what_the_client_gives(node: Path) -> None:
    """argv, working directory and the configuration on stdin."""
    add(node, "host/beacon", 'echo "$*"; pwd; head -c 23')
    text = cloud(node)[2].run("host/beacon").text
    assert "kvm 0 node-1\n" in text and "/im/kvm.d\n" in text and "<MONITOR_CONFIGURATION>" in text
    assert len(CATEGORIES) == 7
