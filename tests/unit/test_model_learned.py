"""What was learned of a VM, as text in its metadata."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from vmpack.act.learned_xml import learned_xml
from vmpack.model.learned import MOST_SIZES, Lapse, Learned, from_attributes, to_attributes

LARGEST_TEXT_BYTES = 2048
"""As the README promises; the number of sizes sees to it."""
GIVEN = {
    "v": "1",
    "at": "1700000000",
    "nominal": "268435456",
    "known": "86400",
    "rises": "0:3.2 27:0.5",
    "pressed": "2 1800 104857600",
    "killed": "1 -60 0",
}
"""As before the interval was told."""
quick = hypothesis_settings(max_examples=100)
lapses = st.builds(Lapse, st.integers(1, 1000), st.floats(-1e6, 1e6), st.integers(0, 2**60)) | st.none()
anything_learned = st.builds(
    Learned,
    st.floats(0, 1e10),
    st.integers(1, 2**60),
    st.floats(0, 3e8),
    st.lists(st.floats(0, 2.0**20), max_size=MOST_SIZES).map(tuple),
    lapses,
    lapses,
    st.floats(0.5, 60) | st.none(),
)


def test_the_form_is_as_it_was() -> None:
    """A host with a newer vmpack could not read what an older one wrote."""
    read = from_attributes(GIVEN)

    counts = (3.2, *[0.0] * 26, 0.5)
    assert read == Learned(1.7e9, 2**28, 86400, counts, Lapse(2, 1800, 100 * 2**20), Lapse(1, -60, 0))
    assert to_attributes(read) == GIVEN


def test_the_interval_goes_along() -> None:
    """A host with another interval would take the rises for its own."""
    read = from_attributes(GIVEN | {"interval": "3.3333333333333335"})

    assert read.interval_s == 10 / 3 and from_attributes(to_attributes(read)) == read


def test_what_is_not_there_is_left_out() -> None:
    """Metadata are shown by every dumpxml: a guest of few rises has little in them."""
    assert set(to_attributes(Learned(1.7e9, 2**28, 0, (1.0,)))) == {"v", "at", "nominal", "known", "rises"}


@quick
@given(anything_learned)
def test_what_is_written_can_be_read_and_is_short(learned: Learned) -> None:
    """A VM would forget at its first migration, or libvirt's XML grow without bound."""
    read = from_attributes(to_attributes(learned))

    assert len(learned_xml(learned)) + 200 <= LARGEST_TEXT_BYTES
    assert abs(read.written_s - learned.written_s) <= 0.5 and read.nominal_bytes == learned.nominal_bytes
    for found, expected in zip(read.counts, learned.counts, strict=False):
        assert abs(found - expected) <= max(0.001, 0.005 * expected)
    assert all(lost < 0.001 for lost in learned.counts[len(read.counts) :])
    assert to_attributes(read) == to_attributes(learned)


def test_more_than_a_reader_takes_is_written_as_the_most() -> None:
    """A guest that kills something for ever would lose all that was learned of it, rises too."""
    learned = Learned(1.7e9, 2**28, 1e12, (3e9,), Lapse(1001, 60), Lapse(1299, 60))
    read = from_attributes(to_attributes(learned))

    assert read.pressed == read.killed == Lapse(1000, 60)
    assert read.counts == (2e6,) and read.known_s == 10 * 365 * 86400


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("v", "2"),
        ("v", ""),
        ("at", "soon"),
        ("at", "-1"),
        ("at", "nan"),
        ("at", "inf"),
        ("at", "1e400"),
        ("at", "1_000"),
        ("nominal", "0"),
        ("nominal", "1.5"),
        ("nominal", "9" * 30),
        ("nominal", "\N{ARABIC-INDIC DIGIT ONE}"),
        ("known", "-5"),
        ("known", "1e30"),
        ("rises", "80:1"),
        ("rises", "-1:1"),
        ("rises", "5:1 5:1"),
        ("rises", "5:1 3:1"),
        ("rises", "5"),
        ("rises", "5:"),
        ("rises", "5:nan"),
        ("rises", "5:1e300"),
        ("rises", "5:-1"),
        ("rises", "0:1 " * 1000),
        ("pressed", "1 2"),
        ("pressed", "0 2 3"),
        ("pressed", "1 nan 3"),
        ("pressed", "1 2 -3"),
        ("interval", "0"),
        ("interval", "inf"),
        ("killed", "one two three"),
        ("killed", "99999999999 2 3"),
    ],
)
def test_a_text_that_cannot_be_meant_is_refused_whole(name: str, text: str) -> None:
    """Whoever edits a domain by hand, or a bit that fell over, could keep memory from every other VM."""
    with pytest.raises(ValueError, match=r"."):
        from_attributes(GIVEN | {name: text})


@pytest.mark.parametrize("name", ["v", "at", "nominal", "known"])
def test_a_text_that_lacks_a_part_is_refused(name: str) -> None:
    """A cut text would be taken for that of a VM that never rose."""
    with pytest.raises(ValueError, match=r"."):
        from_attributes({key: text for key, text in GIVEN.items() if key != name})
