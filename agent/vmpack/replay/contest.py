"""Many draws under many policies, on several processors.

Called by `vmpack simulate memory`. The scores do not depend on how many processes work, nor on their order.
"""

from __future__ import annotations

import itertools
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import NamedTuple

from vmpack.errors import UnavailableError
from vmpack.replay.draw import draw
from vmpack.replay.policies import policies
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
        scores: dict[int, Score] = {}
        for place, score in self._played(matches, workers):
            scores[place] = score
            progress()
        return [scores[place] for place in range(len(matches))]

    def _played(self, matches: Sequence[Match], workers: int) -> Iterator[tuple[int, Score]]:
        if workers == 1 or len(matches) == 1:
            for place, match in enumerate(matches):
                yield place, self.play(match)[0]
            return
        executor = ProcessPoolExecutor(
            workers, multiprocessing.get_context("fork"), initializer=_begin, initargs=(self,)
        )
        try:
            places = {executor.submit(_play, match): place for place, match in enumerate(matches)}
            for done in as_completed(places):
                yield places[done], done.result()
        except BrokenProcessPool as error:
            hint = "it may have run out of memory: try fewer --vms, or --jobs 1"
            raise UnavailableError("a process of the simulation was killed", hint) from error
        finally:
            executor.shutdown(cancel_futures=True)


_contest: Contest | None = None


def _begin(contest: Contest) -> None:
    """In a worker: Ctrl-C ends it without words, the parent tells."""
    global _contest
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _contest = contest


def _play(match: Match) -> Score:
    assert _contest is not None
    return _contest.play(match)[0]


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
