"""`vmpack grant` against a double of oned: what the scheduler gets, and what the administrator gets back."""

from __future__ import annotations

from typing import Any

import pytest

from tests.opennebula.conftest import FrontEnd, GrantRun
from tests.opennebula.host_record import HostState
from tests.opennebula.oned import Oned
from tests.opennebula.oned_objects import OnedHost, recompute
from tests.opennebula.template import parse
from vmpack.cli.main import main
from vmpack.units import GIB, MIB


def calm(oned: Oned, host: OnedHost) -> None:
    """Long ago, as far as the grant's own clock is concerned."""
    oned.one_host_update("oneadmin:the-secret", host.id, 'VMPACK_GRANT_TIME="1"', 1)


def test_the_scheduler_accepts_one_vm_more_than_there_is_memory(
    oned: Oned, host: OnedHost, grant: GrantRun
) -> None:
    """This is what the whole of it is for."""
    assert oned.schedule(oned.add_vm("more", 3072, None)) is None

    assert grant()["status"] == "written"

    assert oned.told(host, "RESERVED_MEM") == str(-3 * 1024 * 1024)
    assert oned.schedule(oned.add_vm("more", 3072, None)) is host
    assert oned.schedule(oned.add_vm("too many", 1024, None)) is None


def test_what_probes_told_survives(oned: Oned, host: OnedHost, grant: GrantRun) -> None:
    """An update that replaces the template would leave a host without capacity until the next probe."""
    grant()

    assert oned.told(host, "HYPERVISOR") == "kvm" and oned.told(host, "TOTALMEMORY") is not None
    assert [call[3] for call in oned.calls if call[0] == "host.update"] == [1]


@pytest.mark.parametrize(
    ("own", "base_mib"),
    [
        (None, 8192),
        ('RESERVED_MEM=""', 8192),
        ('RESERVED_MEM="1048576"', 7168),
        ('RESERVED_MEM="-1048576"', 9216),
        ('RESERVED_MEM="25%"', 6144),
        ('RESERVED_MEM="0"', 8192),
    ],
)
def test_the_administrators_value_is_counted_in_and_comes_back(
    own: str | None, base_mib: int, oned: Oned, host: OnedHost, front_end: FrontEnd, grant: GrantRun
) -> None:
    """Whoever reserved memory for other things must find it reserved while vmpack works, and afterwards."""
    if own is not None:
        oned.one_host_update("oneadmin:the-secret", host.id, own, 1)
    before, capacity = oned.told(host, "RESERVED_MEM"), host.record.max_kib
    assert capacity == base_mib * 1024
    front_end.agent("node-a", 3 * GIB, 8 * GIB, {f"one-{vm}": 4 * GIB for vm in host.record.vms})

    granted = grant()

    assert granted["own_bytes"] == base_mib * MIB
    assert host.record.max_kib - host.record.usage_kib == 3 * 1024 * 1024
    assert grant("--off")["status"] == "written"
    assert (oned.told(host, "RESERVED_MEM") or "") == (before or "")
    assert host.record.max_kib == capacity
    assert grant("--off", "node-a")["status"] == "kept"


def test_a_clusters_value_holds_before_under_and_after(oned: Oned, host: OnedHost, grant: GrantRun) -> None:
    """A reserve for the whole cluster must not be lost on the hosts that vmpack touches."""
    oned.clusters[0].template = parse('RESERVED_MEM="1048576"')
    recompute(host, oned.clusters)

    grant()
    assert host.record.max_kib - host.record.usage_kib == 3 * 1024 * 1024
    grant("--off")

    assert oned.told(host, "RESERVED_MEM") == "" and host.record.max_kib == 7168 * 1024


@pytest.mark.parametrize("odd", ["abc", "12.5%", "20 %", "1G", "99999999999999999999"])
def test_a_value_that_oned_ignores_is_not_overwritten(
    odd: str, oned: Oned, host: OnedHost, grant: GrantRun
) -> None:
    """The administrator meant something by it; overwritten silently nobody would ever know what."""
    oned.one_host_update("oneadmin:the-secret", host.id, f'RESERVED_MEM="{odd}"', 1)

    record = grant()

    assert record["status"] == "kept" and odd in record["reason"]
    assert grant("--off", "node-a")["status"] == "kept"
    assert oned.told(host, "RESERVED_MEM") == odd


