"""Has what was learned of VMs written into their metadata, so that it goes where they go.

Called by the loop after each turn in which it may act, and before an action of the cloud. Promises to write
little: a VM at most every ten minutes, only when a reader would decide otherwise by it, few VMs in one turn;
and to fail quietly, for all of it is known here too.
"""

from __future__ import annotations

import logging
from typing import Protocol

from vmpack.decide.lesson import is_news, lesson
from vmpack.errors import GuestGoneError, VmpackError
from vmpack.model.guest import GuestSnapshot
from vmpack.model.host import HostSnapshot
from vmpack.model.learned import Learned
from vmpack.model.plan import Remembered

log = logging.getLogger(__name__)

LOOK_EVERY_S = 600.0
MOST_LOOKS = 100
MOST_WRITES = 3
MOST_TOLD = 10


class LearnedWriter(Protocol):
    """Where it is written."""

    def write_learned(self, uuid: str, learned: Learned | None) -> None:
        """Replace what was learned, in Unix time; None removes it. Raises VmpackError."""
        ...

    def vms_with_learned(self) -> tuple[str, ...]:
        """The uuids of all VMs with something learned. Raises VmpackError."""
        ...


class Lessons:
    """What of each VM stands in its metadata, as far as this agent knows."""

    def __init__(self, writer: LearnedWriter) -> None:
        self._writer = writer
        self._written: dict[str, Learned | None] = {}
        self._looked_s: dict[str, float] = {}

    def keep(self, snapshot: HostSnapshot, remembered: Remembered) -> None:
        """Write what is news. Never raises for what a VM or libvirt does."""
        here = {guest.uuid for guest in snapshot.guests}
        self._written = {uuid: learned for uuid, learned in self._written.items() if uuid in here}
        self._looked_s = {uuid: looked_s for uuid, looked_s in self._looked_s.items() if uuid in here}
        looks = writes = 0
        for guest in snapshot.guests:
            self._written.setdefault(guest.uuid, guest.learned)
            if self._is_due(guest.uuid, snapshot.time_s):
                looks += 1
                writes += self.keep_of(guest, snapshot, remembered)
            if looks == MOST_LOOKS or writes == MOST_WRITES:
                return

    def keep_of(self, guest: GuestSnapshot, snapshot: HostSnapshot, remembered: Remembered) -> bool:
        """Write what is news of this one VM, now; True when something was."""
        known = remembered.guests.get(guest.uuid)
        if known is None or known.carried is not None or guest.job is not None:
            return False
        self._looked_s[guest.uuid] = snapshot.time_s
        found = lesson(known, snapshot.time_s)
        if not is_news(self._written.get(guest.uuid, guest.learned), found):
            return False
        self._write(guest, found, snapshot.wall_s - snapshot.time_s)
        return True

    def forget_all(self) -> None:
        """Take it out of every VM's metadata, also of those that do not run; what cannot be is said."""
        self._written, self._looked_s = {}, {}
        failures: list[str] = []
        try:
            uuids = self._writer.vms_with_learned()
        except VmpackError as error:
            uuids, failures = (), [str(error)]
        for uuid in uuids:
            try:
                self._writer.write_learned(uuid, None)
            except GuestGoneError:
                continue
            except VmpackError as error:
                failures.append(str(error))
        if failures:
            told = "; ".join(failures[:MOST_TOLD]) + "; ..." * (len(failures) > MOST_TOLD)
            log.warning("what was learned of VMs stays in their metadata, %d times: %s", len(failures), told)

    def _is_due(self, uuid: str, now_s: float) -> bool:
        looked_s = self._looked_s.get(uuid)
        return looked_s is None or now_s - looked_s >= LOOK_EVERY_S

    def _write(self, guest: GuestSnapshot, found: Learned | None, wall_less_time_s: float) -> None:
        unix = None if found is None else found._replace(written_s=found.written_s + wall_less_time_s)
        try:
            self._writer.write_learned(guest.uuid, unix)
        except VmpackError as error:
            log.debug("what was learned of %s is written later: %s", guest.name, error)
        else:
            self._written[guest.uuid] = found
