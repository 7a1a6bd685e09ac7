"""Tells the service manager how the agent is: ready, what it does, still alive, reloading, stopping.

Called by the agent. Without systemd (no NOTIFY_SOCKET) every call does nothing; none ever fails.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress


class Notifier:
    """The sd_notify protocol: datagrams of NAME=VALUE lines to the socket that systemd named."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address

    @property
    def is_heard(self) -> bool:
        """Did a service manager start this process?"""
        return bool(self._address)

    def ready(self) -> None:
        """The start, or a reload, is over."""
        self._send("READY=1")

    def alive(self, status: str) -> None:
        """One turn is over; `status` is shown by `systemctl status`."""
        self._send(f"WATCHDOG=1\nSTATUS={' '.join(status.split())}")

    def reloading(self) -> None:
        """The configuration is being read again; `ready` ends it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, extend_s: float) -> None:
        """The agent is going, and may take this long to give memory back."""
        self._send(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={int(extend_s * 1e6)}\nSTATUS=giving memory back")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.sendto(message.encode(), self._address)
