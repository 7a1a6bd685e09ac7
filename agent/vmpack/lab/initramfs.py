"""An initramfs as bytes: an archive in cpio's "newc" form, made without root and the same every time.

Called by `image`. Owner is always root and every time stamp 0, so equal contents give equal bytes.
"""

import stat

_TRAILER = "TRAILER!!!"


class Initramfs:
    """Collects files, folders and links; folders above an entry are added by themselves."""

    def __init__(self) -> None:
        self._entries: dict[str, tuple[int, bytes, tuple[int, int]]] = {}

    def add_folder(self, path: str) -> None:
        """Add a folder, and those above it."""
        self._add(path, stat.S_IFDIR | 0o755, b"")

    def add_file(self, path: str, content: bytes, executable: bool = False) -> None:
        """Add a file; a later one of the same path replaces it."""
        self._add(path, stat.S_IFREG | (0o755 if executable else 0o644), content)

    def add_link(self, path: str, target: str) -> None:
        """Add a symbolic link."""
        self._add(path, stat.S_IFLNK | 0o777, target.encode())

    def add_device(self, path: str, major: int, minor: int) -> None:
        """Add a character device that only root may open."""
        self._add(path, stat.S_IFCHR | 0o600, b"", (major, minor))

    def to_bytes(self) -> bytes:
        """The archive."""
        parts = [
            _entry(number, path, *entry)
            for number, (path, entry) in enumerate(sorted(self._entries.items()), 1)
        ]
        parts.append(_entry(0, _TRAILER, 0, b"", (0, 0)))
        archive = b"".join(parts)
        return archive + b"\0" * (-len(archive) % 512)

    def _add(self, path: str, mode: int, content: bytes, device: tuple[int, int] = (0, 0)) -> None:
        path = path.strip("/")
        above = path.rpartition("/")[0]
        if above and above not in self._entries:
            self.add_folder(above)
        self._entries[path] = (mode, content, device)


def _entry(number: int, path: str, mode: int, content: bytes, device: tuple[int, int]) -> bytes:
    name = path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(mode) else 1
    fields = (number, mode, 0, 0, links, 0, len(content), 0, 0, *device, len(name), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields) + name
    header += b"\0" * (-len(header) % 4)
    return header + content + b"\0" * (-len(content) % 4)