def test_a_value_set_meanwhile_is_the_new_base(oned: Oned, host: OnedHost, grant: GrantRun) -> None:
    """An administrator who reserves memory while a grant stands must not be undone by --off."""
    grant()
    oned.one_host_update("oneadmin:the-secret", host.id, 'RESERVED_MEM="524288"', 1)
    calm(oned, host)

    again = grant()
    assert (again["own_bytes"], again["status"]) == (8 * GIB - 512 * MIB, "written")
    grant("--off")

    assert oned.told(host, "RESERVED_MEM") == "524288"


def test_a_value_set_in_the_very_moment_is_not_lost(oned: Oned, host: OnedHost, grant: GrantRun) -> None:
    """Between looking and writing somebody else may write: his value stays, and the command says so."""

    def somebody() -> None:
        oned.before.clear()
        oned.one_host_update("oneadmin:the-secret", host.id, 'RESERVED_MEM="524288"', 1)

    oned.before["one.host.info"] = somebody

    record = grant(code=1)

    assert record["status"] == "failed" and "changed meanwhile" in record["reason"]
    assert oned.told(host, "RESERVED_MEM") == "524288"


def test_a_second_run_writes_nothing(oned: Oned, host: OnedHost, grant: GrantRun) -> None:
    """Run every minute it must not write a row in oned's database every minute."""
    grant()
    calm(oned, host)
    oned.calls.clear()

    assert grant()["status"] == "kept"
    assert not [call for call in oned.calls if call[0] == "host.update"]


def test_lowered_at_once_and_raised_after_calm(
    oned: Oned, host: OnedHost, front_end: FrontEnd, grant: GrantRun
) -> None:
    """A scheduler that still sees room which a guest has taken back places a VM on nothing."""
    domains = {f"one-{number}": 4 * GIB for number in host.record.vms}
    grant()
    front_end.agent("node-a", GIB, 4 * GIB, domains)
    assert grant()["granted_bytes"] == GIB

    front_end.agent("node-a", 3 * GIB, 4 * GIB, domains)
    assert "may be raised in" in grant()["reason"]
    calm(oned, host)
    assert grant()["granted_bytes"] == 3 * GIB


def test_a_vm_on_its_way_is_counted(oned: Oned, host: OnedHost, grant: GrantRun) -> None:
    """Until its guest boots the agent knows nothing of it; its room must not be given away again."""
    grant()
    oned.schedule(oned.add_vm("more", 2048, None))
    calm(oned, host)

    grant()

    assert host.record.max_kib - host.record.usage_kib == 1024 * 1024


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (None, "No route to host"),
        ("garbage", "not understood"),
        ("[]", "not understood"),
        ('{"state": "active", "host": null, "stale": false}', "first interval"),
        ('{"state": "active", "stale": false, "host": {"capacity_bytes": -1}}', "capacity_bytes"),
        ('{"state": "root", "stale": false}', "not understood"),
        ("[" * 100_000, "not understood"),
    ],
)
def test_a_host_without_a_sound_agent_loses_its_grant(
    answer: str | None, why: str, host: OnedHost, front_end: FrontEnd, grant: GrantRun, oned: Oned
) -> None:
    """Where nobody gives memory back to guests nothing may be promised on top."""
    grant()
    if answer is None:
        front_end.silent("node-a")
    else:
        front_end.says("node-a", answer)

    record = grant()

    assert (record["status"], record["granted_bytes"]) == ("written", 0) and why in record["reason"]
    assert oned.told(host, "RESERVED_MEM") == "" and host.record.max_kib == 8192 * 1024


@pytest.mark.parametrize("changes", [{"state": "frozen"}, {"state": "observe"}, {"stale": True}])
def test_a_host_that_does_not_pack_loses_its_grant(
    changes: dict[str, Any], host: OnedHost, front_end: FrontEnd, grant: GrantRun
) -> None:
    """A frozen host does not give way to its guests: what is packed there is no room."""
    grant()
    domains = {f"one-{number}": 4 * GIB for number in host.record.vms}
    front_end.agent("node-a", 3 * GIB, 4 * GIB, domains, **changes)

    assert grant()["granted_bytes"] == 0


