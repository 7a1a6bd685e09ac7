"""What guests' kernels count: whom to ask, what to believe, and that nobody ever waits for a guest agent."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import libvirt
import pytest
from tests.fake_guest_agents import VMSTAT, Agents
from tests.fake_libvirt import error
from tests.waiting import eventually

from vmpack.errors import BadDataError, GuestBusyError, GuestGoneError, HypervisorError
from vmpack.observe import guest_kernels
from vmpack.observe.guest_kernels import (
    GuestKernels,
    Rota,
    pause_s,
    read_kernel,
)

NO_TEXT = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")


def told_kills(kernels: GuestKernels, uuids: list[str]) -> dict[str, int | None]:
    """What is known of OOM kills, by uuid."""
    return {uuid: reading.oom_kills for uuid, reading in kernels.told(uuids).items()}


class Asking:
    """GuestKernels over fake agents, asked as quickly as it goes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self._made: list[GuestKernels] = []

    def __call__(self, agents: Agents) -> GuestKernels:
        self._made.append(GuestKernels(self.hypervisor(agents), pace_s=0.001))
        return self._made[-1]

    def hypervisor(self, agents: Agents) -> Any:
        """The agents as a Hypervisor."""
        module = SimpleNamespace(qemuAgentCommand=agents.command)
        self._monkeypatch.setitem(sys.modules, "libvirt_qemu", module)
        return agents

    def pauses(self) -> list[int]:
        """From now on nobody is left in peace; the list gets what each pause would have been made of."""
        seen: list[int] = []
        self._monkeypatch.setattr(guest_kernels, "pause_s", lambda times, _first_s: seen.append(times) or 0.0)
        self._monkeypatch.setattr(guest_kernels, "FRESH_S", 0.0)
        return seen

    def close(self) -> None:
        for made in self._made:
            made.close()
        eventually("the threads end", lambda: "guest agents" not in [t.name for t in threading.enumerate()])


@pytest.fixture
def asking(monkeypatch: pytest.MonkeyPatch) -> Iterator[Asking]:
    made = Asking(monkeypatch)
    yield made
    made.close()


def test_counts_come_in_while_nobody_waits(asking: Asking) -> None:
    """A kill in a guest is need that its figures no longer show: it must reach the decision, some time."""
    agents = Agents(a=VMSTAT, b=b"oom_kill 0\n")
    kernels = asking(agents)

    assert told_kills(kernels, ["a", "b"]) == {}
    eventually("both are known", lambda: told_kills(kernels, ["a", "b"]) == {"a": 3, "b": 0})
    assert agents.open_files == 0


def test_an_agent_that_hangs_costs_no_interval_and_one_thread(asking: Asking) -> None:
    """Every VM on the host would wait for one guest that does not answer."""
    agents = Agents(a=VMSTAT, b=VMSTAT)
    agents.go_on.clear()
    kernels = asking(agents)
    told_kills(kernels, ["a", "b"])
    eventually("one is asked", lambda: agents.asked)

    for _ in range(100):
        assert told_kills(kernels, ["a", "b"]) == {}
    assert agents.asked == ["a"]
    assert [thread.name for thread in threading.enumerate()].count("guest agents") == 1

    agents.go_on.set()
    eventually("both are known", lambda: len(told_kills(kernels, ["a", "b"])) == 2)


@pytest.mark.parametrize(
    "answer",
    [
        b"nr_free_pages 1\n",
        HypervisorError("no agent"),
        GuestBusyError("late"),
        GuestGoneError("x"),
        NO_TEXT,
        SystemError("returned a result with an exception set"),
        ZeroDivisionError("a defect"),
    ],
)
def test_a_guest_that_does_not_tell_is_absent_and_left_in_peace(asking: Asking, answer) -> None:
    """0 would say that all is well; asking again and again would hold the thread for all the others."""
    agents = Agents(silent=answer, good=VMSTAT)
    kernels = asking(agents)

    told_kills(kernels, ["silent", "good"])
    eventually("the other is known", lambda: told_kills(kernels, ["silent", "good"]) == {"good": 3})

    assert agents.asked == ["silent", "good"]


