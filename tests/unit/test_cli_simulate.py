"""`vmpack simulate memory`, as people call it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from vmpack.cli import simulate_memory
from vmpack.cli.main import main

WORDS = "simulate memory --generate bursts --days 2 --vms 2 --draws 1 --step 300 --ramp 0 --jobs 1"
SMALL = WORDS.split()


def test_a_table_and_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The answer to "what would vmpack save on my hosts?", for people and for scripts."""
    path = tmp_path / "rows.json"
    command = [*SMALL, "--policies", "static,oracle", "--overcommit", "1.5,2", "--json", str(path)]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert out.count("static") == out.count("oracle") == 2 and "1.5x" in out and "100.0 %" in out
    assert "2 VMs a draw, of 8 over 2 days; seed 1." in out
    found = json.loads(path.read_text())
    assert [(row["policy"], row["overcommit"]) for row in found] == [
        ("static", 1.5), ("oracle", 1.5), ("static", 2.0), ("oracle", 2.0),
    ]  # fmt: skip
    assert main([*SMALL, "--policies", "static", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["balloon_ratio_median"] == 1.0


def test_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """People believe a picture; a kind that cannot be written is told before hours of simulating."""
    path = tmp_path / "picture.png"
    assert main([*SMALL, "--policies", "oracle", "--plot", str(path)]) == 0
    assert path.read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()
    assert main([*SMALL, "--policies", "oracle", "--plot", "a.docx"]) == 2
    told = capsys.readouterr()
    assert ".png, .svg or .pdf" in told.err and told.out == ""


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--policies", "momm"], "there is no policy 'momm'"),
        (["--generate", "weekly"], "there is no workload 'weekly'"),
        (["--step", "7s"], "--step must divide a day"),
        (["--hot-share", "2"], "--hot-share is a share"),
        (["--json", "/nonexistent/rows.json"], "cannot write"),
    ],
)
def test_mistakes_are_told(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One clear line instead of a traceback."""
    assert main([*SMALL, "--policies", "static", *words]) in (2, 69)
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--json", "--plot"])
@pytest.mark.parametrize("where", ["gone/rows.png", "is-a-directory.png", "no-right.png"])
def test_what_cannot_be_written_is_told_before_the_first_draw(
    option: str,
    where: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Hours of simulating would end without a result."""
    from vmpack.replay.contest import Contest

    (tmp_path / "is-a-directory.png").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setattr(Contest, "play_all", lambda *_: pytest.fail("a draw was simulated"))
    assert main([*SMALL, "--policies", "static", option, str(tmp_path / where)]) in (69, 77)
    assert "cannot write" in capsys.readouterr().err


def test_the_table_is_shown_before_a_file_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A disk that ran full meanwhile would take hours of simulating with it."""
    monkeypatch.setattr(simulate_memory, "check_can_write", lambda path: None)
    assert main([*SMALL, "--policies", "static", "--json", "/nonexistent/rows.json"]) == 69
    told = capsys.readouterr()
    assert "100.0 %" in told.out and "cannot write" in told.err


@pytest.mark.parametrize("part", ["memory", "grant"])
@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--vms 1000000", "--days"),
        ("--days 1000000", "--days"),
        ("--vms 10000 --days 2", "--step"),
    ],
)
def test_more_than_fits_into_memory_is_told(
    part: str, words: str, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A traceback about 68.7 GiB, or a machine that swaps itself to death."""
    monkeypatch.setattr("vmpack.replay.workload.generate", lambda *_: pytest.fail("memory was taken"))
    assert main(["simulate", part, "--generate", "mixed", *words.split()]) == 2
    error = capsys.readouterr().err
    assert "more than can be simulated" in error and told in error


def test_a_missing_trace_is_told_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody wants to create a directory for a trace that is elsewhere."""
    assert main(["simulate", "memory", "--trace", "/nonexistent/vms.csv"]) == 69
    assert "path is right" in capsys.readouterr().err


def test_numbers_that_are_none(capsys: pytest.CaptureFixture[str]) -> None:
    """argparse must say what to write."""
    for words in (["--overcommit", "two"], ["--draws", "0"], ["--seed", "-1"], ["--policies", ","]):
        with pytest.raises(SystemExit) as stopped:
            main([*SMALL, *words])
        assert stopped.value.code == 2
    assert "with commas between, as 2,2.5" in capsys.readouterr().err


def test_what_to_install(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The agent's hosts have no numpy: who simulates there must learn what to install."""
    for module in [name for name in sys.modules if name.startswith(("numpy", "vmpack.replay"))]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "numpy", None)
    assert main(SMALL) == 69
    told = capsys.readouterr().err
    assert "simulations need numpy" in told and "vmpack[replay]" in told
