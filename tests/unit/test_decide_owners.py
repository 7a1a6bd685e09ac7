"""What is paid for in the cloud reaches the agents, whoever started the VM."""

from __future__ import annotations

from vmpack.cli.vms_sync import policy_options
from vmpack.decide.owners import plan_owner
from vmpack.model.cluster import AgentReport, CloudVm, ReportedVm
from vmpack.model.guest import GuestPolicy
from vmpack.units import MIB


def cloud_vm(nominal_mib: int, policy: GuestPolicy | None = None) -> CloudVm:
    return CloudVm(
        id="12", name="web", domain="one-12", state="RUNNING", running=True, host_id="0", host_name="a",
        nominal_bytes=nominal_mib * MIB, policy=policy or GuestPolicy(), policy_named=policy is not None,
    )  # fmt: skip


def report(nominal_mib: int, policy: GuestPolicy | None = None) -> AgentReport:
    vm = ReportedVm("uuid", "one-12", nominal_mib * MIB, 100 * MIB, policy=policy or GuestPolicy())
    return AgentReport("active", False, 0, 0, 0, vms=(vm,))


def told(vm: CloudVm, answer: AgentReport) -> GuestPolicy | None:
    decided = plan_owner(vm, answer)
    assert decided is not None
    return decided.policy


def test_a_vm_that_our_driver_did_not_start_learns_what_is_paid_for() -> None:
    """With the stock driver, or after a conversion, an owner would get all that he may be resized to."""
    present = GuestPolicy(floor_bytes=5 * MIB, hold_until_s=1e18)
    wanted = told(cloud_vm(256), report(512, present))
    assert wanted == GuestPolicy(floor_bytes=5 * MIB, hold_until_s=1e18, nominal_bytes=256 * MIB)
    assert policy_options(wanted) == ["--reset", "--floor", str(5 * MIB), "--nominal", str(256 * MIB)]


def test_what_is_known_is_not_told_again() -> None:
    """Every look at the cloud would write into every VM."""
    assert told(cloud_vm(256), report(256)) is None
    assert told(cloud_vm(256), report(256, GuestPolicy(nominal_bytes=256 * MIB))) is None


def test_more_than_it_was_built_with_is_told_once() -> None:
    """A VM whose memory was plugged in would be written to for ever."""
    assert told(cloud_vm(512), report(256)) == GuestPolicy(nominal_bytes=512 * MIB)
    assert told(cloud_vm(512), report(256, GuestPolicy(nominal_bytes=512 * MIB))) is None


def test_an_owner_s_wish_leaves_the_nominal() -> None:
    """An owner's word would take his ceiling away."""
    wish, present = GuestPolicy(shares=7), GuestPolicy(nominal_bytes=256 * MIB)
    assert told(cloud_vm(256, wish), report(256, present)) == GuestPolicy(shares=7, nominal_bytes=256 * MIB)