@pytest.mark.parametrize("state", ["ERROR", "OFFLINE", "DISABLED", "INIT"])
@pytest.mark.parametrize("own", ["1048576", "10%", ""])
def test_the_administrators_value_comes_back_on_any_host(
    state: HostState, own: str, oned: Oned, host: OnedHost, grant: GrantRun, front_end: FrontEnd
) -> None:
    """A host that fails, or is taken out of service, while a grant stands would be overcommitted for ever."""
    oned.one_host_update("oneadmin:the-secret", host.id, f'RESERVED_MEM="{own}"', 1)
    grant()
    assert oned.told(host, "RESERVED_MEM") != own
    host.record.state = state
    front_end.silent("node-a")

    grant("--off")

    assert oned.told(host, "RESERVED_MEM") == own


def test_a_template_that_somebody_replaced_is_what_he_wants(
    oned: Oned, host: OnedHost, grant: GrantRun
) -> None:
    """`onehost update` in an editor wipes what we noted: an old reserve must not come back from nowhere."""
    oned.one_host_update("oneadmin:the-secret", host.id, 'RESERVED_MEM="1048576"', 1)
    grant()
    oned.one_host_update("oneadmin:the-secret", host.id, 'NOTE="mine"', 0)
    calm(oned, host)

    assert grant()["granted_bytes"] == 3 * GIB
    assert host.record.max_kib == host.record.total_kib + 3 * 1024 * 1024
    grant("--off")

    assert not oned.told(host, "RESERVED_MEM") and host.record.max_kib == host.record.total_kib


def test_a_dry_run_writes_nothing(oned: Oned, host: OnedHost, grant: GrantRun) -> None:
    """Looking first must be safe."""
    assert grant("--dry-run")["status"] == "planned"
    assert oned.told(host, "RESERVED_MEM") is None


def test_one_hosts_failure_costs_no_other(
    oned: Oned, host: OnedHost, front_end: FrontEnd, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a cluster of hundreds something is always broken."""
    other = oned.add_host("node-b", 8192)
    vm = oned.add_vm("more", 8192, other)
    front_end.agent("node-b", 2 * GIB, 4 * GIB, {f"one-{vm.id}": 8 * GIB})
    broken = oned.one_host_update

    def update(session: str, number: int, text: str, kind: int = 0) -> int:
        assert number != host.id
        return broken(session, number, text, kind)

    oned.one_host_update = update  # type: ignore[method-assign]

    assert main(["grant"]) == 3

    said = capsys.readouterr()
    assert "node-b: went from nothing to 2 GiB granted" in said.out and "node-a: not written" in said.err


def test_one_drs_that_acts_by_itself_is_warned_of(
    oned: Oned, host: OnedHost, capsys: pytest.CaptureFixture[str]
) -> None:
    """It takes a lowered grant for an overfull host, and moves VMs away that have all that they need."""
    oned.clusters[0].template = parse('ONE_DRS=[ POLICY="PACK", AUTOMATION="full" ]')

    assert main(["hosts"]) == 0
    assert "it drains the host" in capsys.readouterr().out


def test_hosts_that_are_not_ours_are_left_alone(
    oned: Oned, host: OnedHost, capsys: pytest.CaptureFixture[str]
) -> None:
    """A cloud has hosts that vmpack has no business with, unless they are named."""
    oned.add_host("plain", 8192, im_mad="kvm")

    assert main(["grant"]) == 0
    assert "plain" not in capsys.readouterr().out


def test_an_unknown_host_changes_nothing(
    oned: Oned, host: OnedHost, capsys: pytest.CaptureFixture[str]
) -> None:
    """A typing mistake must not become a grant on all hosts."""
    assert main(["grant", "nod-a"]) == 2
    assert "did you mean node-a?" in capsys.readouterr().err
    assert not [call for call in oned.calls if call[0] == "host.update"]


def test_another_way_of_granting_is_not_mixed_in(
    oned: Oned, host: OnedHost, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """TOTALMEMORY and RESERVED_MEM both raised would promise the same memory twice."""
    config = tmp_path / "vmpack.toml"
    config.write_text('[grant]\nvia = "probe"\n')

    assert main(["grant"]) == 0
    assert oned.told(host, "RESERVED_MEM") == str(-3 * 1024 * 1024)

    assert main(["grant", "--config", str(config), "--dry-run"]) == 78
    assert oned.told(host, "RESERVED_MEM") == str(-3 * 1024 * 1024)
    assert main(["grant", "--config", str(config)]) == 78
    assert "TOTALMEMORY" in capsys.readouterr().err
    assert oned.told(host, "RESERVED_MEM") == "" and host.record.max_kib == host.record.total_kib
