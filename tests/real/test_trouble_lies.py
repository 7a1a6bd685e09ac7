"""Guests that lie, beside an honest one: nobody gains, nobody else pays, and the lie is told in words."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.real.agent_process import QUICK, AgentProcess, nominal_bytes, packed
from tests.real.balloon_liar import BalloonLiar
from tests.real.patched_agent import PatchedAgent
from tests.waiting import eventually
from vmpack.cli.explain import lines
from vmpack.lab.guest_spec import GuestSpec
from vmpack.lab.lab import Lab, LabGuest
from vmpack.units import KIB, MIB

SIZE_BYTES = 160 * MIB
FLOOR_BYTES = 80 * MIB
HOST_BYTES = 520 * MIB
"""Too small for both nominals and what two QEMUs need beside them."""
TIGHT = (
    QUICK
    + "learned_floor_s = 3\nkill_floor_s = 3\n"
    + f'[host]\nmemory_bytes = "{HOST_BYTES // MIB}MiB"\nreserve_ratio = 0\nreserve_min_bytes = 0\n'
)
"""A lying balloon seems to stop short, and the liar may lose processes: neither counts for long."""
SLACK_BYTES = 12 * MIB
"""QEMU's own memory grows a little between two looks."""


@pytest.fixture(scope="module")
def pair(lab: Lab) -> Iterator[list[LabGuest]]:
    """The liar and the honest guest."""
    names = ("liar", "honest")
    guests = lab.start(*(GuestSpec(name, memory_bytes=SIZE_BYTES, stats_period_s=1) for name in names))
    lab.wait_ready()
    yield guests
    for guest in guests:
        guest.destroy()


@pytest.fixture
def liar(pair: list[LabGuest]) -> LabGuest:
    """The guest that is lied about, or lies itself."""
    return pair[0]


@pytest.fixture
def honest(pair: list[LabGuest]) -> Iterator[LabGuest]:
    """Its neighbour; it has no load after the test."""
    yield pair[1]
    pair[1].control.free()


def explained(agent: AgentProcess, guest: LabGuest) -> str:
    """What `vmpack explain` prints of a guest, in one line."""
    return " ".join(" ".join(lines(agent.client.explain(guest.name), None, time.time())).split())


def check_host(agent: AgentProcess, liar: LabGuest, honest: LabGuest) -> None:
    """What must hold at any moment, asked of libvirt and the kernel and not of vmpack."""
    for guest in (liar, honest):
        # Not memoryStats: that takes the VM's job, and the agent would find it busy.
        nominal, balloon, _ = guest.size()
        assert FLOOR_BYTES <= balloon <= nominal
    assert liar.rss_bytes() + honest.rss_bytes() <= HOST_BYTES + SLACK_BYTES
    status = agent.client.status()
    assert status.last_error is None and status.interval is not None
    (seen,) = [guest for guest in status.interval.snapshot.guests if guest.name == honest.name]
    assert seen.stats is not None and seen.stats_fault is None


REPORTED: list[tuple[dict[str, Any], str]] = [
    ({"balloon.available": 2**63}, "available is 9223372036854775808"),
    ({"balloon.available": 2**40}, "is above what the VM was built with"),
    ({"balloon.available": 0}, "available is 0"),
    ({"balloon.usable": -1}, "usable is -1"),
    ({"balloon.usable": "plenty"}, "usable is 'plenty'"),
    ({"balloon.usable": 2**64 - 1}, "usable is 18446744073709551615"),
    ({"balloon.usable": {"add": 512 * 1024}}, "is above available"),
    ({"balloon.unused": {"add": 512 * 1024}}, "is above available"),
    ({"balloon.usable": 1.5}, "usable is 1.5"),
    ({"balloon.swap_in": "many"}, "swap_in is 'many'"),
    ({"balloon.last-update": "yesterday"}, "the time of the report is 'yesterday'"),
    ({"balloon.usable": None}, "does not report what is usable"),
    ({"balloon.current": 0}, "the size of the balloon is 0 KiB"),
    ({"balloon.current": 2**54}, "the size of the balloon is 18014398509481984 KiB"),
    ({"balloon.current": "none"}, "the size of the balloon is 'none' KiB"),
]
QUIET: list[dict[str, Any]] = [
    {"balloon.swap_in": 2**52, "balloon.major_fault": 2**52},
    {"balloon.swap_in": 3, "balloon.major_fault": 3},
    {"balloon.last-update": {"add": 100000}},
    {"balloon.last-update": {"add": -100000}},
    {"balloon.rss": 2**63},
    {"balloon.current": None},
    {"balloon.available": None, "balloon.usable": None, "balloon.unused": None, "balloon.last-update": None},
]
"""Lies that look like a counter that began anew, a clock that was set, or a driver of another age."""


