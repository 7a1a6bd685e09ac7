"""A double of the messages from the monitoring client on a node to monitord: their form and their limit."""

from __future__ import annotations

import base64
import errno
import zlib
from dataclasses import dataclass
from typing import Literal

MOST_DATAGRAM_BYTES = 65507
OVER_TCP = ("STATE_VM",)

Kind = Literal["BEACON_HOST", "SYSTEM_HOST", "MONITOR_HOST", "STATE_VM", "MONITOR_VM", "EXEC_VM"]
KINDS: tuple[Kind, ...] = (
    "BEACON_HOST",
    "SYSTEM_HOST",
    "MONITOR_HOST",
    "STATE_VM",
    "MONITOR_VM",
    "EXEC_VM",
)


@dataclass(frozen=True, slots=True)
class Message:
    """What one pass of one category said."""

    kind: Kind
    succeeded: bool
    host_id: int
    epoch_s: int
    text: str


def encode(message: Message) -> bytes:
    """The bytes of one message. Raises OSError (EMSGSIZE) for one that does not fit where it must travel."""
    payload = base64.b64encode(zlib.compress(message.text.encode())).decode()
    status = "SUCCESS" if message.succeeded else "FAILURE"
    sent = f"{message.kind} {status} {message.host_id} {message.epoch_s} {payload}".encode()
    if message.kind not in OVER_TCP and len(sent) > MOST_DATAGRAM_BYTES:
        raise OSError(errno.EMSGSIZE, "Message too long")
    return sent


def decode(received: bytes) -> Message | None:
    """The message in these bytes; None for what monitord does not understand, and only logs."""
    words = received.decode("ascii", errors="replace").split()
    kind = next((kind for kind in KINDS if words and kind == words[0]), None)
    if kind is None or len(words) < 4:
        return None
    try:
        data = zlib.decompress(base64.b64decode(words[4])) if len(words) > 4 else b""
        return Message(kind, words[1] == "SUCCESS", int(words[2]), int(words[3]), data.decode())
    except (ValueError, zlib.error):
        return None
