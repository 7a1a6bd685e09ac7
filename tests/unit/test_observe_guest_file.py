"""One conversation with a guest agent: its cost, what it asks for after a failure, what it leaves open."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, TypeVar

import libvirt
import pytest
from tests.fake_guest_agents import VMSTAT, Agents, file_read
from tests.fake_libvirt import error
from tests.waiting import PATIENCE_S

from vmpack.errors import BadDataError, GuestBusyError, GuestGoneError, HypervisorError, HypervisorLostError
from vmpack.hypervisor import Hypervisor
from vmpack.observe.guest_file import FileMayBeOpenError, FileRefusedError
from vmpack.observe.guest_kernels import Look, read_kernel

T = TypeVar("T")

PING, OPEN, READ, CLOSE = "guest-ping", "guest-file-open", "guest-file-read", "guest-file-close"
LOOK = [PING, OPEN, READ, CLOSE, OPEN, READ, CLOSE]
"""Commands of one look: its vmstat, and its pressure."""


class HangingAgents(Agents):
    """One command of the first look has no answer until `wake_up`; whoever waits for it gives up at once."""

    def __init__(self, hangs_at: int) -> None:
        super().__init__(a=VMSTAT)
        self._hangs_at = hangs_at
        self._has_hung = False
        self._is_awake = threading.Event()
        self._is_settled = threading.Event()
        self._threads: list[threading.Thread] = []

    def call(self, what: str, function: Callable[[Any], T], **options: Any) -> T:
        results: list[T] = []
        failures: list[Exception] = []

        def work() -> None:
            try:
                results.append(Agents.call(self, what, function, **options))
            except Exception as failure:  # noqa: BLE001 - raised again in the caller's thread
                failures.append(failure)
            self._is_settled.set()

        self._is_settled.clear()
        self._threads.append(threading.Thread(target=work, daemon=True))
        self._threads[-1].start()
        assert self._is_settled.wait(PATIENCE_S)
        if failures:
            raise failures[0]
        if not results:
            raise GuestBusyError("no answer in time")
        return results[0]

    def command(self, uuid: str, request: str, timeout_s: int, flags: int) -> str:
        if len(self.commands) == self._hangs_at and not self._has_hung:
            self._has_hung = True
            self._is_settled.set()
            assert self._is_awake.wait(PATIENCE_S)
        return super().command(uuid, request, timeout_s, flags)

    def wake_up(self) -> None:
        """Give the answer, and wait until nobody asks any more."""
        self._is_awake.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch) -> Callable[[Agents], Look]:
    """Looks at the kernel of the guest "a" of such agents."""

    def look(agents: Any) -> Look:
        monkeypatch.setitem(sys.modules, "libvirt_qemu", SimpleNamespace(qemuAgentCommand=agents.command))
        return read_kernel(agents, "a", with_pressure=True)

    return look


def test_one_look_is_one_call(look) -> None:
    """A thread and a lookup for each command made most of what asking guests costs the host."""
    agents = Agents(a=VMSTAT)

    reading = look(agents).reading

    assert (reading.oom_kills, reading.counts.stalled_some_us) == (3, 7000)
    assert agents.commands == LOOK
    assert (agents.calls, agents.lookups) == (1, 1)


def test_each_command_has_a_deadline_of_its_own(look) -> None:
    """A slow guest that answers everything would be given up in the middle, with a file open."""
    agents = Agents(a=VMSTAT)

    look(agents)

    assert len(set(agents.steps_s)) == len(LOOK)
    assert agents.steps_s == sorted(agents.steps_s)


@pytest.mark.parametrize(
    ("command", "asked"), [(PING, [PING]), (OPEN, [PING, OPEN]), (READ, LOOK[:4]), (CLOSE, LOOK[:4])]
)
def test_after_the_first_failure_nothing_is_asked_but_the_closing(look, command, asked) -> None:
    """A silent guest would take the time of all the others once for every command of a look."""
    agents = Agents(a=VMSTAT)
    agents.refused[command] = error(libvirt.VIR_ERR_AGENT_UNRESPONSIVE)

    with pytest.raises(HypervisorError):
        look(agents)

    assert agents.commands == asked
    assert agents.calls == 1


@pytest.mark.parametrize(
    ("command", "code", "kind"),
    [
        (PING, libvirt.VIR_ERR_AGENT_UNRESPONSIVE, HypervisorError),
        (PING, libvirt.VIR_ERR_OPERATION_TIMEOUT, GuestBusyError),
        (PING, libvirt.VIR_ERR_NO_DOMAIN, GuestGoneError),
        (PING, libvirt.VIR_ERR_RPC, HypervisorLostError),
        (OPEN, libvirt.VIR_ERR_INTERNAL_ERROR, FileRefusedError),
        (OPEN, libvirt.VIR_ERR_AGENT_UNRESPONSIVE, FileMayBeOpenError),
        (OPEN, libvirt.VIR_ERR_NO_DOMAIN, FileMayBeOpenError),
        (OPEN, libvirt.VIR_ERR_RPC, FileMayBeOpenError),
        (READ, libvirt.VIR_ERR_INTERNAL_ERROR, HypervisorError),
        (READ, libvirt.VIR_ERR_OPERATION_TIMEOUT, GuestBusyError),
        (READ, libvirt.VIR_ERR_NO_DOMAIN, GuestGoneError),
        (CLOSE, libvirt.VIR_ERR_INTERNAL_ERROR, FileMayBeOpenError),
        (CLOSE, libvirt.VIR_ERR_NO_DOMAIN, FileMayBeOpenError),
    ],
)
def test_each_command_fails_in_its_own_way(look, command, code, kind) -> None:
    """The next pause is made of this: a guest that is gone would look silent, or one lose its last handle."""
    agents = Agents(a=VMSTAT)
    agents.refused[command] = error(code)

    with pytest.raises(HypervisorError) as caught:
        look(agents)

    assert type(caught.value) is kind


@pytest.mark.parametrize("handle", ["true", "-1", "9223372036854775808", '"7"', "null"])
def test_a_handle_that_no_agent_gives_may_stand_for_an_open_file(look, handle) -> None:
    """A guest could have a file opened in every round that nobody ever closes."""
    agents = Agents(a=VMSTAT)
    good = agents.command

    def command(uuid: str, request: str, timeout_s: int, flags: int) -> str:
        answer = good(uuid, request, timeout_s, flags)
        return f'{{"return":{handle}}}' if OPEN in request else answer

    agents.command = command  # type: ignore[method-assign]
    with pytest.raises(FileMayBeOpenError) as caught:
        look(agents)

    assert isinstance(caught.value.__cause__, BadDataError)


@pytest.mark.parametrize(
    ("hangs_at", "kind"), [(0, GuestBusyError), (1, FileMayBeOpenError), (3, FileMayBeOpenError)]
)
def test_who_gives_up_waiting_knows_whether_a_file_may_be_open(look, hangs_at, kind) -> None:
    """Nobody would count the files that a hanging guest holds for us, nor make its pauses longer."""
    agents = HangingAgents(hangs_at)

    with pytest.raises(HypervisorError) as caught:
        look(agents)
    agents.wake_up()

    assert type(caught.value) is kind
    # The answer came after all: nobody asks for more, and what it opened is closed.
    assert agents.commands == {0: [PING], 1: [PING, OPEN, CLOSE], 3: LOOK[:4]}[hangs_at]
    assert agents.open_files == 0


def test_a_file_whose_reading_hangs_is_closed_by_another_call(look) -> None:
    """It would stay open as long as the reading hangs, or count as open for good."""
    agents = HangingAgents(2)

    with pytest.raises(GuestBusyError):
        look(agents)

    assert agents.open_files == 0
    agents.wake_up()
    assert agents.commands == [PING, OPEN, CLOSE, READ]


@pytest.mark.parametrize(
    ("hangs_at", "kind"), [(4, FileMayBeOpenError), (5, GuestBusyError), (6, FileMayBeOpenError)]
)
def test_what_was_read_stays_when_the_pressure_hangs(look, hangs_at, kind) -> None:
    """A kill would go unseen that the guest had told of a moment before."""
    agents = HangingAgents(hangs_at)

    reading, trouble = look(agents)
    agents.wake_up()

    assert (reading.oom_kills, reading.counts.stalled_some_us) == (3, None)
    assert type(trouble) is kind
    assert agents.open_files == 0


class LosingAgents:
    """Agents of libvirt's test driver; the connection breaks the first time that it gives this command."""

    def __init__(self, breaks_at: str) -> None:
        self._breaks_at = breaks_at
        self.open_files = 0

    def command(self, domain: Any, request: str, _timeout_s: int, _flags: int) -> str:
        name = json.loads(request)["execute"]
        if name == self._breaks_at:
            self._breaks_at = ""
            self.broken = domain.connect()
        if getattr(self, "broken", None) is domain.connect():
            raise error(libvirt.VIR_ERR_RPC)
        self.open_files += {OPEN: 1, CLOSE: -1}.get(name, 0)
        return {OPEN: '{"return":5}', READ: file_read(VMSTAT)}.get(name, '{"return":{}}')


@pytest.mark.parametrize(
    ("command", "kind"),
    [(OPEN, FileMayBeOpenError), (READ, HypervisorLostError), (CLOSE, HypervisorLostError)],
)
def test_a_lost_connection_is_opened_again_and_closes_the_file(monkeypatch, command, kind) -> None:
    """Each restart of libvirtd would leave a file open, and the next guest asked on a dead connection."""
    agents = LosingAgents(command)
    monkeypatch.setitem(sys.modules, "libvirt_qemu", SimpleNamespace(qemuAgentCommand=agents.command))
    hypervisor = Hypervisor("test:///default")
    try:
        first = hypervisor.connection()
        uuid = first.lookupByName("test").UUIDString()

        with pytest.raises(HypervisorError) as caught:
            read_kernel(hypervisor, uuid, with_pressure=True)

        assert type(caught.value) is kind
        assert agents.open_files == 0
        assert hypervisor.connection() is not first
    finally:
        hypervisor.close()
