"""Many draws under many policies of offers, and what they come to: one row per policy and demand scale.

Called by `vmpack simulate grant` and by benchmarks.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any, NamedTuple

import numpy as np

from vmpack.replay.choice import family
from vmpack.replay.grant_draw import grant_draw
from vmpack.replay.grant_policies import ORACLE, OURS
from vmpack.replay.grant_policy import GrantFactory
from vmpack.replay.grant_simulation import GrantScore, run_grant
from vmpack.replay.processes import play_all
from vmpack.replay.trace import Trace
from vmpack.replay.world import World

RESAMPLES = 2000
UPPER_PERCENTILE = 95
NEVER_SEEN = 3.0
"""What was not seen in n independent trials has a chance of at most 3/n, with 95 % confidence."""


class GrantMatch(NamedTuple):
    """One draw under one policy."""

    policy: str
    demand_scale: float
    draw: int


@dataclass(frozen=True, slots=True)
class GrantContest:
    """The trace, how draws are made of it, and how the cloud acts."""

    trace: Trace
    world: World
    vms: int
    seed: int
    every_s: float
    """Between two VMs that would come."""
    reaction_s: float
    policies: Mapping[str, GrantFactory]

    def play(self, match: GrantMatch) -> GrantScore:
        """Simulate one match."""
        drawn = grant_draw(
            self.trace, self.world, self.vms, self.seed, match.draw, self.every_s, match.demand_scale
        )
        return run_grant(drawn, self.policies[match.policy], self.world.step_s, self.reaction_s)

    def rows(
        self,
        demand_scales: Sequence[float],
        draws: int,
        workers: int,
        progress: Callable[[], None] = lambda: None,
    ) -> list[dict[str, Any]]:
        """Play all and add up. Raises UnavailableError when a worker dies."""
        groups = list(itertools.product(demand_scales, self.policies))
        matches = [GrantMatch(name, scale, number) for scale, name in groups for number in range(draws)]
        scores = play_all(self.play, matches, workers, progress)
        found = [
            self._row(name, scale, scores[place * draws : (place + 1) * draws])
            for place, (scale, name) in enumerate(groups)
        ]
        return [_compared(row, found) for row in found]

    def _row(self, name: str, scale: float, scores: Sequence[GrantScore]) -> dict[str, Any]:
        moments = sum(sum(score.offered) for score in scores)
        windows = moments * self.world.step_s / self.reaction_s
        over = sum(sum(score.over) for score in scores)
        return {
            "policy": name,
            "demand_scale": scale,
            "bound": float(name.partition(":")[2]) if family(name) == OURS else None,
            "draws": len(scores),
            "vm_hours_extra": mean(score.vm_hours for score in scores),
            "gb_hours_extra": mean(score.gb_hours for score in scores),
            "short_gbh": mean(score.short_gbh for score in scores),
            "migrations": mean(score.migrations for score in scores),
            "observed_shortage_probability": over / moments if moments else None,
            "observed_upper_95": min(1.0, max(_upper(scores), NEVER_SEEN / windows)) if moments else None,
        }


def _upper(scores: Sequence[GrantScore]) -> float:
    """The upper end of what the observed chance may be: draws are drawn again, and hours within each.

    Only moments with an offer count: a policy that seldom offers gains nothing by that. Moments of an hour
    depend on each other, and hours of one draw have its VMs in common.
    """
    random = np.random.default_rng(0)
    offered = np.array([score.offered for score in scores], dtype=np.float64)
    over = np.array([score.over for score in scores], dtype=np.float64)
    draws, hours = over.shape
    which = random.integers(draws, size=(RESAMPLES, draws, 1))
    when = random.integers(hours, size=(RESAMPLES, draws, hours))
    sums, of = (values[which, when].sum(axis=(1, 2)) for values in (over, offered))
    return float(np.percentile(sums / np.maximum(of, 1.0), UPPER_PERCENTILE))


def _compared(row: dict[str, Any], rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The row with its VM-hours over the oracle's, and over the best rival's at the same shortage."""
    if family(row["policy"]) != OURS:
        return row
    alike = [other for other in rows if other["demand_scale"] == row["demand_scale"]]
    oracle = next((other["vm_hours_extra"] for other in alike if other["policy"] == ORACLE), None)
    rivals: dict[str, list[tuple[float, float]]] = {}
    for other in alike:
        if family(other["policy"]) not in (OURS, ORACLE):
            points = rivals.setdefault(family(other["policy"]), [])
            points.append((other["short_gbh"], other["vm_hours_extra"]))
    hours = {name: hours_at(points, row["short_gbh"]) for name, points in rivals.items()}
    best = max(hours, key=lambda name: hours[name], default=None)
    return row | {
        "over_oracle": _ratio(row["vm_hours_extra"], oracle),
        "best_rival": best,
        "over_best_rival": None if best is None else _ratio(row["vm_hours_extra"], hours[best]),
    }


def _ratio(ours: float, others: float | None) -> float | None:
    return ours / others if others else None


def hours_at(points: Sequence[tuple[float, float]], short_gbh: float) -> float:
    """The VM-hours that a rival comes to at this shortage, between its settings: (shortage, VM-hours) each.

    A setting that comes to less with more shortage is not used; one can always offer nothing.
    """
    shorts, hours = [0.0], [0.0]
    for short, found in sorted(points):
        if short == shorts[-1]:
            hours[-1] = max(hours[-1], found)
        elif found > hours[-1]:
            shorts.append(short)
            hours.append(found)
    return float(np.interp(short_gbh, shorts, hours))
