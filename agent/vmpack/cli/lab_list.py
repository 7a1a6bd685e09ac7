"""Guests of labs as records and as a table. Called by `vmpack lab list` and `vmpack lab pair list`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from vmpack.cli.safe_text import shown
from vmpack.units import format_bytes

if TYPE_CHECKING:
    from vmpack.lab.lab import LabGuest


def guest_record(guest: LabGuest) -> dict[str, Any]:
    """What `--json` prints of a guest. Raises GuestGoneError."""
    memory_bytes, balloon_bytes, vcpus = guest.size()
    return {
        "name": guest.name,
        "uuid": guest.uuid,
        "pid": guest.pid,
        "memory_bytes": memory_bytes,
        "balloon_bytes": balloon_bytes,
        "vcpus": vcpus,
        "rss_bytes": guest.rss_bytes(),
        "state": "ready" if guest.is_ready() else "booting",
    }


def print_guests(records: Iterable[dict[str, Any]]) -> None:
    """Print the table of guests."""
    print(f"{'GUEST':<16} {'MEMORY':>9} {'BALLOON':>9} {'VCPUS':>5} {'HOST RSS':>9} {'PID':>8}  STATE")
    for record in records:
        print(
            f"{shown(record['name'], 16):<16} {format_bytes(record['memory_bytes']):>9} "
            f"{format_bytes(record['balloon_bytes']):>9} {record['vcpus']:>5} "
            f"{format_bytes(record['rss_bytes']):>9} {record['pid']:>8}  {record['state']}"
        )
