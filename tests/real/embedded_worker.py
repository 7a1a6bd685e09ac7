"""A program with an embedded lab, run below `supervise` by test_lab_embedded.

`balloon` measures one run and ends; `hang` waits for its end.
"""

from __future__ import annotations

import json
import sys
import time

from tests.waiting import eventually
from vmpack.lab.guest_spec import GuestSpec
from vmpack.lab.lab import Lab, LabGuest
from vmpack.units import KIB, MIB


def balloon(guest: LabGuest) -> dict[str, int]:
    """Use and free memory, then shrink from 256 to 160 MiB; the host memory that each step left."""
    guest.control.load_anonymous(140 * MIB)
    eventually("the load", lambda: guest.control.progress()[0].state == "done")
    guest.control.free()
    used_bytes = guest.rss_bytes()
    guest.domain.setMemory(160 * MIB // KIB)
    eventually("the balloon", lambda: guest.domain.memoryStats()["actual"] == 160 * MIB // KIB)
    return {
        "used": used_bytes,
        "ballooned": guest.rss_bytes(),
        "available": guest.control.mem().available_bytes,
    }


def main() -> None:
    """Print one JSON line, and hang if told so."""
    with Lab.embedded() as lab:
        (guest,) = lab.start(GuestSpec("e1", memory_bytes=256 * MIB, free_page_reporting=False))
        answer: dict[str, object] = {"pid": guest.pid, "root": str(lab.state.root)}
        if sys.argv[1] == "balloon":
            lab.wait_ready()
            answer |= balloon(guest)
        print(json.dumps(answer), flush=True)
        if sys.argv[1] == "hang":
            time.sleep(1000)


if __name__ == "__main__":
    main()