def test_a_vm_that_is_gone_is_forgotten(asking: Asking) -> None:
    """A VM that comes back would show the kills of its former life."""
    kernels = asking(Agents(a=VMSTAT))
    told_kills(kernels, ["a"])
    eventually("it is known", lambda: told_kills(kernels, ["a"]))

    told_kills(kernels, [])

    assert told_kills(kernels, ["a"]) == {}


def test_after_close_nobody_is_asked(asking: Asking) -> None:
    """An agent that has given its memory back would go on bothering guests."""
    agents = Agents(a=VMSTAT, b=VMSTAT)
    kernels = asking(agents)
    agents.go_on.clear()
    told_kills(kernels, ["a"])
    eventually("one is asked", lambda: agents.asked)

    kernels.close()
    agents.go_on.set()

    eventually("the thread ends", lambda: "guest agents" not in [t.name for t in threading.enumerate()])
    told_kills(kernels, ["b"])
    assert agents.asked == ["a"]
    assert agents.closed.is_set()


def test_the_count_of_a_vm_that_falls_silent_is_absent(asking: Asking) -> None:
    """The last count would be served for ever, as if nobody were killed any more."""
    asking.pauses()
    agents = Agents(a=VMSTAT)
    kernels = asking(agents)
    eventually("it is known", lambda: told_kills(kernels, ["a"]) == {"a": 3})

    agents.refused["guest-ping"] = HypervisorError("silent")
    eventually("it is absent", lambda: told_kills(kernels, ["a"]) == {})
    del agents.refused["guest-ping"]

    eventually("it is known again", lambda: told_kills(kernels, ["a"]) == {"a": 3})


def test_pauses_grow_while_a_vm_is_silent(asking: Asking) -> None:
    """Sixty silent guest agents, each for seconds, would leave no time for those who can tell of a kill."""
    pauses = asking.pauses()
    agents = Agents(a=HypervisorError("silent"))
    kernels = asking(agents)
    told_kills(kernels, ["a"])
    eventually("three times silent", lambda: len(pauses) >= 3)
    agents.answers["a"] = VMSTAT
    eventually("it answers", lambda: told_kills(kernels, ["a"]))

    in_a_row = len(pauses)
    agents.answers["a"] = b"does not count\n"
    eventually("silent again", lambda: len(pauses) > in_a_row)

    assert pauses[: in_a_row + 1] == [*range(1, in_a_row + 1), 1]
    assert [pause_s(times, 60.0) for times in (1, 2, 3, 4, 5, 6, 10**9)] == [60, 120, 240, 480, 900, 900, 900]


@pytest.mark.parametrize("command", ["guest-file-open", "guest-file-close"])
def test_pauses_stay_long_where_files_may_be_left_open(asking: Asking, command: str) -> None:
    """Files opened in a slow guest, one every minute for days, would take its guest agent's last handle."""
    pauses = asking.pauses()
    agents = Agents(a=VMSTAT)
    kernels = asking(agents)
    for _ in range(3):
        before = len(pauses)
        agents.refused[command] = HypervisorError("late")
        eventually(
            "it is too slow", lambda before=before: told_kills(kernels, ["a"]) == {} and len(pauses) > before
        )
        agents.refused.clear()
        eventually("it answers", lambda: told_kills(kernels, ["a"]))

    assert pauses == list(range(1, len(pauses) + 1))


def test_nothing_is_opened_in_a_guest_that_gives_no_sign(asking: Asking) -> None:
    """A guest agent that wakes up later would open the file for nobody."""
    agents = Agents(a=VMSTAT)
    agents.refused["guest-ping"] = HypervisorError("silent")

    with pytest.raises(HypervisorError):
        read_kernel(asking.hypervisor(agents), "a", with_pressure=True)

    assert agents.open_files == 0


@pytest.mark.parametrize("trouble", [NO_TEXT, SystemError("returned a result with an exception set")])
def test_bytes_that_are_no_text_are_nonsense_like_any_other(asking: Asking, trouble: Exception) -> None:
    """libvirt-python fails on them with an error of its own: one guest's lie would be called a defect."""
    with pytest.raises(BadDataError):
        read_kernel(asking.hypervisor(Agents(a=trouble)), "a", with_pressure=True)


