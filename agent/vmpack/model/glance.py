"""A cheap look at the host between two intervals: just enough to see that the next one cannot wait."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class GuestGlance(NamedTuple):
    """One running VM at a glance."""

    balloon_bytes: int
    """What it has, as libvirt last heard: up to a second old."""
    usable_bytes: int | None
    """What its guest could take without swapping, by its newest report; None without one."""


class Glance(NamedTuple):
    """The host at a glance."""

    host_available_bytes: int | None
    """MemAvailable of the machine."""
    guests: Mapping[str, GuestGlance]
    """By VM uuid; VMs that could not be read are not in it."""
