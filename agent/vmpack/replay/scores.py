"""What many draws come to: one row per policy, stance, overcommitment and demand scale.

Called by `vmpack simulate memory` and by benchmarks. Medians are over all draws, infeasible ones too;
`short_gbh_worst` is that of the worst feasible draw, None where there is none.
"""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median
from typing import Any

from vmpack.replay.simulation import Score

Row = dict[str, Any]


def rows(scores: Iterable[Score]) -> list[Row]:
    """One row for each group of scores, in the order in which the groups first appear."""
    groups: dict[tuple[str, str, float, float], list[Score]] = {}
    for score in scores:
        key = (score.policy, score.stance, score.overcommit, score.demand_scale)
        groups.setdefault(key, []).append(score)
    return [_row(group) for group in groups.values()]


def _row(group: list[Score]) -> Row:
    first = group[0]
    feasible = [score.short_gbh for score in group if score.feasible]
    return {
        "policy": first.policy,
        "stance": first.stance,
        "overcommit": first.overcommit,
        "demand_scale": first.demand_scale,
        "draws": len(group),
        "infeasible_draws": len(group) - len(feasible),
        "balloon_ratio_median": median(score.balloon_ratio for score in group),
        "short_gbh_median": median(score.short_gbh for score in group),
        "short_gbh_worst": max(feasible, default=None),
        "short_vm_min_median": median(score.short_vm_min for score in group),
        "host_over_min_worst": max(score.host_over_min for score in group),
        "ops_per_vm_h_median": median(score.ops_per_vm_h for score in group),
        "cache_loss_ratio": median(score.cache_loss_ratio for score in group),
        "cache_throughput_ratio": median(score.cache_throughput_ratio for score in group),
    }
