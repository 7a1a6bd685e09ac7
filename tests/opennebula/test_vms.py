"""`vmpack vms`: what owners and guests wrote, read with suspicion, carried out, and told back."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cli_samples import EVIL_NAME
from tests.opennebula.conftest import FrontEnd, Listed, asks
from tests.opennebula.oned import Oned
from tests.opennebula.oned_objects import OnedHost, OnedVm
from tests.opennebula.template import parse
from vmpack.cli.main import main
from vmpack.clouds.opennebula_policy import read_policy
from vmpack.clouds.opennebula_vms import guest_report
from vmpack.decide.owners import with_wishes
from vmpack.model.codec import encode
from vmpack.model.guest import GuestPolicy
from vmpack.units import GIB, KIB, MIB

NAMES = (
    "MIN_FREE_MEM", "MEM_OVER", "VMPACK_FLOOR", "VMPACK_SHARES", "VMPACK_HEADROOM", "VMPACK_OPT_OUT",
)  # fmt: skip


@pytest.fixture
def host(oned: Oned, front_end: FrontEnd) -> OnedHost:
    """One host."""
    return oned.add_host("node-a", 8192)


@pytest.mark.parametrize(
    ("values", "policy"),
    [
        ({}, GuestPolicy()),
        ({"MEM_OVER": "15"}, GuestPolicy(headroom_ratio=0.15)),
        ({"MEM_OVER": "33.3"}, GuestPolicy(headroom_ratio=0.333)),
        ({"MIN_FREE_MEM": "65536"}, GuestPolicy(headroom_min_bytes=64 * MIB)),
        ({"VMPACK_FLOOR": "512MiB"}, GuestPolicy(floor_bytes=512 * MIB)),
        ({"VMPACK_FLOOR": " 512 "}, GuestPolicy(floor_bytes=512 * MIB)),
        ({"VMPACK_SHARES": "500"}, GuestPolicy(shares=500)),
        ({"VMPACK_HEADROOM": "30%"}, GuestPolicy(headroom_ratio=0.3)),
        ({"VMPACK_HEADROOM": "0.3", "MEM_OVER": "90"}, GuestPolicy(headroom_ratio=0.3)),
        ({"VMPACK_OPT_OUT": "YES"}, GuestPolicy(opt_out=True)),
        ({"VMPACK_OPT_OUT": "no"}, GuestPolicy()),
        ({"VMPACK_FLOOR": "", "MEM_FREE": "7"}, GuestPolicy()),
    ],
)
def test_what_owners_ask_for_is_understood(values: dict[str, str], policy: GuestPolicy) -> None:
    """These words are in owners' templates, some from CloudVAMP's days."""
    found, named, faults, unclear = read_policy(values, GIB, 1000)

    assert (replace(found, of_owner=()), faults, unclear) == (policy, (), ())
    assert found == with_wishes(GuestPolicy(), encode(policy))
    assert named == any(values.get(name) for name in NAMES)


@pytest.mark.parametrize(
    ("values", "policy", "fault"),
    [
        ({"VMPACK_SHARES": "100000"}, GuestPolicy(shares=1000), "above 1000"),
        ({"VMPACK_FLOOR": "64GiB"}, GuestPolicy(floor_bytes=GIB), "above its memory"),
        ({"MIN_FREE_MEM": "99999999"}, GuestPolicy(headroom_min_bytes=GIB), "above its memory"),
        ({"VMPACK_SHARES": "0"}, GuestPolicy(), "whole number"),
        ({"VMPACK_SHARES": "-5"}, GuestPolicy(), "whole number"),
        ({"MEM_OVER": "501"}, GuestPolicy(), "percentage"),
        ({"MEM_OVER": "nan"}, GuestPolicy(), "percentage"),
        ({"MEM_OVER": "1e2"}, GuestPolicy(), "percentage"),
        ({"VMPACK_HEADROOM": "inf"}, GuestPolicy(), "share of use"),
        ({"VMPACK_HEADROOM": "30%%"}, GuestPolicy(), "share of use"),
        ({"VMPACK_FLOOR": "-1"}, GuestPolicy(), "amount of memory"),
        ({"VMPACK_FLOOR": "9" * 1000}, GuestPolicy(), "amount of memory"),
        ({"VMPACK_OPT_OUT": "maybe"}, GuestPolicy(), "yes or no"),
        ({"MIN_FREE_MEM": "10.5"}, GuestPolicy(), "KiB"),
        ({"MIN_FREE_MEM": "\u0663\u0664"}, GuestPolicy(), "KiB"),
    ],
)
def test_what_cannot_be_meant_is_named_and_the_rest_holds(
    values: dict[str, str], policy: GuestPolicy, fault: str
) -> None:
    """A typing mistake must cost its owner that one wish; greed must cost nobody anything."""
    found, _, faults, _ = read_policy({"VMPACK_OPT_OUT": "no"} | values, GIB, 1000)

    assert replace(found, of_owner=()) == policy
    assert len(faults) == 1 and fault in faults[0]


@given(st.dictionaries(st.sampled_from(NAMES), st.text(max_size=40)), st.integers(0, 2**40))
def test_no_owner_can_break_the_reading(values: dict[str, str], nominal: int) -> None:
    """Any owner of a VM writes here, and all VMs are read in one go."""
    policy, _, _, _ = read_policy(values, nominal, 1000)

    assert policy.floor_bytes is None or 0 <= policy.floor_bytes <= nominal
    assert policy.shares is None or 1 <= policy.shares <= 1000
    assert policy.headroom_ratio is None or 0 <= policy.headroom_ratio <= 5
    assert policy.headroom_min_bytes is None or 0 <= policy.headroom_min_bytes <= nominal


@given(
    st.dictionaries(
        st.sampled_from(("MEM_TOTAL", "MEM_FREE", "MEM_AVAILABLE", "TIMESTAMP")),
        st.text(max_size=20) | st.integers(-(2**70), 2**70).map(str),
    )
)
def test_no_guest_can_report_the_impossible(values: dict[str, str]) -> None:
    """A guest may claim anything; what is shown must fit the VM."""
    report = guest_report(values, GIB, 1e9)

    if report is not None:
        assert 0 <= report.available_bytes <= report.total_bytes <= GIB
        assert report.age_s is None or report.age_s >= 0


def test_a_report_has_its_age(oned: Oned, vm: OnedVm, listed: Listed) -> None:
    """A guest whose reporter died an hour ago must not look like one that is idle now."""
    told_s = int(time.time()) - 3600
    asks(vm, f'MEM_TOTAL="1000000"\nMEM_FREE="200000"\nMEM_AVAILABLE="700000"\nTIMESTAMP="{told_s}"')

    (record,) = listed()
    assert record["report"]["available_bytes"] == 700000 * KIB
    assert 3600 <= record["report"]["age_s"] < 3600 + 600
    asks(vm, f'TIMESTAMP="{told_s + 2 * 3600}"')
    assert listed()[0]["report"]["age_s"] is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('TOPOLOGY=[ PIN_POLICY="THREAD" ]', "pinned"),
        ('PCI=[ VENDOR="10de" ]', "PCI"),
        ('TOPOLOGY=[ HUGEPAGE_SIZE="2" ]', "huge pages"),
        ('MEMORY_ENCRYPTION=[ TYPE="SEV" ]', "encrypted"),
        ('MEMORY_RESIZE_MODE="HOTPLUG"', "hotplug"),
    ],
)
def test_why_a_vm_is_left_alone_is_said(
    text: str, why: str, oned: Oned, host: OnedHost, listed: Listed
) -> None:
    """Who wonders why nothing is packed looks here first."""
    oned.add_vm("special", 1024, host, text)

    (record,) = listed()
    assert len(record["left_alone"]) == 1 and why in record["left_alone"][0]


def test_a_vm_that_does_not_run_is_left_alone(oned: Oned, vm: OnedVm, listed: Listed) -> None:
    """Only RUNNING is running: all else is an action of oned under way."""
    vm.lcm_state = 17

    (record,) = listed()
    assert record["left_alone"] == ["it is HOTPLUG"] and not record["running"]


def test_what_probes_measured_is_shown_though_no_schema_names_it(
    oned: Oned, vm: OnedVm, listed: Listed
) -> None:
    """Pools come without measurements, and pyone's records without our names."""
    vm.monitoring = parse('CPU="1.0"\nREALMEMORY="524288"\nVMPACK_STATE="SHRINK"')

    (record,) = listed()
    assert (record["balloon_bytes"], record["verdict"]) == (512 * MIB, "SHRINK")


