"""What is paid for in the cloud reaches the agents, whoever started the VM."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from vmpack.cli.vms_sync import policy_options
from vmpack.decide.owners import plan_owner, with_wishes
from vmpack.model.cluster import AgentReport, CloudVm, ReportedVm
from vmpack.model.guest import GuestPolicy
from vmpack.model.policy_namespace import OWNER_FIELDS
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
    assert policy_options(wanted) == ["--of-owner", "--nominal", str(256 * MIB)]


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
    assert told(cloud_vm(256, wish), report(256, present)) == GuestPolicy(
        shares=7, nominal_bytes=256 * MIB, of_owner=("shares",)
    )


policies = st.builds(
    GuestPolicy,
    floor_bytes=st.sampled_from((None, 1, 2)),
    shares=st.sampled_from((None, 1, 2)),
    headroom_ratio=st.sampled_from((None, 0.1, 0.2)),
    headroom_min_bytes=st.sampled_from((None, 1, 2)),
    opt_out=st.booleans(),
)
wishes = st.dictionaries(st.sampled_from(OWNER_FIELDS), st.sampled_from((1, 2)))


@given(policies, wishes, wishes)
def test_an_administrators_values_outlive_all_wishes(
    own: GuestPolicy, first: dict[str, Any], second: dict[str, Any]
) -> None:
    """An owner could undo what was set for his VM by hand, or what he asked for could never be taken back."""
    asked = with_wishes(with_wishes(own, first), second)

    for name in OWNER_FIELDS:
        set_by_hand = getattr(own, name) != getattr(GuestPolicy(), name)
        expected = getattr(own, name) if set_by_hand else second.get(name, getattr(GuestPolicy(), name))
        assert getattr(asked, name) == expected
        assert (name in asked.of_owner) == (not set_by_hand and name in second)
    assert with_wishes(asked, {}) == own
