"""A guest that lies about its balloon, for real: it writes the device's `actual` past its own driver.

The virtio PCI configuration window (virtio 1.2, 4.1.4.9) lets the guest's root write any register of the
device through PCI configuration space; QEMU believes what it finds there.
"""

from __future__ import annotations

import struct

from vmpack.lab.lab import LabGuest
from vmpack.units import KIB

_DEVICE_CONFIGURATION, _WINDOW = 4, 5
_ACTUAL_AT = 4
_PAGE_BYTES = 4 * KIB


class BalloonLiar:
    """One guest's balloon device, as its root can reach it."""

    def __init__(self, guest: LabGuest) -> None:
        self._guest = guest
        driver = "/sys/bus/virtio/drivers/virtio_balloon"
        self._path = f"{self._shell(f'readlink -f {driver}/virtio*/..').strip()}/config"
        space = bytes.fromhex(self._shell(f"hexdump -v -e '1/1 \"%02x\"' {self._path}").strip())
        found = _virtio_capabilities(space)
        self._window_at = found[_WINDOW]
        bar_at = found[_DEVICE_CONFIGURATION] + 4
        self._bar, self._offset = space[bar_at], int.from_bytes(space[bar_at + 4 : bar_at + 8], "little")

    def claim_given(self, amount_bytes: int) -> None:
        """Say that the balloon has taken so much, whatever it has; more than the guest has is possible."""
        for at, value in (
            (4, self._bar),
            (8, self._offset + _ACTUAL_AT),
            (12, 4),
            (16, amount_bytes // _PAGE_BYTES),
        ):
            self._write(self._window_at + at, value)

    def stop(self) -> None:
        """Tell the truth again: the driver starts anew, with an empty balloon."""
        self._shell("rmmod virtio_balloon && insmod /lib/virtio_balloon.ko")

    def _write(self, at: int, value: int) -> None:
        letters = "".join(f"\\{byte:03o}" for byte in struct.pack("<I", value))
        self._shell(f"printf '{letters}' | dd of={self._path} bs=4 count=1 seek={at // 4} conv=notrunc")

    def _shell(self, script: str) -> str:
        answer = self._guest.control.run(["sh", "-c", f"{script} 2> /dev/null"])
        assert answer.exit_code == 0, answer
        return answer.output


def _virtio_capabilities(space: bytes) -> dict[int, int]:
    """Where the device's virtio capabilities (vendor specific, 9) are, by their type."""
    found, at = {}, space[0x34]
    while at:
        if space[at] == 9:
            found[space[at + 3]] = at
        at = space[at + 1]
    return found
