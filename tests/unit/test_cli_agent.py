"""The command lines of `vmpack agent` and `memory_coordinator`: what they start, and how they refuse."""

import logging
import os
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vmpack.cli import main, memory_coordinator
from vmpack.cli.log_stream import log_to
from vmpack.config import Config
from vmpack.host import agent as host_agent
from vmpack.lab.state import StateFolder


class Started:
    """Stands for the agent: keeps what it was started with."""

    def __init__(self) -> None:
        self.config: Config | None = None
        self.reload: Callable[[], Config] | None = None
        self.options: dict[str, Any] = {}

    def __call__(self, config: Config, reload: Callable[[], Config] | None, **options: Any) -> int:
        self.config, self.reload, self.options = config, reload, options
        return 0


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    """No agent is started; its configuration is kept."""
    double = Started()
    monkeypatch.setattr(host_agent, "run_agent", double)
    monkeypatch.setattr(logging.getLogger("vmpack"), "propagate", True)
    return double


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A configuration file."""
    path = tmp_path / "vmpack.toml"
    path.write_text('[memory]\ninterval_s = 9\nshares = 7\n[agent]\nconnect_uri = "qemu:///session"\n')
    return path


def test_the_file_counts_where_the_command_line_says_nothing(started: Started, file: Path) -> None:
    """Options are exceptions; without them the administrator's file must be obeyed."""
    assert main.main(["agent", "--config", str(file)]) == 0

    assert started.config is not None
    assert started.config.settings.memory.interval_s == 9
    assert started.config.connect_uri == "qemu:///session"
    assert not started.config.observe_only


def test_options_win_over_the_file_also_after_a_reload(
    started: Started, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A SIGHUP must not quietly end --observe or move the socket."""
    monkeypatch.chdir(tmp_path)
    words = ["agent", "--config", str(file), "--interval", "500ms", "--observe", "--once"]
    assert main.main([*words, "--connect", "test:///default", "--run-dir", "r", "--state-dir", "s"]) == 0
    file.write_text("[memory]\nshares = 8\n")

    assert started.reload is not None and started.config is not None
    again = started.reload()

    assert again.settings.memory.shares == 8
    for config in (started.config, again):
        assert config.settings.memory.interval_s == 0.5 and config.observe_only
        assert config.connect_uri == "test:///default"
        assert (config.run_dir, config.state_dir) == (tmp_path / "r", tmp_path / "s")
    assert started.options["once"]


def test_on_a_lab_the_agent_keeps_to_directories_of_the_lab(
    started: Started, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exercise would leave its freeze and its journal to the real agent of this host."""
    lab = SimpleNamespace(uri="test:///lab", state=StateFolder(tmp_path / "lab"))
    monkeypatch.setattr("vmpack.lab.lab.Lab.attach", lambda: lab)
    words = ["--connect", "lab", "--config", str(file)]

    assert main.main(["agent", *words]) == 0 and started.config is not None
    assert started.config.connect_uri == "test:///lab"
    assert started.config.run_dir == tmp_path / "lab" / "agent" / "run"
    assert started.config.state_dir == tmp_path / "lab" / "agent" / "state"
    assert memory_coordinator.main(["5", *words, "--run-dir", str(tmp_path / "run")]) == 0
    assert started.config.run_dir == tmp_path / "run"


def test_memory_coordinator_is_the_agent_with_an_interval(started: Started, tmp_path: Path) -> None:
    """The seed's command line, as documented: the interval in seconds, the system's libvirt by default."""
    (tmp_path / "empty.toml").write_text("")
    assert memory_coordinator.main(["12", "--config", str(tmp_path / "empty.toml")]) == 0

    assert started.config is not None
    assert started.config.settings.memory.interval_s == 12
    assert started.config.connect_uri == "qemu:///system"
    assert started.options["quiet_line_every"]
    assert started.reload is None


@pytest.mark.parametrize("interval", ["fast", "0", "-1", "9999"])
def test_a_senseless_interval_is_one_clear_error(
    interval: str, started: Started, capsys: pytest.CaptureFixture[str]
) -> None:
    """The seed's users type it by hand; a traceback would help nobody."""
    words = ["--", interval] if interval.startswith("-") else [interval]
    assert memory_coordinator.main(words) == 2

    said = capsys.readouterr().err
    assert interval in said and said.startswith("memory_coordinator: ") and "Traceback" not in said
    assert started.config is None


def test_a_broken_configuration_stops_the_start(
    started: Started, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At the start there is no old configuration to keep: say every mistake, exit 78."""
    path = tmp_path / "bad.toml"
    path.write_text("[memory]\nshares = 0\ncalm = 3\n")

    assert main.main(["agent", "--config", str(path)]) == 78

    said = capsys.readouterr().err
    assert "memory.shares" in said and "did you mean memory.calm_s?" in said
    assert started.config is None


@pytest.mark.parametrize("words", [["agent", "--help"], None])
def test_help_teaches_with_examples(words: list[str] | None, capsys: pytest.CaptureFixture[str]) -> None:
    """A newcomer must find the harmless first step in the help itself."""
    with pytest.raises(SystemExit) as caught:
        memory_coordinator.main(["--help"]) if words is None else main.main(words)

    said = capsys.readouterr().out
    assert caught.value.code == 0
    assert "examples:" in said and "--observe" in said and "gives all" in said


def test_the_journal_gets_levels_and_people_get_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """journalctl -p warning must find what stays packed; a terminal needs no syslog numbers."""
    logger = logging.getLogger("vmpack.test")
    kept = logging.getLogger("vmpack").handlers[:]
    try:
        with (tmp_path / "journal").open("w") as journal:
            found = os.fstat(journal.fileno())
            monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
            log_to(journal, logging.INFO)
            logger.info("one\ntwo")
            logger.warning("three")
            logger.error("four")
            logger.debug("not shown")
        terminal = StringIO()
        log_to(terminal, logging.INFO)
        logger.info("five")
    finally:
        logging.getLogger("vmpack").handlers[:] = kept
        logging.getLogger("vmpack").propagate = True

    assert (tmp_path / "journal").read_text() == "<6>one\n<6>two\n<4>three\n<3>four\n"
    assert terminal.getvalue().endswith(" five\n") and not terminal.getvalue().startswith("<")