def test_a_defect_is_told_once_and_the_vm_is_asked_again(asking: Asking, caplog) -> None:
    """The thread would die unheard, and old counts would be served for all VMs for ever."""
    asking.pauses()
    agents = Agents(odd=ZeroDivisionError("a defect"), good=VMSTAT)
    kernels = asking(agents)

    with caplog.at_level(logging.DEBUG, guest_kernels.__name__):
        told_kills(kernels, ["odd", "good"])
        eventually("it is asked again", lambda: agents.asked.count("odd") >= 3)
        agents.answers["odd"] = VMSTAT
        eventually("both are known", lambda: told_kills(kernels, ["odd", "good"]) == {"odd": 3, "good": 3})

    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [("odd" in record.getMessage()) for record in warnings] == [True]
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ZeroDivisionError]


def test_a_missing_module_is_said_once(monkeypatch, caplog) -> None:
    """Distributions pack libvirt_qemu apart: the agent must work without it, and say what it does not see."""
    monkeypatch.setitem(sys.modules, "libvirt_qemu", None)
    hypervisor: Any = Agents()
    kernels = GuestKernels(hypervisor)

    with caplog.at_level(logging.DEBUG):
        assert [told_kills(kernels, ["a"]) for _ in range(3)] == [{}, {}, {}]

    assert len(caplog.records) == 1


def test_pressure_comes_with_the_counts(asking: Asking) -> None:
    """The one figure that says what want of memory costs the guest would never arrive."""
    agents = Agents(a=VMSTAT)
    kernels = asking(agents)
    kernels.told(["a"])
    eventually("it is known", lambda: kernels.told(["a"]))

    counts = kernels.told(["a"])["a"].counts
    assert (counts.stalled_some_us, counts.stalled_full_us) == (7000, 50)
    assert agents.open_files == 0


@pytest.mark.parametrize("trouble", ["no such file", "late", "nonsense", "a defect"])
def test_a_guest_without_pressure_still_tells_the_rest(asking: Asking, trouble: str) -> None:
    """A guest whose kernel has no PSI would lose its count of kills, and be asked in vain in every round."""
    asking.pauses()
    agents = Agents(a=VMSTAT)
    agents.pressure = {
        "no such file": error(libvirt.VIR_ERR_INTERNAL_ERROR),
        "late": error(libvirt.VIR_ERR_AGENT_UNRESPONSIVE),
        "nonsense": b"some total=9999999999999999999\n",
        "a defect": ZeroDivisionError("a defect"),
    }[trouble]
    kernels = asking(agents)
    kernels.told(["a"])
    eventually("it is asked again", lambda: agents.asked.count("a") >= 3)

    reading = kernels.told(["a"])["a"]
    assert (reading.oom_kills, reading.counts.stalled_some_us) == (3, None)
    assert agents.open_files == 0
    # Only an answer that never came may have left a file open.
    assert bool(kernels._pasts["a"].open_files) == (trouble == "late")
    assert kernels._pasts["a"].defect_is_told == (trouble == "a defect")


def test_each_vm_has_its_turn_the_urgent_first():
    """With fifty VMs the starving one would be asked last, or the others never."""
    rota = Rota()
    rota.plan(["urgent", "b", "c"], 0.0)
    turns = []
    for second in range(9):
        uuid = rota.next(float(second))
        if uuid is not None:
            rota.asked(uuid, second + 3.0)
            turns.append(uuid)

    assert turns == ["urgent", "b", "c"] * 3


def test_a_vm_that_becomes_urgent_is_asked_before_those_that_waited_a_little_longer():
    """The guest that starves now would wait for a round of all the others."""
    rota = Rota()
    rota.plan(list("abcdef"), 0.0)
    for second, uuid in enumerate("abcdef"):
        rota.asked(uuid, float(second))

    rota.plan(list("fabcde"), 10.0)

    assert rota.next(10.0) == "a"
    rota.asked("a", 20.0)
    assert rota.next(10.0) == "b"
    rota.plan(list("fedcba"), 10.0)
    assert rota.next(10.0) == "f"


def test_nobody_waits_for_ever_behind_those_who_are_always_due():
    """A new VM on a host with many others would never be asked."""
    rota = Rota()
    others = [str(number) for number in range(20)]
    asked = set()
    for second in range(60):
        rota.plan(others if second < 10 else [*others, "new"], float(second))
        uuid = rota.next(float(second))
        assert uuid is not None
        rota.asked(uuid, second + 1.0)
        asked.add(uuid)

    assert asked == {*others, "new"}
