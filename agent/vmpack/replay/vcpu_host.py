"""A simulated host: pCPUs that share themselves among vCPUs, pinned or moved by the kernel.

An interval at a time. What each vCPU gets follows from a fluid model of a fair scheduler: a pCPU's time goes
to those on it alike, but to none more than it can use. A vCPU works off its demand and rests in between, of
its own accord and for as long as it would have without waiting. On a pCPU of capacity c, with demand d (of
the fastest) it uses at most u = (d/c) / (d/c + 1 - d) of the time; ran r and waited w then stand in r / (1 -
w) = u. A demand of 1 never rests. Siblings of a core do not slow each other, and moving costs nothing.

The kernel, for vCPUs that may go to several pCPUs ("floating"): one that rests now and then wakes up where a
pCPU is idle; so while there are idle ones, what such vCPUs want is poured over the pCPUs, to where least is
first. One that never rests, and all once no pCPU is idle for MOST_BUSY_RATIO of the time, sit: one that
starts, or may no longer be where it is, goes where the fewest sit; then, while one pCPU has two more than
another, or a stronger one has none, one of them is moved there. It counts vCPUs and does not weigh them: a
nap and a wait look alike to it. (The real one weighs what was runnable over the last tens of milliseconds,
and moves more often.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random
from statistics import pstdev

from vmpack.model.vcpu import MaskOwner, Pcpu, SetAffinity, VcpuSnapshot, VcpuState, VmVcpus
from vmpack.replay.vcpu_scene import Scene, SceneVcpu, SceneVm

NEVER_RESTS_RATIO = 0.99
"""Who wants more than this is never seen waking up."""
MOST_BUSY_RATIO = 0.95
"""Of its time; beyond it a pCPU counts as never idle."""
NOWHERE = -1
BEGUN_S = 1_000.0
BEGUN_WALL_S = 1_790_000_000.0


@dataclass(slots=True)
class Thread:
    """One vCPU as it is now."""

    vm: SceneVm
    number: int
    mean_ratio: float
    """What it wants on average; so is the next, in this interval."""
    demand_ratio: float
    cpus: tuple[int, ...]
    mask_of: MaskOwner
    seat: int
    """The pCPU where it is, or was last; NOWHERE before it ever ran."""
    run_ns: int = 0
    delay_ns: int = 0
    wait_ratio: float = 0.0
    """Of the last interval."""
    poured: dict[int, float] | None = None
    """Which part of what it wants it runs on which pCPU; None: it sits."""

    @property
    def floats(self) -> bool:
        """May the kernel move it?"""
        return len(self.cpus) != 1

    @property
    def rests(self) -> bool:
        """Does it wake up now and then?"""
        return self.mean_ratio <= NEVER_RESTS_RATIO


class SimulatedHost:
    """One host. `look`, `carry_out` and `run`, in this order, are one interval."""

    def __init__(self, scene: Scene, interval_s: float) -> None:
        self.scene = scene
        self.interval_s = interval_s
        self.looks = 0
        """How many intervals have passed."""
        self.pcpus = {pcpu.number: pcpu for pcpu in scene.pcpus}
        self._random = Random(scene.seed)
        self._all = [
            _thread(scene, vm, number, vcpu) for vm in scene.vms for number, vcpu in enumerate(vm.vcpus)
        ]
        self.threads: list[Thread] = []
        """Of the VMs that are there."""
        self._come_and_go()

    def look(self) -> VcpuSnapshot:
        """What an agent would see now."""
        by_vm: dict[str, list[Thread]] = {}
        for thread in self.threads:
            by_vm.setdefault(thread.vm.name, []).append(thread)
        vms = tuple(
            VmVcpus(uuid_of(name), name, tuple(map(_state, own)), own[0].vm.left_alone, own[0].vm.nodes)
            for name, own in by_vm.items()
        )
        passed_s = self.looks * self.interval_s
        return VcpuSnapshot(BEGUN_S + passed_s, BEGUN_WALL_S + passed_s, self.scene.pcpus, vms)

    def carry_out(self, actions: Iterable[SetAffinity]) -> int:
        """Change masks; how many. Raises ValueError for a change that an executor would have to refuse."""
        found = {(uuid_of(thread.vm.name), thread.number): thread for thread in self.threads}
        done = 0
        for action in actions:
            thread = found[action.uuid, action.number]
            allowed = thread.vm.left_alone is None and action.thread == "vcpu" and not action.gives_back
            if not allowed or action.from_cpus != thread.cpus or not self.pcpus.keys() >= set(action.to_cpus):
                raise ValueError(f"{action} is not to be carried out: {thread}")
            done += thread.cpus != action.to_cpus
            thread.cpus, thread.mask_of = action.to_cpus, "vmpack"
        return done

    def settle(self) -> None:
        """Whatever the kernel now moves is moved."""
        for thread in self.threads:
            thread.poured = None
        counts = Counter(thread.seat for thread in self.threads)
        for thread in self.threads:
            if thread.seat not in (thread.cpus or self.pcpus):
                counts[thread.seat] -= 1
                thread.seat = self._emptiest(thread, counts)
                counts[thread.seat] += 1
        while self._pour() and self._even_out():
            pass
        if not any(thread.poured for thread in self.threads):
            self._even_out()

    def run(self) -> None:
        """Let an interval pass: counters go on, then VMs come and go."""
        for thread in self.threads:
            spread = self.scene.noise_ratio
            thread.demand_ratio = min(
                1.0, thread.mean_ratio * (1 + (self._random.uniform(-spread, spread) if spread else 0.0))
            )
        for number, pcpu in self.pcpus.items():
            self._share(
                pcpu, [thread for thread in self.threads if thread.seat == number and not thread.poured]
            )
        for thread in self.threads:
            if thread.poured:
                self._run_poured(thread, thread.poured)
        self.looks += 1
        self._come_and_go()

    def levels(self) -> list[float]:
        """By pCPU: what is wanted there on average, over its capacity."""
        loads = dict.fromkeys(self.pcpus, 0.0)
        for thread in self.threads:
            for number, part in (thread.poured or {thread.seat: 1.0}).items():
                loads[number] += part * thread.mean_ratio
        return [load / self.pcpus[number].capacity_ratio for number, load in loads.items()]

    def std_points(self) -> float:
        """Standard deviation of the pCPUs' levels."""
        return 100 * pstdev(self.levels())

    def _come_and_go(self) -> None:
        at = self.scene.changes_at
        changed = bool(at) and self.looks >= at
        self.threads = [thread for thread in self._all if thread.vm.there(changed)]
        self.settle()

    def _share(self, pcpu: Pcpu, threads: Sequence[Thread]) -> None:
        usable = [usable_ratio(thread.demand_ratio, pcpu.capacity_ratio) for thread in threads]
        for thread, most, ran in zip(threads, usable, fair_shares(usable), strict=True):
            thread.wait_ratio = 1 - ran / most if most > 0 else 0.0
            thread.run_ns += round(ran * self.interval_s * 1e9)
            thread.delay_ns += round(thread.wait_ratio * self.interval_s * 1e9)

    def _run_poured(self, thread: Thread, parts: dict[int, float]) -> None:
        """It ran here and there, and never waited; it was last seen on one of these."""
        ran = sum(
            part * usable_ratio(thread.demand_ratio, self.pcpus[number].capacity_ratio)
            for number, part in parts.items()
        )
        thread.wait_ratio = 0.0
        thread.run_ns += round(ran * self.interval_s * 1e9)
        thread.seat = self._random.choices(list(parts), list(parts.values()))[0]

    def _pour(self) -> bool:
        """Pour what rests and floats over the pCPUs; False, and nothing done, where no idle ones are left."""
        wakers = [thread for thread in self.threads if thread.floats and thread.rests]
        loads = dict.fromkeys(self.pcpus, 0.0)
        for thread in self.threads:
            thread.poured = None
            if not (thread.floats and thread.rests):
                loads[thread.seat] += thread.mean_ratio
        by_mask: dict[tuple[int, ...], list[Thread]] = {}
        for thread in wakers:
            by_mask.setdefault(thread.cpus or tuple(self.pcpus), []).append(thread)
        for mask in sorted(by_mask, key=lambda one: (len(one), one)):
            amount = sum(thread.mean_ratio for thread in by_mask[mask])
            rooms = [self.pcpus[number].capacity_ratio for number in mask]
            added = poured([loads[number] for number in mask], rooms, amount)
            for number, more in zip(mask, added, strict=True):
                loads[number] += more
            parts = {number: more / amount for number, more in zip(mask, added, strict=True) if more > 0}
            if any(loads[number] > MOST_BUSY_RATIO * self.pcpus[number].capacity_ratio for number in parts):
                for thread in wakers:
                    thread.poured = None
                return False
            for thread in by_mask[mask]:
                thread.poured = parts
        return bool(wakers)

    def _even_out(self) -> bool:
        """Move those that sit until no pCPU has two more than another; was anything moved?"""
        counts = Counter(thread.seat for thread in self.threads if not thread.poured)
        moved = False
        while (move := self._next_move(counts)) is not None:
            thread, seat = move
            counts[thread.seat] -= 1
            counts[seat] += 1
            thread.seat = seat
            moved = True
        return moved

    def _emptiest(self, thread: Thread, counts: Counter[int]) -> int:
        """Where the fewest sit; of such, the strongest, on the emptiest core, in its node, then the first."""
        node = self.pcpus[thread.seat].node if thread.seat in self.pcpus else NOWHERE
        cores = Counter[int]()
        for number, pcpu in self.pcpus.items():
            cores[pcpu.core] += counts[number]

        def cost(number: int) -> tuple[int, float, int, bool, int]:
            pcpu = self.pcpus[number]
            return counts[number], -pcpu.capacity_ratio, cores[pcpu.core], pcpu.node != node, number

        return min(thread.cpus or self.pcpus, key=cost)

    def _next_move(self, counts: Counter[int]) -> tuple[Thread, int] | None:
        for number in sorted(self.pcpus, key=lambda one: -counts[one]):
            able = []
            for thread in self.threads:
                if thread.seat == number and thread.floats and not thread.poured:
                    seat = self._emptiest(thread, counts)
                    stronger = self.pcpus[seat].capacity_ratio > self.pcpus[number].capacity_ratio
                    if counts[number] - counts[seat] >= 2 or (stronger and not counts[seat]):
                        able.append((thread, seat))
            if able:
                return self._random.choice(able)
        return None