def test_one_vm_that_cannot_be_read_costs_no_other(
    oned: Oned, vm: OnedVm, host: OnedHost, listed: Listed
) -> None:
    """One odd record in a pool of thousands."""
    odd = oned.add_vm("odd", 512, host)
    odd.template = parse('MEMORY="much"')

    assert [record["name"] for record in listed(code=3)] == ["web"]


@pytest.mark.parametrize("command", [["vms"], ["hosts"], ["grant", "--dry-run"]])
def test_names_from_outside_steer_no_terminal(
    command: list[str], oned: Oned, vm: OnedVm, host: OnedHost, capsys: pytest.CaptureFixture[str]
) -> None:
    """Owners choose names and write templates; screens of administrators show them."""
    printable = EVIL_NAME.replace("\x1b", "\u202e")
    vm.name, host.name = printable, "node\u202ea"
    asks(vm, f'VMPACK_SHARES="{printable}"')

    main(command)

    said = capsys.readouterr()
    assert "\u202e" not in said.out + said.err


@pytest.mark.parametrize("name", ["-oProxyCommand=touch x", "a b", "a;b", "$(x)", "", "a\nb", "x" * 300])
def test_no_hosts_name_becomes_an_option_or_a_command(
    name: str, oned: Oned, front_end: FrontEnd, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever may add a host to the cloud may not thereby run commands as oneadmin."""
    from vmpack.clouds.agents import report
    from vmpack.model.cluster import NoReport

    answer = report(name)

    assert isinstance(answer, NoReport) and "no name of a host" in answer.why
    assert front_end.told() == []
