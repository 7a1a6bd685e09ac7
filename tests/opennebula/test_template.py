"""The double of OpenNebula's template parser takes and rejects what the real one does."""

import pytest

from tests.opennebula.template import BadTemplateError, Template, first, merge, parse, vectors, whole_number

TAKEN: list[tuple[str, Template]] = [
    ("A=1\n", [("A", "1")]),
    ('a="b c"\n', [("A", "b c")]),
    ('A="x" B="y"\n', [("A", "x"), ("B", "y")]),
    ('A="say \\"hi\\""\n', [("A", 'say "hi"')]),
    ('A="two\nlines"\n', [("A", "two\nlines")]),
    ("A=\nB=2\n", [("A", ""), ("B", "2")]),
    ("# a comment\nA=1\n  # another\n", [("A", "1")]),
    ('V=[ ID="7", name = x ]\n', [("V", {"ID": "7", "NAME": "x"})]),
    ("V = [\n A = 1,\n B = 2\n]\nC=3\n", [("V", {"A": "1", "B": "2"}), ("C", "3")]),
    ("V=[ ]\n", [("V", {})]),
    ("1A=x\nXMLY=z\n", [("ONE_1A", "x"), ("ONE_XMLY", "z")]),
    ("", []),
    ("A=1#2\n", [("A", "1")]),
    ('A="open\n', [("A", '"open')]),
]
REJECTED = [
    "A=a,b\n",
    "A\n",
    "just words\n",
    "A=a b\n",
    'V=[ A="1"\n',
    'V=[ A="1" B="2" ]\n',
    "V=[ A=\n ]\n",
    'A="]]>"\n',
    'A="open quote\n',
    "A=1\nB\n",
]


@pytest.mark.parametrize(("text", "expected"), TAKEN)
def test_templates_that_opennebula_takes(text: str, expected: Template) -> None:
    """A double that rejects good text would have us avoid what works."""
    assert parse(text) == expected


@pytest.mark.parametrize("text", REJECTED)
def test_templates_that_opennebula_rejects(text: str) -> None:
    """A double that takes bad text would let a probe through that puts a real host in ERROR."""
    with pytest.raises(BadTemplateError):
        parse(text)


def test_names_stay_until_they_are_printed_again() -> None:
    """Values of yesterday that stay for ever are what explicit zeros are for."""
    old = parse('A=1\nGPU=[ I="0" ]\nGPU=[ I="1" ]\nKEPT=x\n')
    new = merge(old, parse("A=2\nGPU=[ ]\n"))
    assert new == [("KEPT", "x"), ("A", "2")]


def test_the_first_of_several_counts() -> None:
    """Two probes that print TOTALMEMORY are decided by their order."""
    twice = parse("TOTALMEMORY=1\nTOTALMEMORY=2\nGPU=[ I=0 ]\n")
    assert first(twice, "TOTALMEMORY") == "1" and first(twice, "ABSENT") is None
    assert vectors(twice, "GPU") == [{"I": "0"}]


def test_only_integers_are_numbers() -> None:
    """A float is silently ignored by the real one, so it must not count here."""
    assert [whole_number(text) for text in ("12", "-3", "1.5", "x", None)] == [12, -3, None, None, None]
