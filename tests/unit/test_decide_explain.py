"""Reasons in words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import vmpack.decide
from vmpack.decide import explain
from vmpack.model.plan import Reason

DECIDE = Path(vmpack.decide.__file__).parent


def test_every_rule_that_decisions_give_has_words():
    """An administrator would read a rule's bare name at the worst moment."""
    given = set()
    for source in DECIDE.rglob("*.py"):
        text = source.read_text()
        given |= set(re.findall(r'Reason\(\s*"(\w+)"', text)) | set(re.findall(r'\brule = "(\w+)"', text))
        given |= set(re.findall(r'^[A-Z_]+ = "(\w+)"$', text, re.M)) | set(
            re.findall(r'(?:rule = .* else|never else) "(\w+)"', text)
        )
        given |= set(re.findall(r'\brule = .* else "(\w+)" if .* else', text))

    assert given - {""} == explain.rules()


def test_numbers_are_shown_with_units():
    """136314880 says nothing to a person."""
    what, change = explain.words(
        Reason(
            "within_dead_band", {"balloon_bytes": 130 << 20, "target_bytes": 128 << 20, "band_bytes": 8 << 20}
        )
    )

    assert "130 MiB" in what
    assert "128 MiB" in what
    assert change


@pytest.mark.parametrize(
    ("rule", "name", "value", "words"),
    [
        ("saves_too_little_yet", "paid_pct", 43, "is 43 % of what is worth an order"),
        ("offer", "bound_pct", 100 * 0.07, "at most 7 %;"),
        ("offer", "bound_pct", 0.1, "at most 0.1 %;"),
        ("host_runs_short", "stalled_pct", 12.3, "(12.3 % of the time)"),
    ],
)
def test_shares_are_shown_in_percent(rule: str, name: str, value: float, words: str):
    """ "43 of what is worth an order" says nothing, "7.000000000000001 %" more than anybody knows."""
    assert words in explain.words(Reason(rule, {name: value}))[0]


def test_exclusions_are_explained():
    """`huge_pages` alone does not say why a VM is left alone."""
    what, _ = explain.words(Reason("excluded", {}, "huge_pages"))

    assert "huge pages" in what


def test_a_rule_of_a_newer_journal_is_shown_by_its_name():
    """Reading another version's journal would crash."""
    assert explain.words(Reason("some_new_rule"))[0] == "some new rule"


def test_a_number_that_an_older_journal_lacks_is_shown_as_unknown():
    """Reading an older version's journal would crash."""
    assert "?" in explain.words(Reason("unused_is_packed", {"balloon_bytes": 1}))[0]


@pytest.mark.parametrize(
    ("by", "words"),
    [
        ("faults", "it swapped in or faulted hard"),
        ("refaults", "it read again from its disk"),
        ("", "it was short of memory"),
    ],
)
def test_what_showed_want_is_said(by: str, words: str):
    """A VM would keep memory for half an hour and nobody could tell why; least of all after a migration."""
    what, _ = explain.words(
        Reason("guest_was_pressed", {"pressed_floor_bytes": 150 << 20, "used_bytes": 30 << 20}, by)
    )

    assert what.startswith(f"with a smaller balloon {words}")
    assert "150 MiB" in what
