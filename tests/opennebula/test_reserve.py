"""RESERVED_MEM as oned reads it, and the attributes that are written in its place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.opennebula.host_record import max_kib
from tests.opennebula.template import first, merge, parse
from vmpack.clouds.opennebula_reserve import reservation, reserved_kib, written
from vmpack.clouds.opennebula_text import template_text
from vmpack.clouds.opennebula_xml import Template
from vmpack.errors import CloudError

TOTAL_KIB = 8 * 2**20

own_values = st.one_of(
    st.just(""),
    st.integers(-(2**40), 2**40).map(str),
    st.integers(-500, 500).map(lambda number: f"{number}%"),
    st.sampled_from((" 5", "5 ", "+7", "-0", "007%")),
)


@pytest.mark.parametrize(
    ("value", "reserved"),
    [
        ("", 0),
        ("0", 0),
        ("1048576", 1048576),
        ("-1048576", -1048576),
        (" 1048576 ", 1048576),
        ("+5", 5),
        ("25%", TOTAL_KIB // 4),
        ("-20%", TOTAL_KIB - int(TOTAL_KIB * 1.2)),
        ("100%", TOTAL_KIB),
        (" ", None),
        ("%", None),
        ("20 %", None),
        ("20%%", None),
        ("12.5%", None),
        ("1e3", None),
        ("1 2", None),
        ("0x10", None),
        ("20000%", None),
        ("\u0663", None),
    ],
)
def test_the_value_means_what_it_means_to_oned(value: str, reserved: int | None) -> None:
    """A reserve read otherwise than oned does becomes a grant that nobody sees coming."""
    assert reserved_kib(value, TOTAL_KIB) == reserved


@given(own_values, own_values, st.integers(0, 2**34), st.integers(0, 2**34))
def test_grant_and_withdrawal_leave_no_trace_in_capacity(
    own: str, inherited: str, total_kib: int, granted_kib: int
) -> None:
    """Whatever was reserved before, capacity is base + grant while it stands and the old one afterwards."""
    cluster = Template({"RESERVED_MEM": inherited})
    host = parse(template_text({"RESERVED_MEM": own}))
    before_kib = max_kib(total_kib, (own or inherited).strip())

    found = reservation(Template(dict(host)), cluster, total_kib)
    granted = merge(host, parse(template_text(written(found, granted_kib, 1e9))))
    again = reservation(Template(dict(granted)), cluster, total_kib)
    after = merge(granted, parse(template_text(written(again, 0, 2e9))))

    assert found.fault == "" and found.granted_kib is None
    if granted_kib:
        assert max_kib(total_kib, first(granted, "RESERVED_MEM")) == before_kib + granted_kib
        assert (again.granted_kib, again.own, again.base_kib) == (granted_kib, own, found.base_kib)
    assert first(after, "RESERVED_MEM") == own
    assert reservation(Template(dict(after)), cluster, total_kib).granted_kib is None


@given(st.text(max_size=60), st.text(max_size=60))
def test_nothing_that_is_written_can_break_out_of_its_quotes(name: str, value: str) -> None:
    """One syntax error, and oned refuses the whole; a quote too much, and it reads other attributes."""
    try:
        text = template_text({name: value})
    except CloudError:
        return
    assert parse(text) == [(name, value)] or name.startswith("XML")
