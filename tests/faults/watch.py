"""What libvirt says of all balloons while an agent is struck, a look every tenth of a second."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from time import monotonic
from types import TracebackType

from tests.faults.injector import Passage
from tests.real.agent_process import balloon_bytes
from vmpack.lab.lab import LabGuest
from vmpack.units import KIB

PERIOD_S = 0.1


@dataclass(frozen=True, slots=True)
class Look:
    """All balloons at one moment, in bytes by guest; `time_s` is on the monotonic clock."""

    time_s: float
    balloons: dict[str, int]


class BalloonWatch:
    """Looks from `with` to its end, on a connection that is not the agent's."""

    def __init__(self, guests: list[LabGuest]) -> None:
        self.looks: list[Look] = []
        self._guests = guests
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="balloon watch", daemon=True)

    def __enter__(self) -> BalloonWatch:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(PERIOD_S):
            self.looks.append(Look(monotonic(), {guest.name: balloon_bytes(guest) for guest in self._guests}))

    def most_held(self, trace: list[Passage], until_s: float) -> tuple[int, str]:
        """The most that all guests held at one look: their balloons, or what they were last promised.

        A promise counts from the call that made it. Returns bytes and a description of that look.
        """
        orders = _orders(trace)
        most, told = 0, "nothing was seen"
        for look in self.looks:
            if look.time_s > until_s:
                break
            held = {
                name: max([size, *_promise(orders.get(name, []), look.time_s)])
                for name, size in look.balloons.items()
            }
            if sum(held.values()) > most:
                most, told = sum(held.values()), f"balloons {look.balloons}, held {held}"
        return most, told

    def least(self, name: str) -> int:
        """The smallest balloon that this guest was seen with."""
        return min(look.balloons[name] for look in self.looks)


def _orders(trace: list[Passage]) -> dict[str, list[tuple[float, int]]]:
    orders: dict[str, list[tuple[float, int]]] = {}
    for passage in trace:
        call, _, rest = passage.point.partition(" ")
        if call == "setMemoryFlags" and passage.when == "before" and passage.detail is not None:
            name = rest.rpartition(" #")[0]
            orders.setdefault(name, []).append((passage.time_s, passage.detail * KIB))
    return orders


def _promise(orders: list[tuple[float, int]], time_s: float) -> list[int]:
    """The size of the last order before this moment, if there was one."""
    given = [size for ordered_s, size in orders if ordered_s <= time_s]
    return given[-1:]
