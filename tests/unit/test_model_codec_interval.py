"""Whole intervals through JSON and back."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests import intervals

from vmpack.model import codec
from vmpack.model.interval import Interval
from vmpack.publish.journal import Header

finite = st.floats(allow_nan=False, allow_infinity=False)
st.register_type_strategy(float, finite)


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(st.from_type(Interval))
def test_any_interval_survives_json(interval: Interval) -> None:
    """A journal and a replay that disagree by one bit would call a right decision wrong."""
    text = codec.dumps(interval)
    back = codec.loads(Interval, text)
    assert back == interval
    assert codec.dumps(back) == text


@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(st.from_type(Header))
def test_any_header_survives_json(header: Header) -> None:
    """A segment replays alone only when its header comes back whole."""
    assert codec.loads(Header, codec.dumps(header)) == header


def test_undecodable_names_survive_json() -> None:
    """A VM whose name is not text must not break the journal of the host."""
    turn = intervals.interval(intervals.guest(1, 'a\udcff\n"b'))
    assert codec.loads(Interval, codec.dumps(turn).encode()) == turn