@pytest.mark.long
def test_no_lie_costs_anybody_but_the_liar(
    lab: Lab, liar: LabGuest, honest: LabGuest, tmp_path: Path
) -> None:
    """A guest could take the whole host hostage with one odd number in its report."""
    with PatchedAgent("tests.real.lying_agent", tmp_path, lab.uri, config=TIGHT) as agent:
        agent.ready()
        eventually("both are packed", lambda: packed(liar) and packed(honest))
        for lies, words in [*REPORTED, *((lies, "") for lies in QUIET)]:
            agent.order({liar.uuid: lies})
            if words:
                eventually(f"{words!r} is told", lambda words=words: words in explained(agent, liar))
            honest.control.load_tmpfs(40 * MIB)
            eventually(
                f"the honest one grows, while {lies}",
                lambda: honest.control.progress()[0].state == "done" or check_host(agent, liar, honest),
            )
            for _ in range(2):
                check_host(agent, liar, honest)
                agent.pass_turns(1)
            honest.control.free()
        agent.order({})
        eventually("the former liar is packed again", lambda: packed(liar))

        assert honest.control.oom_kills() == liar.control.oom_kills() == 0
        assert agent.stop() == 0
        assert "Traceback" not in agent.log


@pytest.mark.long
def test_a_guest_that_claims_to_have_given_its_memory_does_not_get_the_host_to_sell_it(
    lab: Lab, liar: LabGuest, honest: LabGuest, tmp_path: Path
) -> None:
    """The balloon's size is the guest's own word: believed, it would drive the host out of memory."""
    lies = BalloonLiar(liar)
    liar.control.load_tmpfs(70 * MIB)
    eventually("its memory is in use", lambda: liar.control.progress()[0].state == "done")
    with AgentProcess(tmp_path, lab.uri, config=TIGHT) as agent:
        agent.ready()
        eventually("the honest one is packed", lambda: packed(honest))
        try:
            for claim_bytes in (60 * MIB, nominal_bytes(liar) - 4 * KIB, nominal_bytes(liar)):
                lies.claim_given(claim_bytes)
                for _ in range(3):
                    agent.pass_turns(1)
                    assert liar.rss_bytes() + honest.rss_bytes() <= HOST_BYTES + SLACK_BYTES
                    assert honest.size()[1] >= FLOOR_BYTES
        finally:
            liar.control.free()
            lies.stop()

        # Its own processes may have paid for its lies.
        assert agent.client.status().last_error is None and honest.control.oom_kills() == 0
        eventually("it is packed when it stops lying", lambda: packed(liar))
        assert agent.stop() == 0
        assert "Traceback" not in agent.log


def test_a_guest_with_an_impossible_balloon_is_named_and_its_neighbour_can_grow(
    lab: Lab, liar: LabGuest, honest: LabGuest, tmp_path: Path
) -> None:
    """One guest that writes nonsense would keep every other VM of its host from growing."""
    lies = BalloonLiar(liar)
    with AgentProcess(tmp_path, lab.uri, config=TIGHT) as agent:
        agent.ready()
        eventually("both are packed", lambda: packed(liar) and packed(honest))

        lies.claim_given(nominal_bytes(liar) + MIB)
        eventually("the lie is told", lambda: "the size of the balloon is" in explained(agent, liar))
        honest.control.load_tmpfs(45 * MIB)
        eventually("the neighbour grows", lambda: honest.control.progress()[0].state == "done")

        assert honest.control.oom_kills() == 0
        lies.stop()
        eventually("it is packed when it stops lying", lambda: packed(liar))
        assert agent.stop() == 0
        assert "Traceback" not in agent.log
