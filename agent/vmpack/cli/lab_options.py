"""What the verbs of `vmpack lab` have in common: their parsers, and which lab they mean."""

from __future__ import annotations

import argparse
from typing import Any

DEFAULT_NAME = "default"


def add_verb(subparsers: Any, name: str, what: str, description: str) -> argparse.ArgumentParser:
    """Add a verb whose help shows `description` as it is written."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        name, help=what, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    return parser


def guest_count(text: str) -> int:
    """Read a number of guests, or of something in a guest."""
    if not text.isdecimal() or not 1 <= int(text) <= 255:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 255")
    return int(text)


def name_option(name: str) -> str:
    """The words to write behind a command for this lab."""
    return "" if name == DEFAULT_NAME else f" --name {name}"
