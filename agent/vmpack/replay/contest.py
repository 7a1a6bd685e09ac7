"""Many draws under many policies, on several processors.

Called by `vmpack simulate memory`. The scores do not depend on how many processes work, nor on their order.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from vmpack.replay.draw import draw
from vmpack.replay.policies import policies
from vmpack.replay.processes import play_all
from vmpack.replay.simulation import Course, Score, run
from vmpack.replay.trace import Trace
from vmpack.replay.world import World


class Match(NamedTuple):
    """One draw under one policy."""

    policy: str
    """As in replay/policies.py."""
    overcommit: float
    demand_scale: float
    draw: int


@dataclass(frozen=True, slots=True)
class Contest:
    """The trace, and how draws are made of it."""

    trace: Trace
    world: World
    vms: int
    seed: int

    def play(self, match: Match) -> tuple[Score, Course]:
        """Simulate one match."""
        drawn = draw(self.trace, self.vms, self.seed, match.draw)
        return run(drawn, self.world, policies()[match.policy], match.overcommit, match.demand_scale)

    def play_all(
        self, matches: Sequence[Match], workers: int, progress: Callable[[], None] = lambda: None
    ) -> list[Score]:
        """Simulate all; `progress` is told of each. Raises UnavailableError when a worker dies."""
        return play_all(lambda match: self.play(match)[0], matches, workers, progress)


def matches(
    names: Sequence[str], overcommits: Sequence[float], demand_scales: Sequence[float], draws: int
) -> list[Match]:
    """Every combination, one row's draws after another's."""
    return [
        Match(name, overcommit, scale, number)
        for overcommit, scale, name, number in itertools.product(
            overcommits, demand_scales, names, range(draws)
        )
    ]
