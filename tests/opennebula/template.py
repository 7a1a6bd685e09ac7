"""A double of OpenNebula's template parser and of what is done with templates: merge, look up.

Used by the doubles of monitord, oned and OneGate. It takes what the real one takes, also what that takes by
accident, and rejects a whole text for one error, as the real one does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

Value = str | dict[str, str]
Template = list[tuple[str, Value]]

_INITIAL = (
    (None, re.compile(r"[ \t]*#[^\n]*\n")),
    (None, re.compile(r"[ \t\n]+")),
    ("VARIABLE", re.compile(r"[A-Za-z0-9_]+")),
    ("EQUAL", re.compile(r"[ \t]*=[ \t]*")),
    ("EMPTY", re.compile(r"[ \t]*=[ \t]*\n")),
    ("COMMA", re.compile(r"[ \t\n]*,[ \t\n]*")),
    ("CLOSE", re.compile(r"[ \t\n]*\][ \t\n]*")),
)
_VALUE = (
    ("OPEN", re.compile(r"[ \t]*\[[ \t\n]*")),
    ("CDATA", re.compile(r"[^\n]*\]\]>[^\n]*")),
    ("QUOTED", re.compile(r'"(?:\\"|[^"])*"')),
    ("STRING", re.compile(r"[^=# \t\n,\[\]]+")),
)


class BadTemplateError(Exception):
    """The text is no template: nothing of it is used."""


def parse(text: str) -> Template:
    """All attributes in order, names as OpenNebula stores them. Raises BadTemplateError."""
    tokens = list(_tokens(text))
    found: Template = []
    while tokens:
        name = _take(tokens, "VARIABLE")
        if tokens and tokens[0][0] == "EMPTY":
            tokens.pop(0)
            found.append((_stored(name), ""))
            continue
        _take(tokens, "EQUAL")
        if tokens and tokens[0][0] == "OPEN":
            tokens.pop(0)
            found.append((_stored(name), _vector(tokens)))
        else:
            found.append((_stored(name), _take(tokens, "STRING")))
    return found


def merge(old: Template, new: Template) -> Template:
    """`old` after `new` came: names in `new` replace all of that name, others stay for ever.

    An empty vector only takes the old ones away.
    """
    names = {name for name, _ in new}
    kept = [entry for entry in old if entry[0] not in names]
    return kept + [entry for entry in new if entry[1] != {}]


def first(template: Template, name: str) -> str | None:
    """The first single value of this name: the one that counts."""
    return next((value for key, value in template if key == name and isinstance(value, str)), None)


def vectors(template: Template, name: str) -> list[dict[str, str]]:
    """All vectors of this name."""
    return [value for key, value in template if key == name and isinstance(value, dict)]


def whole_number(text: str | None) -> int | None:
    """What OpenNebula reads as an integer; None for anything else."""
    return int(text) if text is not None and re.fullmatch(r"[+-]?\d+", text) else None


def _vector(tokens: list[tuple[str, str]]) -> dict[str, str]:
    values: dict[str, str] = {}
    if tokens and tokens[0][0] == "CLOSE":
        tokens.pop(0)
        return values
    while True:
        name = _take(tokens, "VARIABLE").upper()
        _take(tokens, "EQUAL")
        values.setdefault(name, _take(tokens, "STRING"))
        if tokens and tokens[0][0] == "CLOSE":
            tokens.pop(0)
            return values
        _take(tokens, "COMMA")


def _take(tokens: list[tuple[str, str]], kind: str) -> str:
    if not tokens or tokens[0][0] != kind:
        met = tokens[0] if tokens else "the end"
        raise BadTemplateError(f"syntax error: expected {kind}, met {met}")
    return tokens.pop(0)[1]


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    """The longest rule wins, the first of equally long ones; a character without a rule is passed over."""
    rules, at = _INITIAL, 0
    while at < len(text):
        matches = [(kind, match) for kind, rule in rules if (match := rule.match(text, at))]
        if not matches:
            at += 1
            continue
        kind, match = max(matches, key=lambda entry: len(entry[1][0]))
        at = match.end()
        if kind == "EQUAL":
            rules = _VALUE
        elif rules is _VALUE:
            rules = _INITIAL
        if kind == "QUOTED":
            yield "STRING", match[0][1:-1].replace('\\"', '"')
        elif kind is not None:
            yield kind, match[0].strip() if kind == "VARIABLE" else match[0]


def _stored(name: str) -> str:
    upper = name.upper()
    return f"ONE_{upper}" if not re.match(r"[A-Za-z_]", name) or name.startswith("XML") else upper
