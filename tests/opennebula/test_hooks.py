"""What vmpack does before and after a VMM action, on a libvirt in memory; with an agent and without one."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import libvirt
import pytest

from tests.fake_libvirt import error
from tests.opennebula.hooks_stage import ACTION, DOMAIN, FAILURES, Stage
from vmpack.drivers import hooks
from vmpack.drivers.hooks import Answer
from vmpack.drivers.node import Before
from vmpack.errors import BadDataError, GuestGoneError
from vmpack.model.guest import GuestPolicy
from vmpack.model.pins import Pin, PinnedBy, pins_xml
from vmpack.model.policy_namespace import ACTION_HOLD_S
from vmpack.observe.policy import read_policy
from vmpack.units import MIB

HELD = ["migrate", "save", "resize", "snapshot_revert"]


@pytest.fixture(params=FAILURES, ids=lambda failure: type(failure).__name__)
def stage(request: pytest.FixtureRequest) -> Stage:
    return Stage(request.param)


@pytest.mark.parametrize("action", HELD)
@pytest.mark.parametrize("code", [0, 1])
def test_the_vm_is_held_for_the_action_and_not_after_it(stage: Stage, action: str, code: int) -> None:
    """Memory would move under a migration or a save, or a VM be left alone for good after one."""
    begun = stage.before(action)
    assert begun.warning == ""
    assert stage.host.policy.action_until_s == stage.clock.wall_s() + ACTION_HOLD_S
    stage.clock.now_s += 5
    assert stage.after(action, code, begun.text) == Answer()
    assert stage.host.policy.action_until_s is None
    assert stage.host.policy.floor_bytes == 64 * MIB


@pytest.mark.parametrize("action", HELD)
def test_a_hold_ends_by_itself(stage: Stage, action: str) -> None:
    """A wrapper that was killed would leave its VM alone for ever, with what it lent gone."""
    stage.before(action)
    until_s = stage.host.policy.action_until_s
    assert until_s is not None and until_s <= stage.clock.wall_s() + ACTION_HOLD_S


@pytest.mark.parametrize("until_s", [10.0, 1e18])
@pytest.mark.parametrize("action", HELD)
def test_a_hold_of_people_stays(action: str, until_s: float) -> None:
    """A person's hold would end with the next migration."""
    stage = Stage(policy=GuestPolicy(hold_until_s=until_s, nominal_bytes=512 * MIB))
    begun = stage.before(action)
    assert stage.host.policy.hold_until_s == until_s
    assert stage.after(action, 0, begun.text) == Answer()
    assert stage.host.policy == stage.policy


@pytest.mark.parametrize("action", HELD)
def test_a_long_action_holds_on(stage: Stage, action: str) -> None:
    """Disks are copied for minutes before libvirt takes the VM over: its memory would move meanwhile."""
    stage.before(action)
    stage.clock.now_s += ACTION_HOLD_S - 1
    assert stage.meanwhile()
    assert stage.host.policy.action_until_s == stage.clock.wall_s() + ACTION_HOLD_S


def test_a_hold_is_not_renewed_once_libvirt_has_the_vm_or_it_is_over(stage: Stage) -> None:
    """libvirt would be asked to write into a VM on its way, or a VM that nobody moves be left alone."""
    begun = stage.before("migrate")
    stage.host.job = 1
    stage.clock.now_s += 5
    assert not stage.meanwhile()
    assert stage.host.policy.action_until_s == stage.clock.wall_s() - 5 + ACTION_HOLD_S
    stage.host.job = 0
    stage.after("migrate", 1, begun.text)
    assert not stage.meanwhile() and stage.host.policy == stage.policy
    stage.host.there = False
    with pytest.raises(GuestGoneError):
        stage.meanwhile()


def test_a_hold_set_meanwhile_stays(stage: Stage) -> None:
    """A person who holds a VM while it is saved would be overruled."""
    begun = stage.before("migrate")
    stage.host.policy = GuestPolicy(hold_until_s=2e9)
    stage.after("migrate", 1, begun.text)
    assert stage.host.policy.hold_until_s == 2e9


@pytest.mark.parametrize("code", [0, 1])
def test_a_vm_that_has_moved_is_no_fault(stage: Stage, code: int) -> None:
    """Every migration would be logged as a trouble; one that is called failed, too, may have moved its VM."""
    begun = stage.before("migrate")
    travels = stage.host.policy
    stage.host.there = False
    assert stage.after("migrate", code, begun.text) == Answer()
    assert (
        travels.action_until_s is not None and travels.action_until_s <= stage.clock.wall_s() + ACTION_HOLD_S
    )
    assert (travels.floor_bytes, travels.nominal_bytes) == (64 * MIB, 256 * MIB)


@pytest.mark.parametrize("action", ["resize", "restore", "snapshot_revert"])
def test_what_the_owner_pays_for_is_written_after_success(stage: Stage, action: str) -> None:
    """A VM that was resized would stay as small as it was, or get what its owner no longer pays for."""
    begun = stage.before(action, ACTION)
    assert stage.after(action, 0, begun.text) == Answer()
    assert stage.host.policy == GuestPolicy(floor_bytes=64 * MIB, nominal_bytes=512 * MIB)


