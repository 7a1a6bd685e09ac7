"""`vmpack simulate vcpu`, as people call it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from vmpack.cli.main import main
from vmpack.replay.vcpu_contest import VcpuContest

WORDS = "simulate vcpu --scenes published --jobs 1"
RANDOM_WORDS = "simulate vcpu --scenes random --draws 3 --policies all --json - --seed"
NOISE_WORDS = "simulate vcpu --scenes noise --policies lpt --interval 60s --hours 2 --json -"
PUBLISHED = WORDS.split()
COLUMNS = [
    *("scene", "policy", "std_points", "optimal_std_points", "intervals_to_balance", "pin_changes"),
    *("optimum", "late_changes", "delay_p99", "pins_per_hour"),
]


def test_a_table_and_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The answer to "would it spread my vCPUs, and then hold still?", for people and for scripts."""
    path = tmp_path / "rows.json"
    assert main([*PUBLISHED, "--policies", "kernel,optimal", "--json", str(path)]) == 0
    out = capsys.readouterr().out
    assert out.count("kernel") == out.count("optimal") == 5 and "published-5" in out
    assert "5 scenes; seed 1; target 5 points." in out
    rows = json.loads(path.read_text())
    assert all(list(row) == COLUMNS for row in rows) and len(rows) == 10
    assert rows[0] == {
        "scene": "published-1",
        "policy": "kernel",
        "std_points": pytest.approx(346.41, abs=0.01),
        "optimal_std_points": 0.0,
        "intervals_to_balance": None,
        "pin_changes": 0,
        "optimum": 6,
        "late_changes": 0,
        "delay_p99": 0.875,
        "pins_per_hour": 0.0,
    }
    assert (rows[1]["std_points"], rows[1]["intervals_to_balance"], rows[1]["pin_changes"]) == (0.0, 0, 6)


def test_same_seed_same_rows(capsys: pytest.CaptureFixture[str]) -> None:
    """A figure that somebody reports must come out again, however many processes work."""
    answers = []
    for more in (["7", "--jobs", "1"], ["7", "--jobs", "2"], ["8", "--jobs", "1"]):
        assert main([*RANDOM_WORDS.split(), *more]) == 0
        answers.append(json.loads(capsys.readouterr().out))
    assert answers[0] == answers[1] != answers[2]
    assert {row["policy"] for row in answers[0]} == {"vmpack", "kernel", "lpt", "numad-like", "optimal"}


def test_hours_and_intervals_are_those_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    """An hour every 60 s are 60 looks: who asks for two must get two."""
    assert main(NOISE_WORDS.split()) == 0
    noise, starts, stops = json.loads(capsys.readouterr().out)
    assert (noise["scene"], starts["scene"], stops["scene"]) == ("noise", "vm-starts", "vm-stops")
    changes = noise["pins_per_hour"] * 2
    assert changes == pytest.approx(round(changes)) and noise["pin_changes"] <= changes


def test_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """People believe a picture; a kind that cannot be written is told before anything is simulated."""
    path = tmp_path / "picture.png"
    assert main([*PUBLISHED, "--policies", "kernel", "--plot", str(path)]) == 0
    assert path.read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()
    assert main([*PUBLISHED, "--plot", "a.docx"]) == 2
    told = capsys.readouterr()
    assert ".png, .svg or .pdf" in told.err and told.out == ""


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--policies", "lptt"], "there is no policy 'lptt'"),
        (["--interval", "500ms"], "--interval must be from 1s"),
        (["--json", "/nonexistent/rows.json"], "cannot write"),
        (["--plot", "/nonexistent/picture.png"], "cannot write"),
    ],
)
def test_mistakes_are_told_before_the_first_scene(
    words: list[str], told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One clear line instead of a traceback, and not after all has been simulated."""
    monkeypatch.setattr(VcpuContest, "rows", lambda *_: pytest.fail("a scene was simulated"))
    assert main([*PUBLISHED, *words]) in (2, 69)
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [["--target", "0"], ["--target", "five"], ["--scenes", "some"], ["--draws", "0"], ["--hours", "0"]],
)
def test_numbers_that_are_none(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """argparse must say what to write."""
    with pytest.raises(SystemExit) as stopped:
        main([*PUBLISHED, *words])
    assert stopped.value.code == 2
    assert words[0] in capsys.readouterr().err


def test_no_numpy_is_needed() -> None:
    """The agent's hosts have none: there, too, it can be tried."""
    without = (
        "import sys; sys.modules.update(numpy=None, matplotlib=None); from vmpack.cli.main import main; "
    )
    code = f"{without}sys.exit(main({[*PUBLISHED, '--policies', 'vmpack']!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "published-1" in done.stdout
