"""Values fit for OpenNebula's template syntax. Called by probe_text.py and gpu_text.py; pure."""

from __future__ import annotations

import re

_UNFIT = re.compile(r"[^ !#-\[^-~]")
"""Anything but printable ASCII; of that the quote, the backslash, and what an end of CDATA begins with."""


def quotable(value: object) -> str:
    """What can stand between two quotes: each character that cannot is an underscore."""
    return _UNFIT.sub("_", str(value))