@pytest.mark.parametrize(("mib", "meanwhile_mib"), [(512, 512), (128, 256)])
def test_a_vm_that_grows_may_have_it_before_the_stock_action_gives_it(mib: int, meanwhile_mib: int) -> None:
    """When what comes afterwards fails the agent would take back what is paid for now, for good."""
    stage = Stage()
    stage.before("resize", ACTION.replace("512", str(mib)))
    assert stage.host.policy.nominal_bytes == meanwhile_mib * MIB
    assert stage.host.policy.action_until_s is not None


def test_a_vm_without_a_nominal_gets_none_before_its_resize() -> None:
    """A VM that is packed from all that it was built with would be held to less than it is resized to."""
    stage = Stage(policy=GuestPolicy(shares=7))
    begun = stage.before("resize", ACTION)
    assert stage.host.policy.nominal_bytes is None
    stage.after("resize", 1, begun.text)
    assert stage.host.policy == stage.policy


@pytest.mark.parametrize("action", ["resize", "restore", "snapshot_revert", "migrate"])
def test_a_nominal_that_is_not_noted_is_told_with_what_helps(action: str) -> None:
    """An owner would wait in vain for what he was resized to, and nobody would know what to do."""
    stage = Stage()
    begun = stage.before(action, ACTION)
    stage.host.read_only = True
    told = stage.after(action, 0, begun.text).warning
    assert ("`vmpack vms --sync`" in told) is (action != "migrate")


@pytest.mark.parametrize("action", ["resize", "restore", "snapshot_revert"])
def test_after_a_failure_the_old_nominal_stays(stage: Stage, action: str) -> None:
    """oned takes a failed resize back, and the VM would have been given unpaid memory."""
    begun = stage.before(action, ACTION)
    stage.after(action, 1, begun.text)
    assert stage.host.policy == stage.policy


def test_a_revert_brings_no_old_policy_back(stage: Stage) -> None:
    """A hold or an opt-out from the day of the snapshot would hold again, and old nominals with them."""
    begun = stage.before("snapshot_revert", ACTION)
    stage.host.policy = GuestPolicy(opt_out=True, hold_until_s=1e18, nominal_bytes=128 * MIB)
    stage.after("snapshot_revert", 0, begun.text)
    assert stage.host.policy == GuestPolicy(floor_bytes=64 * MIB, nominal_bytes=512 * MIB)


@pytest.mark.parametrize("given", ["", "<VM/>", ACTION.replace("512", "x")])
def test_a_resize_that_is_not_understood_is_told_and_the_hold_ends(stage: Stage, given: str) -> None:
    """A VM whose new size is not known would also be left alone."""
    begun = stage.before("resize", given)
    assert "cannot be used" in stage.after("resize", 0, begun.text, given).warning
    assert stage.host.policy == stage.policy


@pytest.mark.parametrize("action", HELD)
def test_a_dead_libvirt_is_a_warning(action: str) -> None:
    """The stock action would not be tried, though it may know better."""
    stage = Stage()
    stage.host.lost = True
    assert stage.before(action).warning.startswith("could not look at the VM one-12")
    assert stage.after(action, 0, "").warning.startswith("could not look at the VM one-12")


@pytest.mark.parametrize("word", ["x", "!!", "e30", "Zm9v", "\u00fc"])
def test_a_word_that_is_not_ours_changes_nothing(word: str) -> None:
    """Whatever stands in the wrapper's variable would be written into a VM."""
    stage = Stage()
    with pytest.raises(BadDataError):
        Before.of_word(word)
    assert stage.after("save", 1, word).warning
    assert stage.host.policy == stage.policy


def test_the_word_is_safe_for_any_shell() -> None:
    """Over ssh the word would fall apart."""
    begun = Before(
        GuestPolicy(floor_bytes=1, hold_until_s=1.5, nominal_bytes=2**40), (Pin("vcpu", 0, "hand", (1, 2)),)
    )
    assert set(begun.word()) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")
    assert Before.of_word(begun.word()) == begun


@pytest.mark.parametrize(
    ("features", "converges"),
    [
        ("", True),
        ("<FEATURES><MIGRATE_AUTO_CONVERGE>10,5</MIGRATE_AUTO_CONVERGE></FEATURES>", False),
        ("<FEATURES><MIGRATE_AUTO_CONVERGE/></FEATURES>", True),
        ("<FEATURES><ACPI>yes</ACPI></FEATURES><FEATURES><MIGRATE_AUTO_CONVERGE>1</MIGRATE_AUTO_CONVERGE>"
         "</FEATURES>", False),
        ("<NOTE>MIGRATE_AUTO_CONVERGE</NOTE>", True),
    ],
)  # fmt: skip
def test_a_guest_is_slowed_down_unless_its_features_say_how(features: str, converges: bool) -> None:
    """A busy VM would never arrive because its owner wrote a word somewhere; or virsh refuse it twice."""
    text = Stage().before("migrate", ACTION.replace("<MEMORY>", f"{features}<MEMORY>")).text
    assert text.endswith(hooks.AUTO_CONVERGE) is converges
    assert Before.of_word(text.removesuffix(hooks.AUTO_CONVERGE)).policy.nominal_bytes == 256 * MIB


