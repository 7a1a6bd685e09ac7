"""The client alone: agents that are not there, stop in the middle, or are of another version."""

import socket
import threading
from pathlib import Path

import pytest

from vmpack.errors import AgentBusyError, BadDataError, UnavailableError
from vmpack.host import client as client_module
from vmpack.host.client import AgentClient


def test_an_agent_that_does_not_answer_in_time_is_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopped or overloaded agent still has the host: "start one" would be the wrong advice."""
    monkeypatch.setattr(client_module, "READ_TIME_S", 0.05)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "agent.sock"))
        listening.listen()

        with pytest.raises(AgentBusyError, match="no answer within") as caught:
            AgentClient(tmp_path / "agent.sock").status()

    assert caught.value.exit_code == 75


def test_no_agent_is_one_clear_error(tmp_path: Path) -> None:
    """`vmpack status` without an agent must say how to start one; scripts see exit code 69."""
    with pytest.raises(UnavailableError) as caught:
        AgentClient(tmp_path / "agent.sock").status()

    assert str(tmp_path) in caught.value.message and "vmpack agent" in caught.value.hint
    assert caught.value.exit_code == 69


def test_an_agent_that_hangs_up_is_one_clear_error(tmp_path: Path) -> None:
    """A crash in the middle of an answer must not show a traceback."""
    path = tmp_path / "agent.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        hang_up = threading.Thread(target=lambda: listening.accept()[0].close())
        hang_up.start()

        with pytest.raises(UnavailableError, match="broke off"):
            AgentClient(path).status()
        hang_up.join()


def test_another_versions_answer_is_said(tmp_path: Path) -> None:
    """After an upgrade the old agent still runs: the command must say so instead of guessing."""
    path = tmp_path / "agent.sock"
    body = b'{"version":"0.0.1"}'
    text = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body)

    def answer() -> None:
        channel = listening.accept()[0]
        with channel:
            asked = b""
            while not asked.endswith(b"{}"):
                asked += channel.recv(65536)
            channel.sendall(text)

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        thread = threading.Thread(target=answer)
        thread.start()

        with pytest.raises(BadDataError) as caught:
            AgentClient(path).status()
        thread.join()

    assert "restart" in caught.value.hint
