"""The look between two intervals, at real guests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.real.agent_process import balloon_bytes
from tests.real.conftest import Boot
from tests.waiting import eventually
from vmpack.hypervisor import Hypervisor
from vmpack.lab.guest_spec import GuestSpec
from vmpack.lab.lab import Lab
from vmpack.observe.glance import Glancer
from vmpack.units import KIB, MIB

# A busy machine answers late; what counts here is what is seen.
DEADLINE_S = 30.0


@pytest.fixture
def glancer(lab: Lab) -> Iterator[Glancer]:
    hypervisor = Hypervisor(lab.uri)
    yield Glancer(hypervisor, deadline_s=DEADLINE_S)
    hypervisor.close()


def test_need_and_balloon_are_seen_as_they_move_and_a_paused_guest_is_not(
    boot: Boot, glancer: Glancer
) -> None:
    """A guest whose need jumps would wait for the next interval, while its own OOM killer does not wait."""
    (guest,) = boot(GuestSpec("glanced", memory_bytes=160 * MIB, stats_period_s=1))
    uuid = guest.uuid

    def usable_bytes() -> int:
        seen = glancer.glance().guests.get(uuid)
        return seen.usable_bytes or 0 if seen else 0

    calm_bytes = eventually("the guest reports", usable_bytes)
    guest.control.load_tmpfs(48 * MIB)
    eventually("its need is seen", lambda: 0 < usable_bytes() < calm_bytes - 40 * MIB)

    guest.control.free()
    guest.domain.setMemory(130 * MIB // KIB)
    eventually("its balloon is seen", lambda: glancer.glance().guests[uuid].balloon_bytes == 130 * MIB)
    assert balloon_bytes(guest) == 130 * MIB
    assert (glancer.glance().host_available_bytes or 0) > 0

    guest.domain.suspend()
    assert uuid not in glancer.glance().guests
