"""Which VM gets how much of a host's memory in the end; how it gets there is decided in memory.py."""

from __future__ import annotations

from collections.abc import Sequence

from vmpack.decide.seat import Seat
from vmpack.decide.share import fill, fill_capped
from vmpack.units import KIB

FINEST_BYTES = 64 * KIB
"""The finest step of a target: a whole page on every architecture, and of libvirt's KiB."""


def divide(seats: Sequence[Seat], spendable: int, claimed: int, braked: bool) -> tuple[list[int], bool]:
    """The size each VM should have in the end; and whether not even every minimum fits.

    `spendable` is what the movable VMs may have in all, `claimed` what others have been promised of it; when
    `braked`, comfort gives way. Who may not move keeps its balloon.
    """
    movable = [seat for seat in seats if seat.need.movable]
    minimum = [seat.need.minimum_bytes for seat in movable]
    wanted = [seat.need.wanted_bytes for seat in movable]
    shares = [seat.need.shares for seat in movable]
    # Claims may eat the guests' comfort, never their minimum.
    comfortable, bare = sum(wanted), sum(minimum)
    scarce = bare > spendable
    if braked and not scarce:
        given = minimum
    elif comfortable <= spendable - claimed:
        given = wanted
    elif not scarce:
        given = _comforted(movable, max(spendable - claimed, bare), shares)
    else:
        given = _divided(movable, spendable, shares)
    by_uuid = {seat.guest.uuid: _rounded(size, seat) for seat, size in zip(movable, given, strict=True)}
    return [by_uuid.get(seat.guest.uuid, seat.guest.balloon_bytes) for seat in seats], scarce


def _comforted(movable: Sequence[Seat], total: int, shares: Sequence[int]) -> list[int]:
    """What each gets when every minimum fits, but not all comfort: first the room for its usual rises.

    With equal shares everybody gets the same part of what is kept for its rises, however large it is itself.
    """
    minimum = [seat.need.minimum_bytes for seat in movable]
    ready = [seat.need.ready_bytes for seat in movable]
    certain, most = minimum, ready
    if sum(ready) <= total:
        certain, most = ready, [seat.need.wanted_bytes for seat in movable]
    room = [upper - lower for lower, upper in zip(certain, most, strict=True)]
    given = fill(total - sum(certain), [0] * len(room), room, shares)
    return [size + more for size, more in zip(certain, given, strict=True)]


def _divided(movable: Sequence[Seat], spendable: int, shares: Sequence[int]) -> list[int]:
    """What each gets when not every minimum fits.

    Nobody knows how much a hungry VM will want: its fair part is reckoned from its nominal, so that the parts
    stay where they are while it eats; it gets no more than it needs now.
    """
    least = [min(seat.guest.balloon_bytes, seat.need.bare_bytes) for seat in movable]
    most = [
        max(seat.need.minimum_bytes, seat.guest.nominal_bytes if seat.need.hungry else 0) for seat in movable
    ]
    caps = [seat.need.wanted_bytes if seat.need.blind else seat.need.minimum_bytes for seat in movable]
    return fill_capped(spendable, least, most, caps, shares)


def _rounded(size: int, seat: Seat) -> int:
    """Down to what the hypervisor can set, but not below what the VM may not go below.

    Fair parts are not cut to whole grains: on small VMs that would be unfair by more than the shares differ.
    """
    if size >= seat.need.wanted_bytes:
        return size
    least = min(seat.guest.balloon_bytes, seat.need.bare_bytes)
    return max(size - size % FINEST_BYTES, least)
