"""Text from outside, made fit for a terminal. Guest names and errors may hold anything their owners like.

Called wherever a command prints a name or a message. Promises: what comes out moves no cursor, changes
no colour, rings no bell, and cannot reorder the line; a reader can still see what was there.
"""

from __future__ import annotations

import unicodedata


def shown(text: str, limit: int = 0, *, keep_newlines: bool = False) -> str:
    """Escape control, format and undecodable characters; cut to `limit` characters when it is not 0."""
    safe = "".join(char if keep_newlines and char == "\n" else _visible(char) for char in text)
    return safe[: limit - 1] + "…" if limit and len(safe) > limit else safe


def _visible(char: str) -> str:
    if char == " " or unicodedata.category(char)[0] not in "CZ":
        return char
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
