"""Scenes of pins drawn by chance: small hosts of all kinds, so that the best that can be done is mostly
known.

In turn fewer vCPUs than pCPUs, as many, and more. By chance: pCPUs of two strengths, two threads a core, two
NUMA nodes, VMs of up to four vCPUs, bound to a node, pinned anywhere within it (by vmpack, for what
they wanted earlier) or left to the kernel, a VM whose owner pinned it. Same seed and number: same scene.
"""

from __future__ import annotations

from random import Random

from vmpack.model.vcpu import Pcpu
from vmpack.replay.vcpu_scene import Scene, SceneVcpu, SceneVm

WEAK_RATIO = 0.6
LARGEST_VM = 4


def drawn(seed: int, number: int) -> Scene:
    """The scene of this number, from 1."""
    random = Random(f"{seed} {number}")
    pcpus = _pcpus(random)
    count = len(pcpus)
    vcpus = (random.randint(count // 2, count - 1), count, random.randint(count + 1, 2 * count + 2))[
        (number - 1) % 3
    ]
    sizes = _sizes(random, vcpus)
    floats = random.random() < 0.4
    heavy_ratio = random.choice((0.2, 0.5, 0.8))
    owned = random.randrange(len(sizes)) if len(sizes) > 2 and random.random() < 0.25 else -1
    vms = tuple(
        _vm(random, f"vm{place + 1}", size, pcpus, heavy_ratio, floats and place != owned, place == owned)
        for place, size in enumerate(sizes)
    )
    return Scene(f"random-{number:02d}", pcpus, vms, f"{seed} {number}")


def _pcpus(random: Random) -> tuple[Pcpu, ...]:
    count = random.choice((3, 4, 5, 6, 6, 8))
    halves = count % 2 == 0
    nodes = 2 if halves and random.random() < 0.35 else 1
    threads = 2 if halves and random.random() < 0.35 else 1
    weak = threads == 1 and random.random() < 0.3
    return tuple(
        Pcpu(
            number,
            node=number * nodes // count,
            cache=number * nodes // count,
            core=number // threads,
            capacity_ratio=WEAK_RATIO if weak and number >= count // 2 else 1.0,
        )
        for number in range(count)
    )


def _sizes(random: Random, vcpus: int) -> list[int]:
    sizes: list[int] = []
    while (left := vcpus - sum(sizes)) > 0:
        sizes.append(min(left, random.choice((1, 1, 1, 2, 2, 3, LARGEST_VM))))
    return sizes


def _vm(
    random: Random,
    name: str,
    size: int,
    pcpus: tuple[Pcpu, ...],
    heavy_ratio: float,
    floats: bool,
    owned: bool,
) -> SceneVm:
    nodes = sorted({pcpu.node for pcpu in pcpus})
    home = random.choice(nodes)
    near = [pcpu.number for pcpu in pcpus if pcpu.node == home]
    if len(near) < size:
        near = [pcpu.number for pcpu in pcpus]
    bound = len(nodes) > 1 and len(near) < len(pcpus) and random.random() < 0.5
    seats = random.sample(near, size) if size <= len(near) else random.choices(near, k=size)
    heavy = random.random() < heavy_ratio
    vcpus = []
    for seat in seats:
        demand = 1.0 if heavy else random.randrange(5, 100, 5) / 100
        if floats:
            vcpus.append(SceneVcpu(demand, tuple(near) if bound else ()))
        else:
            vcpus.append(SceneVcpu(demand, (seat,), seat))
    return SceneVm(name, tuple(vcpus), "owner_mask" if owned else None, (home,) if bound else ())
