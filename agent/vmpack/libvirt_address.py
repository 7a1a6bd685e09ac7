"""What an address of libvirt (qemu:///system) says of the libvirt behind it.

Called by hypervisor.py. Pure but for the owner of a socket's file.
"""

from __future__ import annotations

import os
import urllib.parse


def start_hint(uri: str) -> str:
    """What to do when nothing answers at this address."""
    parts = urllib.parse.urlsplit(uri)
    path = parts.path
    if own_socket := urllib.parse.parse_qs(parts.query).get("socket"):
        return (
            f"nothing answers on {own_socket[0]}: start the libvirt (or the lab) that this socket belongs to"
        )
    if path == "/embed":
        return "install libvirt-daemon-driver-qemu; only one process at a time can have an embedded root"
    if path == "/session":
        return "install libvirt-daemon and libvirt-daemon-driver-qemu, and do not run as root"
    if path == "/system":
        return (
            "install libvirt-daemon-system (Debian, Ubuntu) or libvirt-daemon-kvm (EL), "
            "then: systemctl enable --now libvirtd, or virtqemud.socket where there is no libvirtd"
        )
    return "check the address; virsh --connect URI list should answer"


def mode_of(asked_uri: str, answered_uri: str) -> str:
    """The part of an identity that tells two libvirts of one machine from one another."""
    parts = urllib.parse.urlsplit(answered_uri)
    query = urllib.parse.parse_qs(urllib.parse.urlsplit(asked_uri).query)
    mode = parts.path.strip("/") or "default"
    if mode == "embed":
        return f"embed:{os.path.realpath(urllib.parse.parse_qs(parts.query)['root'][0])}"
    if mode == "session":
        return f"session:{_owner_uid(query.get('socket', [''])[0])}"
    return mode


def _owner_uid(socket_path: str) -> int:
    try:
        return os.stat(socket_path).st_uid
    except OSError:
        return os.geteuid()
