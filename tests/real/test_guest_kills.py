"""OOM kills inside a real guest, read through its guest agent."""

from __future__ import annotations

from tests.real.conftest import Boot
from tests.waiting import eventually
from vmpack.hypervisor import Hypervisor
from vmpack.lab.guest_spec import GuestSpec
from vmpack.lab.lab import Lab
from vmpack.observe.guest_kills import GuestKills
from vmpack.units import MIB


def test_a_kill_inside_a_guest_is_seen_and_a_guest_without_agent_is_absent(lab: Lab, boot: Boot) -> None:
    """A guest that had to kill shows free memory right after: without the count it would be shrunk again."""
    guest, mute = boot(
        GuestSpec("killing", memory_bytes=112 * MIB, vcpus=1),
        GuestSpec("mute", memory_bytes=96 * MIB, vcpus=1, guest_agent=False),
    )
    uuids = [mute.uuid, guest.uuid]
    hypervisor = Hypervisor(lab.uri)
    kills = GuestKills(hypervisor, silent_s=1.0)
    try:
        eventually("the agent answers", lambda: kills.counts(uuids) == {guest.uuid: 0})

        guest.control.load_anonymous(128 * MIB)
        eventually("a kill is counted", lambda: kills.counts(uuids).get(guest.uuid, 0) >= 1)

        eventually("all of them", lambda: kills.counts(uuids)[guest.uuid] == guest.control.oom_kills())
        assert mute.uuid not in kills.counts(uuids)
    finally:
        kills.close()
        hypervisor.close()
