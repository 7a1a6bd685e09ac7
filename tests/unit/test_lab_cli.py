"""The words of `vmpack lab`, without guests."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from vmpack.cli.main import main
from vmpack.lab import image, lab, state
from vmpack.lab.guest_spec import GuestSpec
from vmpack.units import MIB


@dataclass
class RunningLab:
    """A lab with one guest of 256 MiB; `on_wait` is what happens while the guests boot."""

    uri: str = "qemu+unix:///system?socket=/far/away"
    specs: list[GuestSpec] = field(default_factory=lambda: [GuestSpec("g1", 256 * MIB)])
    on_wait: Callable[[], None] = lambda: None

    def guests(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name=spec.name, spec=lambda spec=spec: spec) for spec in self.specs]

    def start(self, *specs: GuestSpec) -> None:
        self.specs += specs

    def wait_ready(self) -> None:
        self.on_wait()


@pytest.fixture
def running_lab(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> RunningLab:
    """What `lab up` finds, instead of a real one; the image is there."""
    running = RunningLab()
    monkeypatch.setattr(lab.Lab, "up", lambda _name: running)
    monkeypatch.setattr(state, "base_folder", lambda: tmp_path / "labs")
    monkeypatch.setattr(image, "is_built", lambda: True)
    return running


def test_up_again_waits_until_the_guests_are_ready(
    running_lab: RunningLab, capsys: pytest.CaptureFixture[str]
) -> None:
    """After a Ctrl-C, "is up already" would be said of guests that still boot."""
    waits: list[str] = []
    running_lab.on_wait = lambda: waits.append("waited")

    assert main(["lab", "up", "--guests", "1"]) == 0
    assert waits == ["waited"]
    said = capsys.readouterr()
    assert "is up already: g1" in said.err
    assert "memory_coordinator 2 --connect lab " in said.out
    assert "download" not in said.err


def test_up_says_which_guests_keep_other_options(
    running_lab: RunningLab, capsys: pytest.CaptureFixture[str]
) -> None:
    """An experiment would run on other guests than its command line says."""
    code = main(["lab", "up", "--guests", "2", "--memory", "128MiB", "--autodeflate"])

    assert code == 3
    assert running_lab.specs[1] == GuestSpec("g2", 128 * MIB, autodeflate=True)
    line = next(line for line in capsys.readouterr().err.splitlines() if "other options" in line)
    assert "g1 " in line
    assert "g2" not in line
    assert "vmpack lab down" in line
    assert main(["lab", "up", "--guests", "1", "--memory", "256MiB"]) == 0


def test_up_says_what_ctrl_c_leaves(running_lab: RunningLab, capsys: pytest.CaptureFixture[str]) -> None:
    """Guests and a daemon would stay on the machine without a word."""
    folder = state.named_state("other")
    folder.prepare()
    lock = folder.take_lock()

    def interrupt() -> None:
        raise KeyboardInterrupt

    running_lab.on_wait = interrupt
    try:
        assert main(["lab", "up", "--name", "other"]) == 130
    finally:
        os.close(lock)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "interrupted" in line]
    assert "lab other stays" in line
    assert "vmpack lab down --name other" in line


def test_up_says_so_before_it_downloads(
    running_lab: RunningLab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first `lab up` would seem to hang."""
    monkeypatch.setattr(image, "is_built", lambda: False)
    monkeypatch.setattr(image, "build_image", lambda: None)

    assert main(["lab", "up", "--guests", "1", "--name", "other"]) == 0
    said = capsys.readouterr()
    assert "download" in said.err
    assert f"--connect '{running_lab.uri}'" in said.out  # `--connect lab` is the default lab


@pytest.mark.parametrize("verb", ["up", "list", "uri", "exec", "load", "down"])
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The help is how people learn the lab."""
    with pytest.raises(SystemExit) as caught:
        main(["lab", verb, "--help"])

    assert caught.value.code == 0
    assert f"vmpack lab {verb}" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["up", "list", "down"])
def test_every_verb_of_a_pair_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The help is how people learn to see a migration."""
    with pytest.raises(SystemExit) as caught:
        main(["lab", "pair", verb, "--help"])

    assert caught.value.code == 0
    assert f"vmpack lab pair {verb}" in capsys.readouterr().out


def test_a_pair_says_that_it_needs_root(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An ordinary user would get an error of the kernel's, and not know what to do."""
    monkeypatch.setattr(image, "is_built", lambda: True)
    monkeypatch.setattr(state, "base_folder", lambda: tmp_path / "labs")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    assert main(["lab", "pair", "up"]) == 77
    lines = capsys.readouterr().err.splitlines()
    assert "needs root" in lines[0]
    assert "vmpack lab up" in lines[1]
    assert not (tmp_path / "labs").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["load", "g1", "--rate", "1MiB/s"], "belong to --memory"),
        (["exec", "g1"], "no command given"),
        (["up", "--memory", "32MiB"], "too little"),
        (["list", "--name", "../x"], "no name for a lab"),
        (["uri", "--name", "never-up"], "is running"),
        (["pair", "list", "--name", "never-up"], "no pair 'never-up' is running"),
        (["load", "--pair", "--name", "never-up", "g1"], "no pair 'never-up' is running"),
        (["pair", "down", "--name", "../x"], "no name for a lab"),
    ],
)
def test_mistakes_get_one_line_and_a_way_out(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong word must cost seconds, not a traceback."""
    code = main(["lab", *arguments])
    lines = capsys.readouterr().err.splitlines()

    assert code in (2, 69)
    assert says in lines[0]
    assert lines[1].startswith("  ")


@pytest.mark.parametrize(
    "arguments", [["up", "--guests", "0"], ["up", "--memory", "much"], ["load", "g1", "--rate", "1/min"]]
)
def test_wrong_amounts_are_refused_before_anything_starts(arguments: list[str]) -> None:
    """`--guests 0` or a typing error must not start a daemon."""
    with pytest.raises(SystemExit) as caught:
        main(["lab", *arguments])

    assert caught.value.code == 2
