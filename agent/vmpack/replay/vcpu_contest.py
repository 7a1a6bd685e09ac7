"""Scenes of pins under policies, and what they come to: one row for each of both.

Called by `vmpack simulate vcpu` and by tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from vmpack.replay.processes import play_all
from vmpack.replay.vcpu_board import board_of
from vmpack.replay.vcpu_exact import MOST_NODES, Exact, exact
from vmpack.replay.vcpu_host import SimulatedHost
from vmpack.replay.vcpu_policy import VcpuFacts, VcpuPolicyFactory
from vmpack.replay.vcpu_scene import Scene

STEADY_S = 600.0
"""So long it must hold still."""
ALLOWED_POINTS = 1.0
"""Above the best possible, where that is above the target, counts as balanced."""
NEW_INTERVALS = 3
"""So long a load is new: what is changed until then is no late change."""
LEAD_INTERVALS = 30
"""So long after the last change it may take to get there."""


class VcpuRow(TypedDict):
    scene: str
    policy: str
    std_points: float
    optimal_std_points: float | None
    intervals_to_balance: int | None
    pin_changes: int
    optimum: int | None
    late_changes: int
    delay_p99: float
    pins_per_hour: float


@dataclass(frozen=True, slots=True)
class VcpuCourse:
    """What came to pass under one policy, look by look."""

    std_points: tuple[float, ...]
    """After what was decided at this look."""
    changes: tuple[int, ...]
    """Masks, at this look."""
    wait_ratios: tuple[tuple[float, ...], ...]
    """Of each vCPU, in the interval after it."""


@dataclass(frozen=True, slots=True)
class VcpuContest:
    """How scenes are played."""

    interval_s: float
    target_points: float
    policies: Mapping[str, VcpuPolicyFactory]
    most_nodes: int = MOST_NODES

    def rows(
        self, scenes: Sequence[Scene], workers: int = 1, progress: Callable[[], None] = lambda: None
    ) -> list[VcpuRow]:
        """Play all. Raises UnavailableError when a worker dies."""
        return [row for rows in play_all(self.scene_rows, scenes, workers, progress) for row in rows]

    def scene_rows(self, scene: Scene) -> list[VcpuRow]:
        """One scene under all policies."""
        best = self.best(scene)
        return [
            self._row(scene, name, self.play(scene, make, best), best) for name, make in self.policies.items()
        ]

    def best(self, scene: Scene) -> Exact:
        """What could be done at best, from where all sit once the last VM has come or gone."""
        host = SimulatedHost(scene, self.interval_s)
        while host.looks < scene.changes_at:
            host.run()
        return exact(board_of(host), self.target_points, self.most_nodes)

    def play(self, scene: Scene, make: VcpuPolicyFactory, best: Exact) -> VcpuCourse:
        """One scene under one policy."""
        host = SimulatedHost(scene, self.interval_s)
        policy = make(VcpuFacts(self.interval_s, self.target_points, best, scene.changes_at))
        looks = scene.intervals or scene.changes_at + LEAD_INTERVALS + self._steady
        stds, changes, waits = [], [], []
        for _ in range(looks):
            changes.append(host.carry_out(policy.decide(host.look())))
            host.settle()
            stds.append(host.std_points())
            threads = host.threads
            host.run()
            waits.append(tuple(thread.wait_ratio for thread in threads))
        return VcpuCourse(tuple(stds), tuple(changes), tuple(waits))

    @property
    def _steady(self) -> int:
        return max(1, round(STEADY_S / self.interval_s))

    def _row(self, scene: Scene, name: str, course: VcpuCourse, best: Exact) -> VcpuRow:
        at = self._balanced_at(scene, course, best)
        looks = len(course.changes)
        still = looks - self._steady if at is None else max(at, scene.changes_at + NEW_INTERVALS) + 1
        waits = sorted(wait for interval in course.wait_ratios[still:] for wait in interval)
        return {
            "scene": scene.name,
            "policy": name,
            "std_points": course.std_points[-1],
            "optimal_std_points": best.std_points,
            "intervals_to_balance": None if at is None else at - scene.changes_at,
            "pin_changes": sum(course.changes[:still]),
            "optimum": None if _has_shared_cores(scene) else best.changes,
            "late_changes": sum(course.changes[still : still + self._steady]),
            "delay_p99": waits[min(len(waits) - 1, len(waits) * 99 // 100)],
            "pins_per_hour": sum(course.changes) / (looks * self.interval_s / 3600),
        }

    def _balanced_at(self, scene: Scene, course: VcpuCourse, best: Exact) -> int | None:
        """The first look from which it is even enough, to the end and for as long as it must hold still."""
        bound = max(self.target_points, (best.std_points or 0.0) + ALLOWED_POINTS)
        at = len(course.std_points)
        while at > scene.changes_at and course.std_points[at - 1] <= bound + 1e-9:
            at -= 1
        return at if at + self._steady < len(course.std_points) else None


def _has_shared_cores(scene: Scene) -> bool:
    """Busy vCPUs that share a core are moved apart, of which the search for the optimum knows nothing."""
    return len({pcpu.core for pcpu in scene.pcpus}) < len(scene.pcpus)
