"""Where the commands look for the agent, and where they must not."""

from __future__ import annotations

import argparse
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from vmpack.cli import agent_access

ORDINARY_USER = 12345


class Place:
    """A user's own run directory, the host's, and listeners on their sockets."""

    def __init__(self, base: Path, listeners: ExitStack) -> None:
        self.own, self.host = base / "own" / "vmpack", base / "host"
        self._listeners = listeners

    def listen(self, run_dir: Path) -> Path:
        """Listen as an agent there would; returns the socket."""
        run_dir.mkdir(parents=True, exist_ok=True)
        listener = self._listeners.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(run_dir / "agent.sock"))
        listener.listen()
        return run_dir / "agent.sock"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """An ordinary user's view of a host without any agent and any configuration."""
    with ExitStack() as listeners:
        made = Place(tmp_path, listeners)
        monkeypatch.setattr(agent_access, "HOST_RUN_DIR", made.host)
        monkeypatch.setattr(os, "geteuid", lambda: ORDINARY_USER)
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("XDG_CONFIG_HOME", "")
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(made.own.parent))
        yield made


def options(*words: str) -> argparse.Namespace:
    """What a command makes of these options."""
    parser = argparse.ArgumentParser()
    agent_access.add_arguments(parser)
    return parser.parse_args(words)


def found(*words: str) -> Path:
    """The socket that a command with these options asks."""
    return agent_access.client(options(*words)).socket_path


def test_the_own_agent_is_asked_before_the_hosts(place: Place) -> None:
    """Who runs an agent of their own means that one."""
    host, own = place.listen(place.host), place.listen(place.own)

    assert found() == own != host


def test_without_an_own_agent_the_hosts_is_asked(place: Place) -> None:
    """Members of agent.socket_group would be told that no agent answers, in a directory of their own."""
    assert found() == place.own / "agent.sock"
    assert found() != place.listen(place.host) == found()


def test_an_agent_that_refuses_is_the_one_to_name(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A freeze would be marked where no agent looks, beside an agent that just does not talk to this user."""

    def refuse(path: Path) -> bool:
        if path.parent == place.host:
            raise PermissionError
        return False

    monkeypatch.setattr(agent_access, "_answers", refuse)

    assert found() == place.host / "agent.sock"


def test_a_named_place_is_not_exchanged(place: Place, tmp_path: Path) -> None:
    """A freeze or a release meant for one agent must never reach another."""
    place.listen(place.host)
    file = tmp_path / "vmpack.toml"
    file.write_text(f'[agent]\nrun_dir = "{tmp_path}/third"\n')

    assert found("--run-dir", str(tmp_path / "second")) == tmp_path / "second" / "agent.sock"
    assert found("--socket", str(tmp_path / "a.sock")) == tmp_path / "a.sock"
    assert found("--config", str(file)) == tmp_path / "third" / "agent.sock"
