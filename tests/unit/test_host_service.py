"""The service: what can be asked and told, and how it refuses."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from tests import builders
from tests.host_doubles import HostInMemory, JumpingClock, make_loop, make_service, turns

from vmpack.errors import BadDataError, UnavailableError, UsageError, VmpackError
from vmpack.host.loop import Loop
from vmpack.host.service import FOR_EVER_S, HostService
from vmpack.model.guest import GuestPolicy
from vmpack.units import MIB


def packed(
    tmp_path: Path, *, budget: int | None = None, observe_only: bool = False
) -> tuple[HostInMemory, Loop, HostService]:
    """Two idle guests, packed where that is allowed."""
    host = HostInMemory(JumpingClock(), builders.guest("web1"), builders.guest("web2"), budget=budget)
    loop = make_loop(host, observe_only=observe_only)
    turns(loop, 4, host.clock)
    host.plans.clear()
    return host, loop, make_service(host, loop, tmp_path)


def test_explain_shows_the_newest_interval_of_one_vm(tmp_path: Path) -> None:
    """Whoever asks why must get the very numbers that were decided with."""
    _, loop, service = packed(tmp_path)
    interval = loop.turn()

    told = service.explain("web2")

    assert told.number == interval.number == service.status().interval.number  # type: ignore[union-attr]
    assert told.guest.uuid == told.plan.uuid == "uuid-web2"
    assert told.plan.reasons and all(outcome.action.uuid == "uuid-web2" for outcome in told.outcomes)
    assert service.explain("uuid-web2") == told
    assert [reason.rule for reason in told.learned] == ["learned_nothing"]


def test_an_unknown_vm_gets_near_names(tmp_path: Path) -> None:
    """A typing error must be cured by the answer itself."""
    _, _, service = packed(tmp_path)

    with pytest.raises(UsageError) as caught:
        service.explain("wbe1")

    assert "web1" in caught.value.hint


def test_a_hung_vm_is_not_called_unknown(tmp_path: Path) -> None:
    """The administrator of a hung VM must not be told that it does not exist."""
    host, loop, service = packed(tmp_path)
    host.unreadable = (builders.unreadable("hung"),)
    loop.turn()

    with pytest.raises(UnavailableError, match="gives no answer"):
        service.explain("hung")


def test_a_vm_named_like_anothers_uuid_does_not_hide_it(tmp_path: Path) -> None:
    """An owner could else keep the administrator from every command on a neighbour, or have them meet his."""
    host, loop, service = packed(tmp_path)
    host.guests["x"] = dataclasses.replace(host.named("web1"), uuid="x", name="uuid-web2")
    host.guests["y"] = dataclasses.replace(host.named("web1"), uuid="y", name="uuid-hung")
    host.unreadable = (dataclasses.replace(builders.unreadable("hung"), uuid="uuid-hung"),)
    loop.turn()

    assert service.explain("uuid-web2").guest.name == "web2"
    assert service.explain("x").guest.name == "uuid-web2"
    with pytest.raises(UnavailableError, match="gives no answer"):
        service.explain("uuid-hung")


def test_a_name_that_two_vms_have_needs_a_uuid(tmp_path: Path) -> None:
    """Where a name is taken twice, the wrong one must not be changed."""
    host, loop, service = packed(tmp_path)
    host.guests["x"] = dataclasses.replace(host.named("web1"), uuid="x")
    loop.turn()

    with pytest.raises(UsageError, match="names 2 VMs") as caught:
        service.release("web1")

    assert "uuid-web1, x" in caught.value.hint


def test_before_the_first_interval_there_is_a_clear_answer(tmp_path: Path) -> None:
    """Asking a moment too early must not look like a crash."""
    host = HostInMemory(JumpingClock(), builders.guest("web1"))
    service = make_service(host, make_loop(host), tmp_path)

    assert service.status().interval is None
    with pytest.raises(UnavailableError, match="no interval"):
        service.explain("web1")


def test_policies_are_changed_field_by_field(tmp_path: Path) -> None:
    """Setting the shares must not wipe the floor, and None must give the default back."""
    host, _, service = packed(tmp_path)

    service.set_policy("web1", {"floor_bytes": 100 * MIB})
    told = service.set_policy("web1", {"shares": 2000, "headroom_ratio": 1, "opt_out": True})

    wanted = GuestPolicy(floor_bytes=100 * MIB, shares=2000, headroom_ratio=1.0, opt_out=True)
    assert host.named("web1").policy == told.policy == wanted
    service.set_policy("web1", dict.fromkeys(("floor_bytes", "shares", "headroom_ratio", "opt_out")))
    assert host.named("web1").policy == builders.guest("web1").policy


def test_what_a_person_sets_is_no_longer_the_owners(tmp_path: Path) -> None:
    """The owner's next word in the cloud would undo what an administrator set by hand."""
    host, _, service = packed(tmp_path)
    asked = ["floor_bytes", "shares"]
    service.set_policy("web1", {"floor_bytes": 100 * MIB, "shares": 5, "of_owner": asked})
    assert host.named("web1").policy.of_owner == ("floor_bytes", "shares")

    service.set_policy("web1", {"shares": 7})

    assert host.named("web1").policy.of_owner == ("floor_bytes",)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"of_owner": ["hold_until_s"]}, "a list of"),
        ({"of_owner": "shares"}, "a list of"),
        ({"shares": 0}, "1 to 100000"),
        ({"shares": 2.5}, "whole number"),
        ({"shares": True}, "whole number"),
        ({"floor_bytes": 257 * MIB}, "256 MiB"),
        ({"floor_bytes": -1}, "bytes"),
        ({"headroom_ratio": 6}, "0 to 5"),
        ({"headroom_ratio": "0.1"}, "0 to 5"),
        ({"opt_out": 1}, "true or false"),
        ({"nominal_bytes": 1}, "1 MiB or more"),
        ({"hold_until_s": 1.0}, "no 'hold_until_s'"),
        ({"action_until_s": -1.0}, "a Unix time"),
        ({"shares": 7, "headroom_ratio": -1}, "0 to 5"),
    ],
)
def test_impossible_policies_are_refused(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    """A policy out of range would be dropped by the next look: say it now, and change nothing."""
    host, _, service = packed(tmp_path)

    with pytest.raises((UsageError, BadDataError), match=said):
        service.set_policy("web1", changes)

    assert host.named("web1").policy == builders.guest("web1").policy


def test_holds_end_by_themselves_or_when_told(tmp_path: Path) -> None:
    """A VM that is held for ten minutes must be packed again after them, without anybody's hand."""
    host, loop, service = packed(tmp_path)

    held = service.hold("web1", 600)
    assert held.policy.hold_until_s == host.clock.wall_s() + 600
    assert service.hold("web1", None).policy.hold_until_s == FOR_EVER_S
    excluded = {plan.name for plan in loop.turn().plan.guests if plan.verdict == "excluded"}
    assert excluded == {"web1"}

    assert service.hold("web1", 0).policy.hold_until_s is None
    assert all(plan.verdict != "excluded" for plan in loop.turn().plan.guests)
    with pytest.raises(UsageError):
        service.hold("web1", -1)


def test_a_balloon_by_hand_stays_where_it_was_put(tmp_path: Path) -> None:
    """If the next interval undid it, the command would be useless."""
    host, loop, service = packed(tmp_path)

    outcome = service.balloon("web1", 230 * MIB)
    turns(loop, 5, host.clock)

    assert outcome.status == "done"
    assert host.named("web1").balloon_bytes == 230 * MIB
    assert host.named("web1").policy.hold_until_s == FOR_EVER_S


@pytest.mark.parametrize(
    ("size_mib", "said"), [(60, "needs"), (257, "promised 256 MiB"), (250, "the host has .* left")]
)
def test_a_senseless_balloon_is_refused_with_numbers(size_mib: int, said: str, tmp_path: Path) -> None:
    """By hand, too, no guest is starved and no host overfilled; the numbers say what would fit."""
    host, _, service = packed(tmp_path, budget=300)
    before = dict(host.guests)

    with pytest.raises(UsageError, match=said) as caught:
        service.balloon("web1", size_mib * MIB)

    assert caught.value.hint and "MiB" in caught.value.message
    assert host.plans == [] and host.guests == before


@pytest.mark.parametrize("size_bytes", [10**4000, -(10**4000), 0, 2**63])
def test_an_absurd_balloon_is_one_clear_error(size_bytes: int, tmp_path: Path) -> None:
    """The API takes any number: one too large for arithmetic must not look like a defect."""
    host, _, service = packed(tmp_path)

    with pytest.raises(UsageError, match="no VM can have") as caught:
        service.balloon("web1", size_bytes)

    assert len(str(caught.value)) < 200 and host.plans == []


def test_a_vm_that_cannot_be_ballooned_is_refused_with_its_reason(tmp_path: Path) -> None:
    """Ballooning a VM with passed-through devices could crash it."""
    host, _, service = packed(tmp_path)
    host.guests["uuid-web1"] = dataclasses.replace(host.named("web1"), exclusions=("pci_passthrough",))

    with pytest.raises(UsageError, match="left alone"):
        service.balloon("web1", 200 * MIB)

    assert host.plans == []


def test_observe_mode_and_freeze_refuse_balloons(tmp_path: Path) -> None:
    """Promise 1 holds for commands by hand as well."""
    host, _, service = packed(tmp_path, observe_only=True)
    with pytest.raises(UnavailableError, match="observes"):
        service.balloon("web1", 200 * MIB)

    host, _, service = packed(tmp_path)
    service.freeze(True)
    with pytest.raises(UnavailableError, match="frozen"):
        service.balloon("web1", 200 * MIB)
    assert host.plans == []


def test_a_released_vm_keeps_its_memory(tmp_path: Path) -> None:
    """A VM that was given back must not be packed again by the next interval; its neighbour may."""
    host, loop, service = packed(tmp_path)
    neighbour = host.named("web2").balloon_bytes

    given = service.release("web1")
    turns(loop, 5, host.clock)

    assert given.given_bytes > 0 and given.still_packed == ()
    assert host.named("web1").balloon_bytes == 256 * MIB
    assert host.named("web2").balloon_bytes <= neighbour


def test_releasing_all_freezes_the_host(tmp_path: Path) -> None:
    """Promise 6: after `release --all` nothing is packed until the administrator says so."""
    host, loop, service = packed(tmp_path)

    service.release(None)
    turns(loop, 5, host.clock)
    assert all(guest.balloon_bytes == 256 * MIB for guest in host.guests.values())

    assert service.freeze(False).frozen is False
    turns(loop, 12, host.clock)
    assert any(guest.balloon_bytes < 256 * MIB for guest in host.guests.values())


def test_the_status_after_a_release_or_freeze_is_of_the_host_as_it_now_is(tmp_path: Path) -> None:
    """Who looks right after it must not see VMs still packed, and ask what the release did."""
    host, loop, service = packed(tmp_path)

    service.release(None)

    newest = service.status().interval
    assert newest and newest.snapshot.frozen and newest.outcomes == ()
    assert [guest.balloon_bytes for guest in newest.snapshot.guests] == [256 * MIB] * 2
    assert newest.plan.offer.packed_bytes == 0

    service.freeze(False)
    turns(loop, 12, host.clock)
    host.plans.clear()
    service.freeze(True)
    newest = service.status().interval
    assert newest and newest.snapshot.frozen and host.plans == []


def test_a_host_that_cannot_be_seen_is_frozen_all_the_same(tmp_path: Path) -> None:
    """When libvirt fails is when the administrator wants everything to stop."""
    host, _, service = packed(tmp_path)
    host.errors = [UnavailableError("libvirt is gone")]

    assert service.freeze(True).frozen and service.status().frozen


def test_a_full_disk_keeps_no_memory_from_a_vm(tmp_path: Path) -> None:
    """A release is often asked for when much is broken already; it must not need the disk, nor be undone."""
    (tmp_path / "file").write_text("")
    host, loop, service = packed(tmp_path / "file" / "state")

    service.release(None)
    turns(loop, 5, host.clock)

    assert all(guest.balloon_bytes == 256 * MIB for guest in host.guests.values())


def test_a_release_of_nobody_changes_nothing(tmp_path: Path) -> None:
    """A typing error in `release VM` must not freeze or hold anything."""
    host, _, service = packed(tmp_path)

    with pytest.raises(VmpackError):
        service.release("nobody")

    assert host.plans == [] and not host.frozen
