"""`vmpack grant` where something is odd: overwritten marks, senseless values, what cannot be read."""

from __future__ import annotations

import argparse
import json

import pytest

from tests.opennebula.conftest import FrontEnd, GrantRun
from tests.opennebula.host_record import VmRecord
from tests.opennebula.oned import Oned
from tests.opennebula.oned_objects import OnedHost
from tests.opennebula.template import parse
from vmpack.cli.main import main
from vmpack.clock import SystemClock
from vmpack.units import GIB


def test_marks_of_a_grant_that_somebody_overwrote_are_cleared(
    oned: Oned, host: OnedHost, grant: GrantRun
) -> None:
    """The host could never be converted back: a grant that --off cannot end would be in the way for ever."""
    grant()
    oned.one_host_update("oneadmin:the-secret", host.id, 'RESERVED_MEM="524288"', 1)

    record = grant("--off")

    assert (record["status"], record["before_bytes"], record["granted_bytes"]) == ("written", None, 0)
    assert oned.told(host, "RESERVED_MEM") == "524288"
    assert not oned.told(host, "VMPACK_RESERVED_SET") and not oned.told(host, "VMPACK_RESERVED_BASE")
    assert grant("--off", "node-a")["status"] == "kept"


def test_marks_are_cleared_on_a_host_that_is_no_longer_ours(
    oned: Oned, host: OnedHost, grant: GrantRun
) -> None:
    """Nobody would look for them there."""
    grant()
    oned.one_host_update("oneadmin:the-secret", host.id, 'RESERVED_MEM="524288"', 1)
    host.im_mad = "kvm"

    assert grant("--off")["status"] == "written"
    assert not oned.told(host, "VMPACK_RESERVED_SET")


@pytest.mark.parametrize("words", [[], ["--off"]], ids=["a pass", "off"])
def test_a_clusters_senseless_value_does_not_freeze_a_grant(
    words: list[str], oned: Oned, host: OnedHost, grant: GrantRun, capsys: pytest.CaptureFixture[str]
) -> None:
    """A host would stay overcommitted and look as if it were not."""
    grant()
    oned.clusters[0].template = parse('RESERVED_MEM="abc"')
    assert main(["hosts", "--json"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)["hosts"]
    assert shown["granted_bytes"] == 3 * GIB and "abc" in shown["fault"]

    record = grant(*words, code=0 if words else 3)

    assert (record["status"], record["before_bytes"], record["granted_bytes"]) == ("written", 3 * GIB, 0)
    assert "abc" in record["reason"]
    assert oned.told(host, "RESERVED_MEM") == "" and host.record.max_kib == host.record.total_kib


def test_a_fault_that_comes_in_the_very_moment_stops_a_grant(
    oned: Oned, host: OnedHost, grant: GrantRun
) -> None:
    """What was planned on a base that is no longer understood must not be written."""

    def somebody() -> None:
        oned.before.clear()
        oned.one_host_update("oneadmin:the-secret", host.id, 'RESERVED_MEM="abc"', 1)

    oned.before["one.host.info"] = somebody

    assert grant(code=1)["status"] == "failed"
    assert oned.told(host, "RESERVED_MEM") == "abc"


def test_a_vm_pool_that_cannot_be_read_stops_no_withdrawal(
    oned: Oned, host: OnedHost, front_end: FrontEnd, capsys: pytest.CaptureFixture[str]
) -> None:
    """One odd document would leave the grants of hosts whose agents are dead."""
    assert main(["grant"]) == 0
    front_end.silent("node-a")
    oned.raw["one.vmpool.infoextended"] = [True, "<VM_POOL", 0, -1, 0, -1]
    capsys.readouterr()

    assert main(["grant"]) == 3

    assert "nothing is raised" in capsys.readouterr().err
    assert oned.told(host, "RESERVED_MEM") == ""


def test_a_vm_that_cannot_be_read_is_told(
    oned: Oned, host: OnedHost, capsys: pytest.CaptureFixture[str]
) -> None:
    """A grant that counts without one VM must not look like one that counts all."""
    oned.add_vm("odd", 512, host).template = parse('MEMORY="much"')

    assert main(["grant"]) == 3
    assert "MEMORY" in capsys.readouterr().err


def test_a_value_of_several_parts_is_not_overwritten(oned: Oned, host: OnedHost, grant: GrantRun) -> None:
    """oned ignores it, and the administrator meant something by it."""
    oned.one_host_update("oneadmin:the-secret", host.id, 'RESERVED_MEM=[ A="1" ]', 1)

    record = grant()

    assert record["status"] == "kept" and "vector" in record["reason"]
    assert not [call for call in oned.calls if call[0] == "host.update" and "VMPACK" in call[2]]


def test_what_is_lowered_comes_before_what_is_raised(
    oned: Oned, host: OnedHost, front_end: FrontEnd, grant: GrantRun
) -> None:
    """A pass that is cut off in the middle would have raised one host and left another overfull."""
    other = oned.add_host("node-b", 8192)
    domains = {f"one-{oned.add_vm('more', 8192, other).id}": 8 * GIB}
    front_end.agent("node-b", 2 * GIB, 4 * GIB, domains)
    grant("node-b")
    front_end.agent("node-b", 0, 4 * GIB, domains)
    oned.calls.clear()

    assert main(["grant"]) == 0

    assert [call[1] for call in oned.calls if call[0] == "host.update"] == [other.id, host.id]


def test_a_vm_that_comes_while_agents_are_asked_is_counted(
    oned: Oned, host: OnedHost, front_end: FrontEnd, grant: GrantRun
) -> None:
    """What the cloud placed meanwhile would be granted once more."""
    listings = iter(range(9))

    def somebody() -> None:
        if next(listings) == 1:
            host.record.vms[99] = VmRecord(1024)

    oned.before["one.hostpool.info"] = somebody

    assert grant()["promised_bytes"] == 9 * GIB


def test_a_host_that_is_down_is_not_asked(oned: Oned, host: OnedHost, grant: GrantRun) -> None:
    """Each would cost its whole deadline, every minute."""
    from vmpack.cli import cloud_access

    down = oned.add_host("node-x", 8192)
    down.record.state = "ERROR"
    config = argparse.Namespace(config=None)
    cloud = cloud_access.cloud(cloud_access.configuration(config), SystemClock())

    assert set(cloud_access.agents_of(cloud.hosts()[0])) == {"node-a"}


def test_an_agent_whose_last_turn_failed_is_stale(
    host: OnedHost, front_end: FrontEnd, grant: GrantRun
) -> None:
    """What it offers is what it saw before it failed."""
    domains = {f"one-{number}": 4 * GIB for number in host.record.vms}
    front_end.agent("node-a", 3 * GIB, 4 * GIB, domains, last_error="libvirt is gone")

    assert "is old" in grant()["reason"]
