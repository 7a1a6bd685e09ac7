"""The host's end of the control channel, against guests that misbehave."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vmpack.errors import BadDataError, GuestGoneError, UnavailableError
from vmpack.lab.control import GuestControl, LoadProgress
from vmpack.units import MIB

Answer = Callable[[str], bytes]
Guest = Callable[[Answer], GuestControl]


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    """`guest(answer)` is a channel whose other end sends `answer(token)` to each request."""
    servers: list[socket.socket] = []

    def make(answer: Answer) -> GuestControl:
        server = socket.create_server(str(tmp_path / "ctl"), family=socket.AF_UNIX)
        servers.append(server)

        def serve() -> None:
            channel, _ = server.accept()
            with channel:
                token = channel.recv(4096).decode().split()[0]
                channel.sendall(answer(token))
                channel.recv(1)

        threading.Thread(target=serve, daemon=True).start()
        return GuestControl(tmp_path / "ctl", timeout_s=0.5)

    yield make
    for server in servers:
        server.close()


def test_the_rest_of_an_older_answer_is_skipped(guest: Guest) -> None:
    """A test that was interrupted leaves half an answer behind: the next must not take it for its own."""
    control = guest(lambda token: f"MemFree: 1 kB\n.\n= feed\n7\n.\n= {token}\n3\n.\n".encode())

    assert control.oom_kills() == 3


def test_an_empty_answer_is_an_answer(guest: Guest) -> None:
    """A guest without loads says nothing: that must not look like a guest that hangs."""
    assert guest(lambda token: f"= {token}\n.\n".encode()).progress() == ()


def test_output_with_dots_and_without_a_last_newline_comes_through(guest: Guest) -> None:
    """`lab exec` must show what the guest printed, to the byte."""
    control = guest(lambda token: f"= {token}\n..\n..x\nend\nexit 9\n.\n".encode())
    result = control.run(["true"])

    assert (result.exit_code, result.output) == (9, ".\n.x\nend")


def test_loads_are_read(guest: Guest) -> None:
    """The demo waits for these states."""
    control = guest(lambda token: f"= {token}\nanonymous 2048 1024 growing\ncpu 0 0 running\n.\n".encode())

    assert control.progress() == (
        LoadProgress("anonymous", 2 * MIB, MIB, "growing"),
        LoadProgress("cpu", 0, 0, "running"),
    )


@pytest.mark.parametrize("words", ["-1", "", "3 4", "0x10", "999\n999"])
def test_nonsense_from_a_guest_is_an_error_and_not_a_number(guest: Guest, words: str) -> None:
    """A broken guest must not be counted as one without OOM kills."""
    control = guest(lambda token: f"= {token}\n{words}\n.\n".encode())

    with pytest.raises(BadDataError):
        control.oom_kills()


def test_a_silent_guest_and_a_missing_guest_are_told_apart(guest: Guest, tmp_path: Path) -> None:
    """Out of memory and gone need different help."""
    with pytest.raises(UnavailableError):
        guest(lambda _token: b"= other\n").ping()
    with pytest.raises(GuestGoneError):
        GuestControl(tmp_path / "absent").ping()


def test_an_endless_answer_ends(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest that never stops talking must not fill the host's memory."""
    monkeypatch.setattr("vmpack.lab.control._LONGEST_ANSWER_BYTES", 1000)

    with pytest.raises(BadDataError):
        guest(lambda token: f"= {token}\n".encode() + b"x\n" * 2000).ping()
