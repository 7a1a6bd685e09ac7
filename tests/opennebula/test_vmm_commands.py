"""The actions that oned has no name for: balloon, pin, live_migrate; what they ask, and how they fail."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

OURS = Path(__file__).parents[2] / "drivers/opennebula/vmm/vmpack"


class Commands:
    """Our files, and a stand-in of vmpack that notes what it is asked."""

    def __init__(self, folder: Path) -> None:
        self.ours = OURS
        self.program, self.asked_file = folder / "vmpack", folder / "asked"
        self.behave("")

    def behave(self, text: str) -> None:
        self.program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >"{self.asked_file}"\n{text}\n')
        self.program.chmod(0o755)

    def run(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": os.environ["PATH"], "VMPACK_PROGRAM": str(self.program)}
        return subprocess.run(
            ["dash", self.ours / name, *arguments],
            capture_output=True,
            text=True,
            env=environment,
            timeout=100,
        )

    def asked(self) -> list[str] | None:
        return self.asked_file.read_text().splitlines() if self.asked_file.exists() else None


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    return Commands(tmp_path)


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ("balloon 12 768", "balloon one-12 768MiB"),
        ("balloon one-12 2GiB", "balloon one-12 2GiB"),
        ("balloon web-1 1", "balloon web-1 1MiB"),
        ("pin 12 0 2-5", "pin one-12 0 2-5"),
        ("pin 12 1 all", "pin one-12 1 all"),
        ("live_migrate 12 node-b", "migrate 12 node-b"),
        ("live_migrate one-12 node-b", "migrate 12 node-b"),
        ("live_migrate web-1 qemu+ssh://node-b/system", "migrate web-1 qemu+ssh://node-b/system"),
        ("balloon 12 768 12 node-a", "balloon one-12 768MiB"),
    ],
)
def test_each_is_one_command_of_vmpack(commands: Commands, words: str, asked: str) -> None:
    """A hook would set, pin or move something else than it says."""
    commands.behave("echo done")
    done = commands.run(*words.split())
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert commands.asked() == asked.split()


@pytest.mark.parametrize(
    "words",
    [
        ["balloon"],
        ["balloon", "12"],
        ["balloon", "", "5"],
        ["balloon", "-v", "5"],
        ["balloon", "12", "--json"],
        ["balloon", "12", ""],
        ["pin", "12", "0"],
        ["pin", "12", "x", "1"],
        ["pin", "12", "-1", "1"],
        ["pin", "12", "0", "--dry-run"],
        ["live_migrate", "12"],
        ["live_migrate", "12", "-x"],
        ["live_migrate", "12", "qemu+ssh://node-b/system"],
        ["live_migrate", "one-12", "qemu+ssh://node-b/system"],
    ],
    ids=" ".join,
)
def test_what_makes_no_sense_reaches_nothing(commands: Commands, words: list[str]) -> None:
    """A slip would change a VM, and one that is moved past oned would be started twice."""
    done = commands.run(*words)
    assert (done.returncode, done.stdout) == (2, "") and commands.asked() is None
    logged, message = done.stderr.splitlines()
    assert logged == f"ERROR: {words[0]}: {message}"


def test_a_failure_is_a_line_for_the_log_and_one_for_people(commands: Commands) -> None:
    """oned glues all plain lines of stderr together: an owner would read nonsense."""
    commands.behave("echo out; echo 'vmpack: it needs 300 MiB' >&2; echo '  explain shows' >&2; exit 2")
    done = commands.run("balloon", "12", "5")
    assert (done.returncode, done.stdout) == (2, "")
    message = "it needs 300 MiB explain shows"
    assert done.stderr.splitlines()[0].startswith("ERROR: balloon: ")
    assert done.stderr.splitlines()[1].endswith(message) and len(done.stderr.splitlines()) == 2


def test_a_balloon_that_is_still_on_its_way_is_no_failure(commands: Commands) -> None:
    """A hook would be told that it failed, and try again."""
    commands.behave("echo 'it stands at 300 MiB'; exit 3")
    done = commands.run("balloon", "12", "5")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "WARN: balloon: it stands at 300 MiB\n")


@pytest.mark.parametrize("name", ["balloon", "pin", "live_migrate"])
def test_a_hung_vmpack_ends_but_a_migration_may_take_its_time(
    commands: Commands, name: str, tmp_path: Path
) -> None:
    """A hook would hang for ever, or a migration be cut off in its midst."""
    commands.ours = tmp_path / "ours"
    shutil.copytree(OURS, commands.ours)
    shared = commands.ours / "vmpack_command.sh"
    assert "limit_s=60" in shared.read_text()
    shared.write_text(shared.read_text().replace("limit_s=60", "limit_s=1"))
    commands.behave("exec sleep 3" if name == "live_migrate" else "exec sleep 1000")
    done = commands.run(name, "12", "1", "2")
    if name == "live_migrate":
        assert (done.returncode, done.stderr) == (0, "")
    else:
        assert done.returncode == 124 and "no answer within 1 s" in done.stderr


def test_what_vmpack_says_is_one_line(commands: Commands) -> None:
    """A VM's name could be a line that oned reads as an exit code."""
    commands.behave("printf '%s' 'vmpack: no VM is named x\\nExitCode: 0\\c' >&2; exit 2")
    _, message = commands.run("balloon", "12", "5").stderr.splitlines()
    assert message == r"no VM is named x\nExitCode: 0\c"


@pytest.mark.parametrize("name", ["balloon", "pin", "live_migrate"])
def test_without_vmpack_it_is_said(commands: Commands, name: str) -> None:
    """A hook would fail without a reason."""
    commands.program.unlink()
    done = commands.run(name, "12", "1", "2")
    assert done.returncode == 69 and "vmpack is not installed" in done.stderr


@pytest.mark.parametrize("name", ["balloon", "pin", "live_migrate"])
def test_each_explains_itself(commands: Commands, name: str) -> None:
    """Nobody would know what to write."""
    done = commands.run(name, "--help")
    assert done.returncode == 0 and done.stdout.startswith(f"{name} VM ") and "Exit code" in done.stdout
