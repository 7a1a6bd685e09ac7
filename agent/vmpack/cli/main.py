"""The `vmpack` program: finds the command, imports that one alone, and turns errors into one clear line.

Each command is a module with `add_parser(subparsers)` and `run(args) -> int`. Called by the console
script. Promises: a VmpackError ends as `vmpack: message` (so on every line of it) and `  hint` on stderr
with the error's exit code; Ctrl-C ends with 130; a closed pipe ends quietly; no traceback for anything
foreseen.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import io
import logging
import os
import sys
from collections.abc import Callable, Sequence

from vmpack import __version__
from vmpack.cli.safe_text import shown
from vmpack.errors import UnavailableError, UsageError, VmpackError

EXIT_INTERRUPTED = 130
EXIT_PIPE_CLOSED = 141

COMMANDS: dict[str, dict[str, str]] = {
    "See what happens": {
        "status": "the host's memory, every VM, and what was decided",
        "top": "the same, live, and the pCPUs",
        "explain": "why a VM has the memory and pins it has, with the numbers",
        "gpus": "the GPUs, how busy they are, and which VM has them",
        "doctor": "what on this host works, what does not, and what to do",
    },
    "Steer": {
        "freeze": "stop all changes on this host, now",
        "release": "give a VM, or all of them, their memory back",
        "hold": "leave one VM alone for a while",
        "policy": "a VM's own floor, shares and headroom",
        "balloon": "set one VM's memory by hand",
        "pin": "bind one vCPU to some of this host's CPUs",
        "migrate": "move one running VM to another host",
    },
    "Cloud": {
        "hosts": "the cloud's hosts: promised, packed, granted",
        "vms": "the cloud's VMs, and what their owners ask for",
        "grant": "let the scheduler use what hosts have packed",
        "opennebula": "change a live OpenNebula host's drivers to vmpack's, or back",
    },
    "Run": {
        "agent": "the service that packs this host",
        "check-config": "read the configuration and say what is wrong with it",
        "import": "CloudVAMP's settings as vmpack's configuration",
    },
    "Called by OpenNebula": {
        "one-hook": "what a VMM action does on a node beside the stock one",
    },
    "Try and prove": {
        "demo": "see packing on real tiny guests, in a minute",
        "lab": "make and load tiny real guests",
        "replay": "run a recorded journal through the decisions again",
        "simulate": "what vmpack would save and risk, on a trace of memory use",
    },
}

EXIT_CODES = (
    "exit codes: 0 ok, 1 failed, 2 wrong usage, 3 done with warnings, 69 something needed is not there,\n"
    "            75 busy, try again, 77 no permission, 78 configuration has mistakes, 130 interrupted"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code. Argparse's own exits (--help, usage) pass through."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    return guarded(lambda: _dispatch(given))


def guarded(body: Callable[[], int], program: str = "vmpack") -> int:
    """Run a command's body; a foreseen failure becomes a line of this program on stderr and an exit code."""
    try:
        code = body()
        sys.stdout.flush()
    except VmpackError as error:
        return _failed(program, error)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("libvirt", "libvirt_qemu", "rich"):
            raise
        return _failed(
            program,
            UnavailableError(
                f"Python's {error.name} module is not installed for {sys.executable}",
                f"install the package python3-{error.name.partition('_')[0]} of your distribution",
            ),
        )
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE_CLOSED
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        return EXIT_INTERRUPTED
    return code


def _failed(program: str, error: VmpackError) -> int:
    for line in shown(error.message, keep_newlines=True).split("\n"):
        sys.stderr.write(f"{program}: {line}\n")
    if error.hint:
        sys.stderr.write(f"  {shown(error.hint, keep_newlines=True)}\n")
    return error.exit_code


def _dispatch(given: list[str]) -> int:
    name = next((word for word in given if not word.startswith("-")), None)
    parser = _parser(name)
    if name is None and not {"-h", "--help", "--version"} & set(given):
        parser.print_help(sys.stderr)
        return UsageError.exit_code
    args = parser.parse_args(given)
    logging.basicConfig(
        level=(logging.WARNING, logging.INFO, logging.DEBUG)[min(args.verbose, 2)],
        format="%(levelname)s %(name)s: %(message)s",
    )
    return int(_module(args.command).run(args))


def _parser(command: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vmpack",
        usage="vmpack [-h] [--version] [-v] COMMAND ...",
        description=(
            "vmpack borrows the memory that this host's VMs do not use, gives every byte back when they\n"
            "need it, and says why it did what it did."
        ),
        epilog=f"{_command_list()}\n\n`vmpack COMMAND --help` has the details and examples.\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"vmpack {__version__}")
    parser.add_argument("-v", "--verbose", action="count", default=0, help="say more; twice for everything")
    if command is not None:
        if command not in _names():
            raise _no_such_command(command)
        subparsers = parser.add_subparsers(
            dest="command", metavar="COMMAND", help=argparse.SUPPRESS, prog="vmpack"
        )
        _module(command).add_parser(subparsers)
    return parser


def _module(command: str):  # type: ignore[no-untyped-def]  # a module with add_parser and run
    module = "import_cloudvamp" if command == "import" else command.replace("-", "_")
    return importlib.import_module(f"vmpack.cli.{module}")


def _names() -> list[str]:
    return [name for group in COMMANDS.values() for name in group]


def _command_list() -> str:
    lines = []
    for title, group in COMMANDS.items():
        lines.append(f"{title}:")
        lines.extend(f"  {name:<13} {summary}" for name, summary in group.items())
    return "\n".join(lines)


def _no_such_command(command: str) -> UsageError:
    near = difflib.get_close_matches(command, _names(), n=1)
    hint = f"did you mean `vmpack {near[0]}`?" if near else "`vmpack --help` lists the commands"
    return UsageError(f"there is no command {command!r}", hint)


if __name__ == "__main__":
    sys.exit(main())
