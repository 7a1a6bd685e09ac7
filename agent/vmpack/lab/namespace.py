"""Run a program as if libvirt's system folders were a lab's own, in namespaces of its own.

Run as root by the private daemon, around its reaper, and by `supervise`, below it (without a state folder:
then only the user names are added). It stands alone, like the reaper:

    python3 -I -S namespace.py [STATE_FOLDER HOST_NAME [ADDRESS [PROCESS]]] -- PROGRAM ARGUMENTS...

ADDRESS is the host's own in its network, which is that of PROCESS, or a new one that nobody else is in.

Debian's libvirt does not start as root where its user libvirt-qemu is missing, although the lab's guests
run as root; the package that makes this user also starts services, so the lab does without it and shows
libvirt such a user.
"""

import ctypes
import fcntl
import os
import socket
import struct
import sys
import tempfile

_CLONE_NEWNS = 0x00020000
_CLONE_NEWUTS = 0x04000000
_CLONE_NEWNET = 0x40000000
_MS_BIND = 0x1000
_MS_REC = 0x4000
_MS_PRIVATE = 0x40000
_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_SIOCSIFADDR = 0x8916
_IFF_UP = 1
_INTERFACE_REQUEST = "16sH14x"
_ADDRESS_REQUEST = "16s2s2x4s16x"

_OWN_FOLDERS = {
    "etc": "/etc/libvirt",
    "lib": "/var/lib/libvirt",
    "log": "/var/log/libvirt",
    "cache": "/var/cache/libvirt",
    "run": "/run/libvirt",
}
_USER_LINES = {
    "/etc/passwd": "libvirt-qemu:x:64055:64055::/:/usr/sbin/nologin\n",
    "/etc/group": "libvirt-qemu:x:64055:\n",
}


class Namespace:
    """The calling thread's own view of the machine, from now on. Raises OSError where that is forbidden."""

    def __init__(self, flags: int = 0) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._check(self._libc.unshare(_CLONE_NEWNS | flags), "unshare")
        self._check(self._libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None), "mount /")

    def add_users(self) -> None:
        """Show libvirt the user it insists on, where there is none."""
        for path, line in _USER_LINES.items():
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                text = file.read()
            if f"\n{line.partition(':')[0]}:" in f"\n{text}":
                continue
            with tempfile.NamedTemporaryFile("w", dir="/run", errors="surrogateescape") as changed:
                changed.write(text if not text or text.endswith("\n") else text + "\n")
                changed.write(line)
                changed.flush()
                os.chmod(changed.name, 0o644)
                self._bind(changed.name, path)

    def use_folders(self, state: str) -> None:
        """Put the lab's folders in the place of libvirt's."""
        for name, place in _OWN_FOLDERS.items():
            own = os.path.join(state, name)
            os.makedirs(own, mode=0o700, exist_ok=True)
            os.makedirs(place, exist_ok=True)
            self._bind(own, place)

    def join_network(self, process: str) -> None:
        """Be in the network of another process."""
        with open(f"/proc/{process}/ns/net", "rb") as network:
            self._check(self._libc.setns(network.fileno(), _CLONE_NEWNET), "setns")

    def _bind(self, source: str, place: str) -> None:
        self._check(self._libc.mount(source.encode(), place.encode(), None, _MS_BIND, None), f"mount {place}")

    def _check(self, result: int, what: str) -> None:
        if result != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), what)


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        request = struct.pack(_INTERFACE_REQUEST, b"lo", 0)
        flags = struct.unpack(_INTERFACE_REQUEST, fcntl.ioctl(handle, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(handle, _SIOCSIFFLAGS, struct.pack(_INTERFACE_REQUEST, b"lo", flags | _IFF_UP))


def _add_address(address: str) -> None:
    """Give the loopback interface one more address, under a name of its own."""
    label = f"lo:{address.rpartition('.')[2]}".encode()
    request = struct.pack(
        _ADDRESS_REQUEST, label, socket.AF_INET.to_bytes(2, sys.byteorder), socket.inet_aton(address)
    )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        fcntl.ioctl(handle, _SIOCSIFADDR, request)


def main() -> None:
    """The program: see the top of this file."""
    split = sys.argv.index("--")
    argv = sys.argv[split + 1 :]
    if split == 1:
        Namespace().add_users()
    else:
        state, host_name, *network = sys.argv[1:split]
        namespace = Namespace(_CLONE_NEWUTS | _CLONE_NEWNET)
        if len(network) > 1:
            namespace.join_network(network[1])
        namespace.add_users()
        namespace.use_folders(state)
        socket.sethostname(host_name)
        _raise_loopback()
        if network:
            _add_address(network[0])
    os.execvp(argv[0], argv)


if __name__ == "__main__":
    main()