def poured(loads: Sequence[float], rooms: Sequence[float], amount: float) -> list[float]:
    """What comes to each of it, when it is poured to where the level (load over room) is lowest."""
    order = sorted(range(len(loads)), key=lambda one: loads[one] / rooms[one])
    load, room, level, wet = amount, 0.0, 0.0, 0
    for one in order:
        if wet and loads[one] / rooms[one] >= level:
            break
        load += loads[one]
        room += rooms[one]
        level = load / room
        wet += 1
    added = [0.0] * len(loads)
    for one in order[:wet]:
        added[one] = max(0.0, level * rooms[one] - loads[one])
    return added


def usable_ratio(demand_ratio: float, capacity_ratio: float) -> float:
    """Share of a pCPU's time that a vCPU uses which has it for itself: it works d/c, and rests 1 - d."""
    work = demand_ratio / capacity_ratio
    return work / (work + 1 - demand_ratio) if work > 0 else 0.0


def fair_shares(most_ratios: Sequence[float]) -> list[float]:
    """One pCPU's time shared fairly: alike for all (max-min), and to none more than its most."""
    shares = [0.0] * len(most_ratios)
    left = 1.0
    for place, one in enumerate(sorted(range(len(most_ratios)), key=most_ratios.__getitem__)):
        shares[one] = min(most_ratios[one], left / (len(most_ratios) - place))
        left -= shares[one]
    return shares


def uuid_of(name: str) -> str:
    """The simulated VM's UUID."""
    return f"uuid-of-{name}"


def _thread(scene: Scene, vm: SceneVm, number: int, vcpu: SceneVcpu) -> Thread:
    mask_of: MaskOwner = "owner" if vm.left_alone == "owner_mask" else scene.pins_of
    seat = NOWHERE if vcpu.seat is None else vcpu.seat
    demand = vcpu.demand_ratio
    return Thread(vm, number, demand, demand, vcpu.cpus, mask_of if vcpu.cpus else "nobody", seat)


def _state(thread: Thread) -> VcpuState:
    return VcpuState(thread.number, thread.run_ns, thread.delay_ns, thread.cpus, thread.mask_of, thread.seat)
