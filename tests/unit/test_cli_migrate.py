"""`vmpack migrate` over two hosts in memory: what is asked, what is told, which exit code."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
from tests.cli_samples import EVIL_NAME
from tests.fake_hosts import BARE_XML, NOMINAL, UUID, World

from vmpack import hypervisor
from vmpack.act import migration
from vmpack.cli import migrate
from vmpack.cli.main import main
from vmpack.cli.migrate_progress import PlainView, progress_line
from vmpack.model.migration import Migrate, MigrationOutcome, MigrationProgress
from vmpack.units import MIB

ACTION = Migrate(UUID, "web", "there", NOMINAL, timeout_s=600.0)
HALFWAY = MigrationProgress(3.2, 160 * MIB, 40 * MIB, 90 * MIB, 2 * MIB, 3, 0.2)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """Two hosts, where the command looks for libvirt."""
    made = World()
    real = migration.Migrator
    monkeypatch.setattr(hypervisor, "Hypervisor", made.connect)
    monkeypatch.setattr(migration, "Migrator", lambda uri, clock: real(uri, clock, connect=made.connect))
    monkeypatch.setattr(migration, "POLL_S", 0.01)
    monkeypatch.setattr(migration, "SETTLE_S", 0.05)
    return made


def run(*words: str, to: str = "there") -> int:
    return main(["migrate", *words, to, "--connect", "here"])


def test_a_move_is_told_with_its_figures(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the VM is now is the one thing that must not be left to guess."""
    assert run("web") == 0

    told = capsys.readouterr().out
    assert told.startswith("web is at there now: took ")
    assert "moved 80 MiB, stood still for 77 ms, has 112 MiB of 160 MiB" in told


def test_options_become_the_action(world: World) -> None:
    """An option that is dropped takes the network from everybody, or the VM's disks."""
    code = run(
        UUID, "--bandwidth", "20MiB/s", "--max-downtime", "500ms", "--migrate-uri", "tcp://10.0.0.1",
        "--copy-storage", "--timeout", "1h",
    )  # fmt: skip

    assert code == 0
    assert world.sent[1] == {"bandwidth": 20, "migrate_uri": "tcp://10.0.0.1"}


def test_json_is_the_whole_outcome(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """Programs decide by these fields."""
    assert run("web", "--json") == 0

    record = json.loads(capsys.readouterr().out)
    assert set(record) == {field.name for field in dataclasses.fields(MigrationOutcome)}
    assert (record["status"], record["source"], record["destination"]) == ("done", "absent", "running")


def test_a_dry_run_changes_nothing_and_names_what_is_in_the_way(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before an evening of moves one wants to know which VMs will not go."""
    assert run("web", "--dry-run") == 0
    assert "would be moved to there; dry run, nothing was changed" in capsys.readouterr().out

    world.there.free_bytes = MIB
    assert run("web", "--dry-run") == 1
    assert "has 1 MiB free" in capsys.readouterr().out
    assert run("web", "--dry-run", "--json") == 1
    assert len(json.loads(capsys.readouterr().out)["refusals"]) == 1
    assert world.sent[0] == "" and UUID in world.here.vms


def test_what_is_not_moved_ends_with_one(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """A script must not go on and switch off a host that still has the VM."""
    world.vm.job = {"type": 1, "operation": 2}
    assert run("web") == 1
    assert "web was not moved, nothing was begun: another job has it: save" in capsys.readouterr().err


def test_what_is_unclear_ends_with_one_and_the_command_that_helps(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the worst moment nobody wants to search for the right words."""
    world.journey = world.here.vms.clear
    assert run("web") == 1

    said = capsys.readouterr().err
    assert "where it is cannot be said for certain" in said and "logs on both hosts" in said


def test_warnings_end_with_three(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """It is there, but somebody should look."""

    def forgets() -> None:
        world.arrive()
        world.there.vms[UUID].xml = BARE_XML

    world.journey = forgets
    assert run("web") == 3
    assert "  warning: set again" in capsys.readouterr().out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_aborts_and_ends_with_130(
    world: World, capsys: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    """A closed terminal must not leave a migration that nobody watches."""
    before = signal.getsignal(number)

    def interrupted() -> None:
        os.kill(os.getpid(), number)
        world.until_aborted()

    world.journey = interrupted
    assert run("web") == 130

    assert "web was not moved and runs here as before: stopped on request" in capsys.readouterr().err
    assert signal.getsignal(number) is before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("wbe",), "there is web"),
        (("web", "--bandwidth", "10KiB/s"), "less than 1 MiB/s"),
        (("web", "--timeout", "0s"), "leaves no time"),
        (("web", "--max-downtime", "0ms"), "less than 1 ms"),
    ],
)
def test_wrong_words_begin_nothing(
    world: World, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    """A typing mistake must not move another VM, or this one without limits."""
    assert run(*words) == 2
    assert said in capsys.readouterr().err and world.sent[0] == ""


def test_no_libvirt_here_ends_with_69(world: World) -> None:
    """Scripts tell a host that is down from a VM that will not go."""
    world.here.down = True
    assert run("web") == 69


@pytest.mark.parametrize("status", ["done", "skipped", "failed", "aborted", "unclear"])
def test_names_from_outside_steer_no_terminal(status: Any) -> None:
    """A VM's owner chooses its name, and the other host its words."""
    action = dataclasses.replace(ACTION, name=EVIL_NAME, destination_uri=EVIL_NAME)
    outcome = MigrationOutcome(action, status, EVIL_NAME, source="running", destination="absent")

    assert migrate.told(outcome).isprintable()
    assert progress_line(EVIL_NAME, HALFWAY).isprintable()


def test_progress_is_one_readable_line() -> None:
    """Who waits wants to see whether it will ever end."""
    line = progress_line("web", HALFWAY)

    assert line == (
        "web: 75 %, 40 MiB of 160 MiB left, pass 3, 90 MiB sent, guest changes 2 MiB/s, "
        "held up 20 % of its time, 3.2 s"
    )


def test_a_log_gets_a_line_now_and_then_and_a_closed_pipe_ends_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two lines a second drown a log; an error in showing would leave the migration alone."""
    view = PlainView("web")
    for elapsed_s in (0.5, 1.0, 4.0, 6.0, 7.0):
        view.show(dataclasses.replace(HALFWAY, elapsed_s=elapsed_s))
    assert len(capsys.readouterr().out.splitlines()) == 2

    def closed(*_: object, **__: object) -> None:
        raise BrokenPipeError

    broken: Callable[..., None] = closed
    monkeypatch.setattr("builtins.print", broken)
    view.show(dataclasses.replace(HALFWAY, elapsed_s=60.0))
