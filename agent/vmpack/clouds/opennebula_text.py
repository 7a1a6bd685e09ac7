"""Template text for oned: NAME="value" lines. Called for everything that is written there."""

from __future__ import annotations

import re
from collections.abc import Mapping

from vmpack.errors import CloudError

_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,63}\Z")
_VALUE = re.compile(r"[ !#-\[^-~]{0,256}\Z")
"""Printable ASCII without quote, backslash and closing bracket."""


def template_text(values: Mapping[str, str | None]) -> str:
    """The text to append; None takes the name away, as oned merges an empty vector.

    Raises CloudError for what oned's grammar would read as something else.
    """
    for name, given in values.items():
        value = given or ""
        if not _NAME.match(name) or not _VALUE.match(value):
            raise CloudError(
                f"{name}={value!r:.80} cannot be written to OpenNebula", "this is vmpack's mistake"
            )
    return "".join(
        f"{name}=[ ]\n" if value is None else f'{name}="{value}"\n' for name, value in values.items()
    )
