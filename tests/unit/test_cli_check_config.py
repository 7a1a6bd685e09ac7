"""`vmpack check-config`: every mistake at once, and a default file without one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vmpack.cli.main import main


def told(arguments: list[str], capsys: pytest.CaptureFixture[str], code: int = 0) -> str:
    """What the command printed; it must end with this code."""
    assert main(arguments) == code
    return capsys.readouterr().out


def test_check_config_names_every_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One mistake a run would make fixing a file a game."""
    file = tmp_path / "bad.toml"
    file.write_text("[memory]\ninterval_s = -1\nflor_ratio = 0.1\n")

    assert main(["check-config", str(file)]) == 78
    text = capsys.readouterr().err
    assert [line.partition(str(file))[0] for line in text.splitlines()[:-1]] == ["vmpack: "] * 2
    assert "memory.interval_s" in text and "memory.flor_ratio" in text and "memory.floor_ratio" in text
    record = json.loads(told(["check-config", "--json", str(file)], capsys, 78))
    assert len(record["mistakes"]) == 2 and record["keys"] == []


def test_check_config_accepts_its_own_default(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file that install.sh writes must be right."""
    file = tmp_path / "vmpack.toml"
    file.write_text(told(["check-config", "--default"], capsys))

    assert "no mistakes" in told(["check-config", str(file)], capsys)
    assert "memory.interval_s" in told(["check-config", "--explain", str(file)], capsys)
    assert json.loads(told(["check-config", "--json", str(file)], capsys))["keys"]


def test_check_config_takes_the_file_as_the_other_commands_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who checks an agent's `--config FILE` must not be told about another file."""
    file = tmp_path / "vmpack.toml"
    file.write_text("[memory]\ninterval_s = 9\n")

    assert told(["check-config", "--config", str(file)], capsys) == f"no mistakes in {file}\n"
