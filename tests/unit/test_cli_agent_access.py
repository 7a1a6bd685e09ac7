"""Where the commands look for the agent, and where they must not."""

from __future__ import annotations

import argparse
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vmpack.cli import agent_access
from vmpack.host.server import PATH_MAX_BYTES
from vmpack.lab.state import _LONGEST_BASE_BYTES, StateFolder

ORDINARY_USER = os.getuid() or 12345


class Place:
    """A user's own run directory, the host's, and listeners on their sockets."""

    def __init__(self, base: Path, listeners: ExitStack) -> None:
        self.own, self.host, self.labs = base / "own" / "vmpack", base / "host", base / "labs"
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
        made.labs.mkdir()
        os.chown(made.labs, ORDINARY_USER, -1)
        monkeypatch.setattr(agent_access, "HOST_RUN_DIR", made.host)
        monkeypatch.setattr("vmpack.lab.state.base_folder", lambda: made.labs)
        monkeypatch.setattr(os, "geteuid", lambda: ORDINARY_USER)
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("XDG_CONFIG_HOME", "")
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(made.own.parent))
        yield made


def options(*words: str, whole_host: bool) -> argparse.Namespace:
    """What a command makes of these options."""
    parser = argparse.ArgumentParser()
    agent_access.add_arguments(parser, whole_host=whole_host)
    return parser.parse_args(words)


def found(*words: str, whole_host: bool = False) -> Path:
    """The socket that a command with these options asks."""
    return agent_access.client(options(*words, whole_host=whole_host)).socket_path


def test_the_own_agent_is_asked_before_the_hosts(place: Place) -> None:
    """Who runs an agent of their own means that one."""
    host, own = place.listen(place.host), place.listen(place.own)

    assert found() == own != host


def test_without_an_own_agent_the_hosts_is_asked(place: Place) -> None:
    """Members of agent.socket_group would be told that no agent answers, in a directory of their own."""
    assert found() == place.own / "agent.sock"
    assert found() != place.listen(place.host) == found()


def test_a_hosts_agent_that_is_stopped_is_the_one_to_name(place: Place) -> None:
    """A front-end asks nodes as oneadmin: it would name a directory where no agent ever was."""
    place.host.mkdir()
    assert found(whole_host=True) == place.host / "agent.sock"
    place.own.mkdir(parents=True)
    assert found(whole_host=True) == place.own / "agent.sock"


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


def test_a_labs_agent_is_found_and_named(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """A newcomer's first `vmpack status` is about the lab; it must work, and must not pass for the host's."""
    on_lab = place.listen(place.labs / "default" / "agent" / "run")

    assert found() == on_lab
    assert "--connect lab" in capsys.readouterr().err
    place.listen(place.host)
    assert found() != on_lab
    assert capsys.readouterr().err == ""


def test_a_command_for_the_whole_host_never_turns_to_a_lab(place: Place) -> None:
    """With the host's agent dead, a freeze or release of an exercise would look like one of the host."""
    place.listen(place.labs / "default" / "agent" / "run")

    assert found(whole_host=True) == place.own / "agent.sock"


def test_a_lab_that_somebody_else_made_is_not_believed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """/tmp is open to everybody: a stranger's agent could tell this user anything."""
    place.listen(place.labs / "default" / "agent" / "run")
    monkeypatch.setattr(os, "geteuid", lambda: ORDINARY_USER + 1)

    assert found() == place.own / "agent.sock"


def test_connect_lab_names_the_labs_own_directories(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A freeze in an exercise would freeze the real agent that is installed later."""
    monkeypatch.setattr("vmpack.lab.lab.Lab.attach", lambda: running_lab(place.labs / "default"))
    place.listen(place.own)

    config = agent_access.configuration(options("--connect", "lab", whole_host=True))
    folder = place.labs / "default" / "agent"
    assert (config.connect_uri, config.run_dir) == ("test:///lab", folder / "run")
    assert config.state_dir == folder / "state"
    assert found("--connect", "lab") == folder / "run" / "agent.sock"


def test_a_labs_socket_fits_into_a_sockets_path() -> None:
    """An agent on a lab with a long name would not start."""
    longest = Path("/" + "b" * (_LONGEST_BASE_BYTES - 1)) / ("n" * 12)
    run_dir = agent_access.lab_directories(StateFolder(longest))[0]

    assert len(str(run_dir / "agent.sock")) <= PATH_MAX_BYTES


def running_lab(root: Path) -> Any:
    """What Lab.attach() finds."""
    return SimpleNamespace(uri="test:///lab", state=StateFolder(root))
