"""One migration of `web` from `here` to `there`, on the hosts in memory of fake_hosts.py."""

from __future__ import annotations

import pytest

from tests.fake_hosts import NOMINAL, UUID, World
from vmpack.act import migration
from vmpack.act.migration import Migrator
from vmpack.clock import SystemClock
from vmpack.model.migration import Migrate, MigrationOutcome

ACTION = Migrate(UUID, "web", "there", NOMINAL, timeout_s=600.0)


def without_waiting(patch: pytest.MonkeyPatch) -> None:
    """Nobody waits for hosts that never change."""
    patch.setattr(migration, "POLL_S", 0.005)
    patch.setattr(migration, "SETTLE_S", 0.05)
    patch.setattr(migration, "ABORT_DEADLINE_S", 0.05)


def carry_out(world: World, action: Migrate = ACTION, clock: SystemClock | None = None) -> MigrationOutcome:
    """What comes of it."""
    return Migrator("here", clock or SystemClock(), connect=world.connect).carry_out(action)
