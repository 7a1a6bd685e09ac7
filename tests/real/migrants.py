"""Migrations for tests: begun in a thread, so that the test can break something while one is under way."""

from __future__ import annotations

import threading

from tests.waiting import PATIENCE_S, eventually
from vmpack.act.migration import Migrator
from vmpack.clock import SystemClock
from vmpack.lab.lab import Lab, LabGuest
from vmpack.model.migration import Migrate, MigrationOutcome, MigrationProgress
from vmpack.units import KIB, MIB

SLOW = MIB
"""A bandwidth with which even a tiny guest is on its way for more than a minute; see `hurry`."""
ONE_VCPU = 1
"""Without KVM a guest of two vCPUs has crashed after a slow migration (QEMU 7.2), one of one never."""
_FAST_MIB = 4096
FOREVER_S = 600.0


def migrate(
    guest: LabGuest, destination: Lab, *, timeout_s: float = FOREVER_S, bandwidth: int | None = None
) -> Migrate:
    """The wish to have this guest there."""
    nominal_bytes = int(guest.domain.maxMemory()) * KIB
    return Migrate(guest.uuid, guest.name, destination.uri, nominal_bytes, timeout_s, bandwidth)


class Underway:
    """One migration in a thread of its own."""

    def __init__(self, source: Lab, action: Migrate) -> None:
        self.progress: list[MigrationProgress] = []
        self._source, self._uuid = source, action.uuid
        self._clock = SystemClock()
        self._outcomes: list[MigrationOutcome] = []
        self._migrator = Migrator(source.uri, self._clock)
        self._thread = threading.Thread(target=self._work, args=(action,), daemon=True)
        self._thread.start()

    def _work(self, action: Migrate) -> None:
        self._outcomes.append(self._migrator.carry_out(action, self.progress.append))

    def moving(self) -> Underway:
        """This, once memory is really on its way."""
        eventually("memory moves", lambda: self._outcomes or any(p.moved_bytes for p in self.progress))
        assert not self._outcomes, self._outcomes
        return self

    def hurry(self) -> Underway:
        """This, from now on at full speed."""
        self._source.hypervisor.domain(self._uuid).migrateSetMaxSpeed(_FAST_MIB)
        return self

    def stop(self) -> None:
        """Ask it to stop, as Ctrl-C does."""
        self._clock.stop()

    def outcome(self, deadline_s: float = 2 * PATIENCE_S) -> MigrationOutcome:
        """What came of it, once it is over."""
        self._thread.join(deadline_s)
        assert self._outcomes, "the migration has no end"
        return self._outcomes[0]
