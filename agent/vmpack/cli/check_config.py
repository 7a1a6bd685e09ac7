"""`vmpack check-config`: read the configuration as the agent would, and name every mistake."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from vmpack.config import ConfigMistakes, default_files, default_text, explain_lines, explain_records, load
from vmpack.errors import ConfigError

DESCRIPTION = """\
Read the configuration exactly as the agent does and name every mistake: file, key, what was found,
what was expected. Without FILE it reads the files of this host. Changes nothing; a running agent
takes a changed configuration over with `systemctl reload vmpack-agent`."""

EPILOG = """\
examples:
  vmpack check-config                                  the files of this host
  vmpack check-config new.toml && cp new.toml /etc/vmpack/vmpack.toml
  vmpack check-config --explain                        every key: value, unit, range, meaning
  vmpack check-config --default > vmpack.toml          a commented file to begin with

--json: files, mistakes [lines], keys [{name, kind, value, default, low, high, unit, meaning}]; keys is
empty when there are mistakes.

exit code: 0 no mistakes, 78 mistakes."""


def add_parser(subparsers: Any) -> None:
    """Add the command to the tree."""
    parser = subparsers.add_parser(
        "check-config",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "files", metavar="FILE", nargs="*", type=Path, help="files to read instead; later ones win"
    )
    parser.add_argument("--config", metavar="FILE", action="append", default=[], type=Path, help="as FILE")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--explain", action="store_true", help="print every key with its value and meaning")
    form.add_argument("--default", action="store_true", help="print a commented file with every default")
    form.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Check and tell. Raises ConfigMistakes, which ends as one line a mistake and exit code 78."""
    if args.default:
        print(default_text(), end="")
        return 0
    files = (*args.files, *args.config) or default_files()
    if args.json:
        return _print_record(files)
    config = load(files)
    if args.explain:
        print("\n".join(explain_lines(config)))
        return 0
    names = ", ".join(str(path) for path in files)
    print(f"no mistakes in {names}" if files else "no configuration file: every key has its default")
    return 0


def _print_record(files: tuple[Path, ...]) -> int:
    mistakes: tuple[str, ...] = ()
    keys: list[dict[str, Any]] = []
    try:
        keys = explain_records(load(files))
    except ConfigMistakes as error:
        mistakes = error.mistakes
    print(json.dumps({"files": [str(path) for path in files], "mistakes": mistakes, "keys": keys}, indent=2))
    return ConfigError.exit_code if mistakes else 0
