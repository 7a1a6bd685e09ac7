"""Who is at the other end of a Unix socket, and what that one may do.

Called by vmpack.host.server for every connection; the kernel vouches for the answer.
"""

from __future__ import annotations

import errno
import grp
import os
import socket
import struct
from dataclasses import dataclass

from vmpack.errors import ConfigError

_SO_PEERGROUPS = 59
_CREDENTIALS = struct.Struct("iII")
_GROUPS_MAX_BYTES = 1024
"""The most that Python asks for: 256 groups."""


@dataclass(frozen=True, slots=True)
class Rights:
    """Who may ask, and who may change."""

    group_id: int | None
    """Members of this group may ask."""
    group_may_change: bool

    def may_read(self, peer: Peer) -> bool:
        """Root, the agent's own user, and members of the group."""
        return peer.uid in (0, os.geteuid()) or self.group_id in peer.group_ids

    def may_change(self, peer: Peer) -> bool:
        """Root and the agent's own user; members of the group where the configuration says so."""
        return peer.uid in (0, os.geteuid()) or (self.group_may_change and self.may_read(peer))


@dataclass(frozen=True, slots=True)
class Peer:
    """A process at the other end."""

    pid: int
    uid: int
    group_ids: frozenset[int]


def peer_of(connection: socket.socket) -> Peer:
    """The process that opened the connection, as it was then. Raises OSError.

    Of a process in more than 256 groups only the main one counts.
    """
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(raw)
    try:
        groups = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_MAX_BYTES)
    except OSError as error:
        if error.errno != errno.ERANGE:
            raise
        groups = b""
    return Peer(pid, uid, frozenset({gid, *struct.unpack(f"{len(groups) // 4}I", groups)}))


def group_id(name: str | None) -> int | None:
    """The number of a group. Raises ConfigError when there is none of that name."""
    if name is None:
        return None
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError as error:
        raise ConfigError(
            f"agent.socket_group: there is no group {name!r} on this host",
            f"create it: groupadd --system {name}",
        ) from error
