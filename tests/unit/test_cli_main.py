"""The command tree: lazy imports, exit codes, one clear line per error."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tests.cli_samples import EVIL_NAME

from vmpack import __version__
from vmpack.cli import main as program
from vmpack.errors import AccessError, ConfigError, UnavailableError, UsageError, VmpackError

SOCKET = ["--socket", "/nonexistent/agent.sock"]


def imported_by(*arguments: str) -> str:
    """The modules that a command line imports."""
    code = (
        "import sys\nfrom vmpack.cli.main import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "sys.stderr.write(' '.join(sorted(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    return done.stderr


def test_help_lists_every_command_and_imports_none(capsys: pytest.CaptureFixture[str]) -> None:
    """`vmpack --help` must stay quick, and no command may be hidden from it."""
    with pytest.raises(SystemExit) as ended:
        program.main(["--help"])
    text = capsys.readouterr().out

    assert ended.value.code == 0
    for group in program.COMMANDS.values():
        for name, summary in group.items():
            assert name in text and summary in text
    modules = imported_by("--help").split()
    for heavy in ("rich", "libvirt", "prometheus_client", "vmpack.cli.status", "vmpack.decide"):
        assert heavy not in modules


@pytest.mark.parametrize("name", [name for group in program.COMMANDS.values() for name in group])
def test_every_command_teaches(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each command must exist and show how it is used, with an example."""
    if name == "demo":
        pytest.importorskip("vmpack.cli.demo", reason="the demo is not built yet")
    with pytest.raises(SystemExit) as ended:
        program.main([name, "--help"])
    text = capsys.readouterr().out

    assert ended.value.code == 0
    assert f"usage: vmpack {name}" in text
    assert f"vmpack {name}" in text.partition("example")[2]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """A bug report starts with the version."""
    with pytest.raises(SystemExit):
        program.main(["--version"])

    assert capsys.readouterr().out == f"vmpack {__version__}\n"


def test_no_command_shows_the_help_as_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    """A script that forgot the command must not look successful."""
    assert program.main([]) == 2
    assert "COMMAND" in capsys.readouterr().err


def test_a_mistyped_command_gets_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    """People mistype; the next step should be in front of them."""
    assert program.main(["statsu"]) == 2
    assert (
        capsys.readouterr().err == "vmpack: there is no command 'statsu'\n  did you mean `vmpack status`?\n"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["status"],
        ["status", "--json"],
        ["top"],
        ["top", "--once"],
        ["explain", "web"],
        ["hold", "web"],
        ["policy", "web", "--opt-out"],
    ],
)
def test_without_an_agent_one_line_and_what_to_do(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The commonest failure of all must be told in one line with the cure, and be seen by scripts."""
    assert program.main([*arguments, *SOCKET]) == 69

    shown = capsys.readouterr()
    assert shown.out == ""
    message, hint = shown.err.splitlines()
    assert message == "vmpack: no agent answers on /nonexistent/agent.sock"
    assert "start" in hint


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (VmpackError("m"), 1),
        (UsageError("m"), 2),
        (UnavailableError("m"), 69),
        (AccessError("m"), 77),
        (ConfigError("m"), 78),
        (KeyboardInterrupt(), 130),
    ],
)
def test_failures_become_exit_codes(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Scripts tell failures apart by these codes."""

    def body() -> int:
        raise error

    assert program.guarded(body) == code
    assert "Traceback" not in capsys.readouterr().err


def test_errors_cannot_carry_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    """A guest's name inside an error message must not reach the terminal raw either."""

    def body() -> int:
        raise VmpackError(f"no VM {EVIL_NAME}", f"is it {EVIL_NAME}?")

    assert program.guarded(body) == 1
    text = capsys.readouterr().err
    assert "\x1b" not in text and "\u202e" not in text


def test_a_missing_libvirt_module_is_told_with_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    """On a fresh host the library is what is missing most often."""

    def body() -> int:
        raise ModuleNotFoundError("No module named 'libvirt'", name="libvirt")

    assert program.guarded(body) == 69
    assert "python3-libvirt" in capsys.readouterr().err


def test_an_unknown_missing_module_is_not_hidden() -> None:
    """A defect of ours must not be blamed on the host."""

    def body() -> int:
        raise ModuleNotFoundError("No module named 'vmpack.nothing'", name="vmpack.nothing")

    with pytest.raises(ModuleNotFoundError):
        program.guarded(body)


def test_a_closed_pipe_is_quiet() -> None:
    """`vmpack check-config --explain | head -1` must not end in a traceback."""
    command = [sys.executable, "-m", "vmpack.cli.main", "check-config", "--explain"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None and running.stderr is not None
        running.stdout.close()
        errors = running.stderr.read()

    assert errors == ""
    assert running.returncode == program.EXIT_PIPE_CLOSED
