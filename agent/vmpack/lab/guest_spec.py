"""What a lab guest shall be: a frozen value that `domain_xml` turns into a domain.

Made by whoever starts guests: the command line, the demo, the tests.
"""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from vmpack.errors import UsageError
from vmpack.units import MIB, format_bytes

SMALLEST_GUEST_BYTES = 96 * MIB


@dataclass(frozen=True, slots=True)
class GuestSpec:
    """One guest. `memory_bytes` is its nominal; `stats_period_s` None leaves statistics off.

    Raises UsageError for sizes that cannot boot and names that libvirt or a file system would refuse.
    """

    name: str
    memory_bytes: int = 128 * MIB
    vcpus: int = 2
    autodeflate: bool = False
    free_page_reporting: bool = True
    stats_period_s: int | None = None
    uuid: str | None = None
    balloon: bool = True
    guest_agent: bool = True
    disks: tuple[Path, ...] = ()
    network: bool = False
    zram_swap_bytes: int = 0

    def __post_init__(self) -> None:
        if self.memory_bytes < SMALLEST_GUEST_BYTES:
            raise UsageError(
                f"{format_bytes(self.memory_bytes)} are too little: the guest would not boot",
                f"give it {format_bytes(SMALLEST_GUEST_BYTES)} or more",
            )
        if not 1 <= self.vcpus <= 255:
            raise UsageError(f"a guest cannot have {self.vcpus} vCPUs", "give it 1 to 255")
        if not self.name or "/" in self.name or self.name.startswith(".") or any(c < " " for c in self.name):
            raise UsageError(f"{self.name!r} is no name for a guest", "use letters, digits, dots and dashes")
        if len(self.file_name) > 40:
            raise UsageError(f"the name {self.name!r} is too long", "use 40 letters or fewer")

    @property
    def file_name(self) -> str:
        """The name as one plain word, for files, sockets and the kernel command line."""
        return quote(self.name, safe="")
