"""Values between quotes, read back by the double of OpenNebula's parser."""

from __future__ import annotations

import string

from hypothesis import given
from hypothesis import strategies as st
from tests.opennebula import template

from vmpack.publish.quoting import quotable

UNFIT = '"\\]'


def test_all_of_printable_ascii_but_three_stays() -> None:
    """Names of devices and versions would be shown with holes."""
    plain = "".join(set(string.printable) - set(string.whitespace) - set(UNFIT)) + " "
    assert quotable(plain) == plain
    assert quotable(UNFIT + "]]>\n\t\x7f\u00fc") == "_" * 5 + ">" + "_" * 4
    assert quotable(7) == "7"


@given(st.text())
def test_no_value_ends_its_quotes(text: str) -> None:
    """One syntax error puts the host in ERROR."""
    assert template.parse(f'A="{quotable(text)}"\nB="1"\n') == [("A", quotable(text)), ("B", "1")]
