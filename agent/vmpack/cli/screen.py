"""The one console that commands print tables and bars on.

Promises: colours only on a terminal and never with NO_COLOR; piped output is not cut at 80 columns.
"""

from __future__ import annotations

import os
import sys

from rich.console import Console

PIPED_COLUMNS = 200


def console() -> Console:
    """Standard output as a console; no markup, no highlighting, no emoji codes."""
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPED_COLUMNS
    return Console(width=width, markup=False, highlight=False, emoji=False, soft_wrap=False)


def ascii_only(screen: Console) -> bool:
    """True when the terminal's encoding has no block characters."""
    return not screen.encoding.lower().replace("-", "").startswith("utf")
