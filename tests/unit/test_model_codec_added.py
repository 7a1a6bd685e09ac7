"""Fields that came later, in records that were written before."""

from __future__ import annotations

import dataclasses
import json

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


def test_a_field_that_came_later_has_its_default() -> None:
    """Every journal written before the field came would be lost."""
    assert codec.loads(Sample, '{"old": 5, "usual": 6}') == Sample(5, 6, 2)


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