def vm_xml(folder: Path, user_template: str) -> Path:
    text = ACTION.partition("<VM>")[2].partition("</VM>")[0]
    (folder / "vm.xml").write_text(f"<VM>{text}<USER_TEMPLATE>{user_template}</USER_TEMPLATE></VM>")
    return folder / "deployment.0"


def test_a_deployment_gets_its_owner_s_policy(tmp_path: Path) -> None:
    """What an owner asked for would hold only after the next look at the cloud."""
    file = vm_xml(tmp_path, "<VMPACK_FLOOR>100MiB</VMPACK_FLOOR><VMPACK_OPT_OUT>yes</VMPACK_OPT_OUT>")
    answer = Stage().before("deploy", DOMAIN, file)
    assert answer.warning == ""
    policy, _ = read_policy(ElementTree.fromstring(answer.text))
    assert policy == GuestPolicy(
        floor_bytes=100 * MIB, opt_out=True, nominal_bytes=512 * MIB, of_owner=("floor_bytes", "opt_out")
    )


def test_a_bad_wish_is_told_and_costs_nothing_else(tmp_path: Path) -> None:
    """One typing error of an owner would leave his VM unpacked, and he would not know why."""
    answer = Stage().before("deploy", DOMAIN, vm_xml(tmp_path, "<VMPACK_FLOOR>a lot</VMPACK_FLOOR>"))
    assert "VMPACK_FLOOR='a lot' is not" in answer.warning
    assert "nominal=" in answer.text


def test_a_deployment_without_vm_xml_is_made_ready_all_the_same(tmp_path: Path) -> None:
    """Where oned does not write that file no VM would be packed."""
    assert "nominal=" in Stage().before("deploy", DOMAIN, tmp_path / "deployment.0").text
    (tmp_path / "vm.xml").write_bytes(b"<VM>\xff")
    answer = Stage().before("deploy", DOMAIN, tmp_path / "deployment.0")
    assert "what its owner asks for is not known" in answer.warning and "nominal=" in answer.text


@pytest.mark.parametrize("given", ["", "<domain/>", "\udcff", "<vm/>"])
def test_a_deployment_that_is_not_understood_stays_as_it_is(given: str, tmp_path: Path) -> None:
    """The VM would be deployed from a broken XML."""
    answer = Stage().before("deploy", given, tmp_path / "deployment.0")
    assert answer.text == "" and answer.warning


@pytest.mark.parametrize(
    ("versions", "told"),
    [((9_000_000, 7_002_000), True), ((6_000_000, 7_002_000), False), ((9_000_000, 4_002_000), False)],
)
def test_page_reporting_is_asked_for_only_where_it_is_known(versions: tuple[int, int], told: bool) -> None:
    """On an old host no VM of this driver would start."""
    stage = Stage()
    stage.host.versions = versions
    assert ("freePageReporting" in stage.before("deploy", DOMAIN).text) is told
    stage.host.lost = True
    assert "freePageReporting" not in stage.before("deploy", DOMAIN).text


ON_TWO = (False, True, True, False)
ON_ALL = (True,) * 4


@pytest.mark.parametrize("by", ["hand", "scheduler"])
@pytest.mark.parametrize("action", HELD)
def test_pins_of_ours_are_off_while_the_vm_may_leave(action: str, by: PinnedBy) -> None:
    """A VM with a pin would not arrive on a host with other CPUs, or sit there on CPUs that nobody chose."""
    stage = Stage()
    note = pins_xml([Pin("vcpu", 1, by, (1, 2))])
    stage.host.pins, stage.host.pins_note = [ON_TWO, ON_TWO], note
    begun = stage.before(action)
    if action in ("migrate", "save"):
        assert stage.host.pins == [ON_TWO, ON_ALL] and stage.host.pins_note is None
    else:
        assert stage.host.pins == [ON_TWO, ON_TWO]
    stage.after(action, 1, begun.text)
    assert stage.host.pins == [ON_TWO, ON_TWO] and stage.host.pins_note == note


def test_pins_that_cannot_be_taken_off_cost_a_warning() -> None:
    """A migration would not be tried, or go without its hold."""
    stage = Stage()
    stage.host.pins[1], stage.host.pins_note = ON_TWO, pins_xml([Pin("vcpu", 1, "hand", (1, 2))])
    stage.host.pinVcpu = raising  # type: ignore[method-assign]
    begun = stage.before("save")
    assert "pin vCPU 1 of one-12" in begun.warning and Before.of_word(begun.text).policy == stage.policy


def raising(_vcpu: int, _cpus: tuple[bool, ...]) -> None:
    raise error(libvirt.VIR_ERR_OPERATION_FAILED)
