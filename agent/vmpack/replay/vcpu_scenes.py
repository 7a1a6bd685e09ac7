"""Which scenes of pins there are: published ones, drawn ones (vcpu_draw.py), and such with noise or a change.

The published ones are the CPU cases of the project that Georgia Tech's CS 6210 gives its students (five
cases, as in aten2001/CS6210-AOS, labs/project1): eight VMs of one vCPU on four pCPUs, under a loop that
computes and naps. Equal load is taken as one that never rests.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from vmpack.model.vcpu import Pcpu
from vmpack.replay.vcpu_draw import drawn
from vmpack.replay.vcpu_scene import Scene, SceneVcpu, SceneVm

KINDS = ("published", "random", "noise")
NOISE_RATIO = 0.1
_HEAVY, _LIGHT = 1.0, 0.5


def scenes(kinds: Sequence[str], seed: int, draws: int, noise_intervals: int) -> list[Scene]:
    """All of these kinds."""
    found: list[Scene] = []
    if "published" in kinds:
        found += published(seed)
    if "random" in kinds:
        found += [drawn(seed, number) for number in range(1, draws + 1)]
    if "noise" in kinds:
        found += [noise(seed, noise_intervals), vm_starts(), vm_stops()]
    return found


def published(seed: int) -> list[Scene]:
    """The five cases, in their order. In the last one chance seats two on each pCPU."""
    heavy = [_HEAVY] * 8
    heavy_and_light = [_HEAVY] * 4 + [_LIGHT] * 4
    seats = [0, 0, 1, 1, 2, 2, 3, 3]
    Random(f"published {seed}").shuffle(seats)
    return [
        ones("published-1", pinned(heavy, [0] * 8), 4),
        ones("published-2", pinned(heavy, [0, 3] * 4), 4),
        ones("published-3", pinned(heavy, [0, 1, 2, 3] * 2), 4),
        ones("published-4", floating(heavy, [0, 1, 2, 3] * 2), 4),
        ones("published-5", floating(heavy_and_light, seats), 4),
    ]


def noise(seed: int, intervals: int) -> Scene:
    """16 vCPUs pinned evenly on 8 pCPUs, each of which wants a tenth more or less in every interval."""
    random = Random(f"noise {seed}")
    demands = sorted((random.randrange(20, 95, 5) / 100 for _ in range(16)), reverse=True)
    loads = [0.0] * 8
    seats = []
    for demand in demands:
        seats.append(loads.index(min(loads)))
        loads[seats[-1]] += demand
    scene = ones("noise", pinned(demands, seats), 8)
    return scene._replace(
        pins_of="vmpack", noise_ratio=NOISE_RATIO, intervals=intervals, seed=f"noise {seed}"
    )


def vm_starts() -> Scene:
    """Four pCPUs with a heavy and a light VM each, and a ninth VM."""
    vcpus = [*pinned([0.8] * 4 + [0.3] * 4, [0, 1, 2, 3] * 2), SceneVcpu(0.5)]
    scene = ones("vm-starts", vcpus, 4)
    return scene._replace(vms=(*scene.vms[:-1], scene.vms[-1]._replace(starts=True)), changes_at=3)


def vm_stops() -> Scene:
    """Four pCPUs, evenly loaded; what loads one of them most goes."""
    vcpus = pinned([0.8, *[0.4] * 10], [0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3])
    scene = ones("vm-stops", vcpus, 4)
    return scene._replace(vms=(scene.vms[0]._replace(stops=True), *scene.vms[1:]), changes_at=3)


def pinned(demands: Sequence[float], cpus: Sequence[int]) -> list[SceneVcpu]:
    """vCPUs, each with one pCPU."""
    return [SceneVcpu(demand, (cpu,), cpu) for demand, cpu in zip(demands, cpus, strict=True)]


def floating(demands: Sequence[float], seats: Sequence[int]) -> list[SceneVcpu]:
    """vCPUs that may go anywhere, and where they are."""
    return [SceneVcpu(demand, (), seat) for demand, seat in zip(demands, seats, strict=True)]


def ones(name: str, vcpus: Sequence[SceneVcpu], pcpus: int) -> Scene:
    """Each vCPU in a VM of its own, on pCPUs that are alike."""
    return Scene(
        name,
        tuple(Pcpu(number, core=number) for number in range(pcpus)),
        tuple(SceneVm(f"vm{number}", (vcpu,)) for number, vcpu in enumerate(vcpus, 1)),
        name,
    )
