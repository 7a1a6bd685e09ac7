"""What the probe adds to the host's memory for the scheduler, where grant.via = "probe". Pure.

Called by the publisher, once per interval. Promises the rule of decide/grant. Of the cloud's own numbers the
agent knows the nominals of VMs that are here: what is on its way the cloud itself takes off its capacity, and
a reserve of the administrator's in the cloud only makes the grant smaller than it could be.
"""

from __future__ import annotations

from vmpack.decide.grant import fitting_bytes
from vmpack.model.interval import Interval
from vmpack.model.settings import GrantSettings
from vmpack.publish.probe_text import vm_id


def probe_grant_bytes(interval: Interval, observe_only: bool, settings: GrantSettings) -> int:
    """Bytes beyond the host's own memory; an agent that changes nothing grants nothing."""
    snapshot, offer = interval.snapshot, interval.plan.offer
    if settings.via != "probe" or observe_only or snapshot.frozen:
        return 0
    counted = [guest for guest in snapshot.guests if vm_id(guest.name) is not None]
    promised = sum(guest.nominal_bytes for guest in counted)
    packed = sum(max(0, guest.nominal_bytes - guest.balloon_bytes) for guest in counted)
    free_without = snapshot.capacity_bytes - promised
    return fitting_bytes(min(offer.packed_bytes, packed), offer.memory_bytes, free_without, settings.factor)
