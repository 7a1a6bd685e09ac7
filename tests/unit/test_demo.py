"""The demo's words and folders, without guests."""

from __future__ import annotations

import os
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from vmpack.cli.main import main
from vmpack.demo import __main__ as worker
from vmpack.errors import UsageError
from vmpack.lab import state, supervise
from vmpack.lab.state import StateFolder, temporary_state


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The workers that `vmpack demo` would have started."""
    workers: list[list[str]] = []

    def note(argv: list[str]) -> int:
        workers.append(argv)
        return 0

    monkeypatch.setattr(supervise, "supervise", note)
    return workers


@pytest.mark.parametrize("place", ["none/x.json", ".", "file/x.json"])
def test_a_summary_that_cannot_be_written_is_said_at_once(
    place: str, tmp_path: Path, started: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    """The demo would run for a minute and then throw its result away."""
    (tmp_path / "file").touch()

    assert main(["demo", "--json", str(tmp_path / place)]) == UsageError.exit_code
    assert started == []
    assert f"cannot write {tmp_path / place}" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["there", "new"])
def test_a_summary_without_permission_is_said_at_once(
    name: str, tmp_path: Path, started: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As above, for files and folders of others; root, who may write anywhere, is told as anybody."""
    (tmp_path / "there").touch()
    monkeypatch.setattr(os, "access", lambda _path, wanted: not wanted & os.W_OK)

    assert main(["demo", "--json", str(tmp_path / name)]) == 2
    assert started == []


def test_a_place_that_can_be_written_is_left_as_it_is(tmp_path: Path, started: list[list[str]]) -> None:
    """A demo that fails or is interrupted would have emptied the summary of the one before."""
    old = tmp_path / "old.json"
    old.write_text("old")
    read_end, write_end = os.pipe()
    places = [str(old), str(tmp_path / "new.json"), "-", "/dev/stdout", "/dev/null", f"/dev/fd/{write_end}"]
    for place in places:
        assert main(["demo", "--json", place]) == 0

    assert [argv[-1] for argv in started] == places
    assert [path.name for path in tmp_path.iterdir()] == ["old.json"]
    assert old.read_text() == "old"
    os.close(read_end)
    os.close(write_end)


def test_the_demos_files_go_with_its_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a kill -9 the journal would stay on the machine for ever: only labs are swept up."""
    monkeypatch.setattr(state, "base_folder", lambda: tmp_path / "labs")
    folders: list[Path] = []

    class Stop(Exception):
        """Ends the worker before it boots anything."""

    class FakeLab:
        def __init__(self) -> None:
            self.state: StateFolder = temporary_state()

        def __enter__(self) -> FakeLab:
            folders.append(self.state.root)
            return self

        def __exit__(self, *_: object) -> None: ...

    def story(_lab: Any, _count: int, keep_dir: Path, *_: object) -> None:
        folders.append(keep_dir)
        raise Stop

    monkeypatch.setattr(worker.Lab, "embedded", FakeLab)
    monkeypatch.setattr(worker, "Story", story)
    with pytest.raises(Stop):
        worker._run(Namespace(json=None, keep=None, guests=2))

    root, keep_dir = folders
    assert keep_dir.is_relative_to(root)
