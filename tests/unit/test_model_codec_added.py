"""Fields that came later, in records that were written before."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated, NamedTuple

import pytest
from tests import builders

from vmpack.errors import BadDataError
from vmpack.model import codec
from vmpack.model.gpu import Gpu
from vmpack.model.host import HostSnapshot


@dataclasses.dataclass(frozen=True)
class Sample:
    old: int
    usual: int = 1
    new: int = dataclasses.field(default=2, metadata=codec.ADDED)
    more: tuple[int, ...] = dataclasses.field(default_factory=tuple, metadata=codec.ADDED)


def test_a_field_that_came_later_has_its_default() -> None:
    """Every journal written before the field came would be lost."""
    assert codec.loads(Sample, '{"old": 5, "usual": 6}') == Sample(5, 6, 2)


@dataclasses.dataclass(frozen=True)
class SampleOfBefore:
    old: int
    usual: int = 1


def test_a_digest_does_not_see_a_field_that_came_later_and_says_nothing() -> None:
    """The digests in every older journal would no longer be those of what it holds."""
    assert codec.digest((Sample(5, 6),)) == codec.digest((SampleOfBefore(5, 6),))
    assert codec.digest(Sample(5, 6, 3)) != codec.digest(Sample(5, 6))
    assert codec.digest(Sample(5, 1)) != codec.digest(Sample(5, 2))
    assert codec.digest(Named(1)) == codec.digest(NamedOfBefore(1)) != codec.digest(Named(1, 3))


class NamedOfBefore(NamedTuple):
    old: int


class Named(NamedTuple):
    old: int
    new: Annotated[int, codec.ADDED] = 2


@pytest.mark.parametrize("text", ['{"usual": 6}', '{"old": 5}', '{"old": 5, "usual": 6, "odd": 7}'])
def test_any_other_missing_or_unknown_key_is_a_fault(text: str) -> None:
    """A record that was cut or is another one would be taken for one with defaults."""
    with pytest.raises(BadDataError):
        codec.loads(Sample, text)


def test_a_snapshot_without_gpus_is_one_of_before() -> None:
    """Snapshots from before GPUs were looked at are those of a host without any."""
    seen = dataclasses.replace(builders.host(), gpus=(Gpu(index=0),))
    data = json.loads(codec.dumps(seen))
    assert codec.decode(HostSnapshot, data) == seen
    del data["gpus"]
    assert codec.decode(HostSnapshot, data) == builders.host()
