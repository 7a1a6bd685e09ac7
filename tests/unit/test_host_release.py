"""Giving memory back: all that fits, nothing that does not, and what is left is said."""

import dataclasses

from tests import builders
from tests.host_doubles import HostInMemory, JumpingClock, make_loop, make_release, turns

from vmpack.decide.explain import words
from vmpack.model.host import HostSnapshot
from vmpack.model.plan import Remembered
from vmpack.units import MIB


def packed_host(budget: int | None = None) -> tuple[HostInMemory, Remembered]:
    """Two guests after an agent has packed them."""
    host = HostInMemory(JumpingClock(), builders.guest("g0"), builders.guest("g1"), budget=budget)
    loop = make_loop(host)
    turns(loop, 4, host.clock)
    assert all(guest.balloon_bytes < 200 * MIB for guest in host.guests.values())
    host.plans.clear()
    return host, loop.remembered


def test_everything_is_given_back() -> None:
    """Promise 2: after a release every VM has what its owner was promised."""
    host, remembered = packed_host()
    missing = sum(256 * MIB - guest.balloon_bytes for guest in host.guests.values())

    given, _ = make_release(host).carry_out(remembered, builders.EAGER, None)

    assert all(guest.balloon_bytes == 256 * MIB for guest in host.guests.values())
    assert given.given_bytes == missing
    assert given.still_packed == ()


def test_only_the_asked_vm_is_touched() -> None:
    """`vmpack release VM` must not undo the packing of its neighbours."""
    host, remembered = packed_host()
    before = host.named("g1").balloon_bytes

    given, _ = make_release(host).carry_out(remembered, builders.EAGER, frozenset({"uuid-g0"}))

    assert host.named("g0").balloon_bytes == 256 * MIB
    assert host.named("g1").balloon_bytes == before
    assert given.still_packed == ()


def test_an_overcommitted_host_says_what_stays_packed() -> None:
    """Giving every nominal back on a full host would end in the host's OOM killer: the rest is said aloud."""
    host, remembered = packed_host(budget=400)

    given, _ = make_release(host).carry_out(remembered, builders.EAGER, None)

    balloons = sum(guest.balloon_bytes for guest in host.guests.values())
    assert 380 * MIB <= balloons <= 400 * MIB
    assert {left.name for left in given.still_packed} == {"g0", "g1"}
    assert all(left.packed_bytes > 0 and left.why and left.cure for left in given.still_packed)


def test_a_vm_that_another_program_asks_just_now_is_not_left_out() -> None:
    """A monitoring tool that looks at the wrong moment would keep a VM packed after the agent is gone."""
    host, remembered = packed_host()
    busy = host.guests.pop("uuid-g1")
    host.unreadable = (builders.unreadable("g1"),)
    looks = host.observe

    def observe() -> HostSnapshot:
        snapshot = looks()
        host.guests.setdefault("uuid-g1", busy)
        host.unreadable = ()
        return snapshot

    host.observe = observe  # type: ignore[method-assign]
    given, _ = make_release(host).carry_out(remembered, builders.EAGER, None)

    assert host.named("g1").balloon_bytes == 256 * MIB and given.still_packed == ()


def test_a_balloon_that_does_not_move_is_not_waited_for_for_ever() -> None:
    """A hung guest must delay the stop of the agent by seconds, and must be named."""
    host, remembered = packed_host()
    host.stuck = {"g1"}
    started_s = host.clock.now_s

    given, _ = make_release(host).carry_out(remembered, builders.EAGER, None)

    assert host.clock.now_s - started_s < 10
    assert [left.name for left in given.still_packed] == ["g1"]
    assert "has not yet" in given.still_packed[0].why


def test_vms_that_do_not_answer_are_named() -> None:
    """What could not be looked at must not pass for released."""
    host, remembered = packed_host()
    host.unreadable = (builders.unreadable("hung"),)

    given, _ = make_release(host).carry_out(remembered, builders.EAGER, None)

    assert [left.name for left in given.still_packed] == ["hung"]


def test_a_preview_changes_nothing() -> None:
    """`vmpack release --dry-run` is asked by the careful; it must be harmless."""
    host, remembered = packed_host()

    plan = make_release(host).look(remembered, builders.EAGER, None)

    assert len(plan.actions) >= 2 and host.plans == []
    assert all(words(reason) for guest in plan.guests for reason in guest.reasons)


def test_statistics_periods_are_put_back() -> None:
    """Whoever ran without statistics before vmpack must run without them after it."""
    silent = dataclasses.replace(builders.guest("g0"), stats_period_s=0)
    host = HostInMemory(JumpingClock(), silent)
    loop = make_loop(host)
    loop.turn()
    assert any(action.kind == "set_stats_period" for action in host.plans[0].actions)
    host.guests = {"uuid-g0": dataclasses.replace(host.named("g0"), stats_period_s=1)}

    make_release(host).carry_out(loop.remembered, builders.EAGER, None)

    assert [(a.kind, a.period_s) for a in host.plans[-1].actions if a.kind == "set_stats_period"] == [
        ("set_stats_period", 0)
    ]
