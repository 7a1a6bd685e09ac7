"""What a guest's kernel says of its want of memory, read from text that the guest can make up."""

from __future__ import annotations

import base64
import json

import pytest

from vmpack.errors import BadDataError
from vmpack.model.guest import KernelCounts
from vmpack.observe.guest_file import parse_read
from vmpack.observe.guest_kernels import KernelReading, parse_stalled, parse_vmstat

PRESSURE = (
    b"some avg10=0.00 avg60=0.12 avg300=0.00 total=7000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=50\n"
)


def test_what_the_agent_read_is_read():
    """No count of any guest would arrive."""
    encoded = base64.b64encode(b"oom_kill 3\n").decode()
    assert (
        parse_read(json.dumps({"return": {"count": 11, "buf-b64": encoded, "eof": True}})) == b"oom_kill 3\n"
    )


@pytest.mark.parametrize("count", [0, 7, 2**63 - 1])
def test_a_count_is_read(count):
    """What the guest's kernel says, and nothing else, is the evidence."""
    assert parse_vmstat(b"a 1\noom_kill %d\nb 2\n" % count, 5.0) == KernelReading(count, KernelCounts(5.0))


def test_counts_by_kind_of_page_and_zone_are_added_and_old_kernels_are_read():
    """Refaults of files, or stalls in one zone, would be taken for all; an old guest would say nothing."""
    new = (
        b"workingset_refault_anon 3\nworkingset_refault_file 40\nworkingset_activate_file 9\n"
        b"allocstall_dma32 1\nallocstall_normal 2\nallocstall_movable 5\noom_kill 0\n"
    )
    old = b"workingset_refault 17\nallocstall 4\n"

    assert parse_vmstat(new, 5.0) == KernelReading(0, KernelCounts(5.0, 43, 8))
    assert parse_vmstat(old, 5.0) == KernelReading(None, KernelCounts(5.0, 17, 4))


@pytest.mark.parametrize(
    "content", [b"", b"oom_kill\n", b"oom_kill -1\n", b"xoom_kill 5\n", b"oom_kill 5 6\n"]
)
def test_a_kernel_that_does_not_count_is_no_zero(content):
    """Kernels before 4.13 have no such line: 0 would be a promise that nobody was killed."""
    assert parse_vmstat(content, 5.0) is None


def test_pressure_is_read_and_may_be_missing():
    """A guest that stalls would look calm; and one without PSI, or without a line, must not look like 0."""
    assert parse_stalled(PRESSURE) == (7000, 50)
    assert parse_stalled(b"some avg10=0.00 avg60=0.00 avg300=0.00 total=5\nfull avg10=0\n") == (5, None)
    assert parse_stalled(b"\xff\xfe") == (None, None)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "[" * 100_000,
        "9" * 100_000,
        "x" * 1_000_000,
        "[]",
        '{"return":7}',
        '{"return":{"buf-b64":7}}',
        '{"return":{"buf-b64":"*"}}',
        '{"return":{"buf-b64":"\\ud800"}}',
        '{"error":{"class":"GenericError"}}',
    ],
)
def test_nonsense_is_told_from_an_answer(answer):
    """A guest that answers with anything it likes would stop the thread, and nobody's kills would be seen."""
    with pytest.raises(BadDataError):
        parse_read(answer)


@pytest.mark.parametrize(
    "content",
    [b"oom_kill 9999999999999999999\n", b"allocstall_dma 9223372036854775807\nallocstall_normal 1\n"],
)
def test_a_count_that_no_kernel_has_is_nonsense(content):
    """A sum that does not fit the journal would cost all VMs their interval."""
    with pytest.raises(BadDataError):
        parse_vmstat(content, 5.0)
