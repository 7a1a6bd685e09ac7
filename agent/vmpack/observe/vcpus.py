"""The host's CPUs and the vCPUs of all its VMs in one immutable snapshot. `VcpuSource.observe()` is called
once per interval of the vCPU scheduler, which has a libvirt connection of its own.

Promises that what could not be read is missing, never guessed; that one broken VM never costs the others
their interval; and that a mask is called vmpack's only where vmpack noted it and it is still that mask.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from vmpack.clock import Clock
from vmpack.cpu_masks import any_or, vcpu_masks
from vmpack.errors import GuestBusyError, HypervisorError, HypervisorLostError
from vmpack.hypervisor import UNTOLD_JOB, Hypervisor, job_name, translated
from vmpack.model.pins import Pin
from vmpack.model.thread import ThreadKey
from vmpack.model.vcpu import LeftAlone, MaskOwner, ThreadMask, VcpuSnapshot, VcpuState, VmVcpus
from vmpack.observe.bulk import RunningDomain, all_running
from vmpack.observe.definitions import Definitions
from vmpack.observe.topology import TopologyReader, without
from vmpack.observe.vcpu_facts import Placed, VcpuFacts, read_vcpu_facts

T = TypeVar("T")

_CHANGES = ("TUNABLE", "METADATA_CHANGE", "DEVICE_ADDED", "DEVICE_REMOVED")
_RUNNING = (1, 2)
_MOST_HANGS = 3
_BUSY_MS = 1000
"""So long no question of another program takes, but for one that hangs."""

_Masks = Mapping[int, tuple[tuple[int, ...], int | None]]
"""By vCPU: mask as the kernel has it, and the CPU that it ran on last."""


class VcpuSource:
    """Observes one host. Not for use by two threads at once."""

    def __init__(
        self,
        hypervisor: Hypervisor,
        clock: Clock,
        *,
        reserved: Callable[[], Collection[int]] = lambda: (),
        frozen: Callable[[], bool] = lambda: False,
        placed: Placed = lambda _domain: False,
        sys: Path = Path("/sys"),
        deadline_s: float = 2.0,
    ) -> None:
        self._hypervisor = hypervisor
        self._clock = clock
        self._reserved = reserved
        self._frozen = frozen
        self._deadline_s = deadline_s
        self.topology = TopologyReader(sys)
        """Of this machine; the executor asks it for `everywhere` too."""

        def read(xml: str, lasting_xml: str | None) -> VcpuFacts:
            return read_vcpu_facts(xml, lasting_xml, placed)

        self._definitions: Definitions[VcpuFacts] = Definitions(hypervisor, deadline_s, read, _CHANGES)

    def observe(self) -> VcpuSnapshot:
        """One snapshot of now.

        Takes at most a few deadlines. Raises HypervisorLostError, UnavailableError or AccessError when
        libvirt cannot be asked at all; a VM that cannot be read is not in the snapshot.
        """
        domains = all_running(self._hypervisor, _groups(), self._deadline_s)
        # The counters are of this moment.
        time_s, wall_s = self._clock.time_s(), self._clock.wall_s()
        facts, _unread = self._definitions.look(domains, time_s)
        masks = self._ask_each("ask each VM where its vCPUs run", domains, _masks)
        jobs = self._ask_each("ask each VM for its job", domains, _job)
        pcpus, everywhere = self.topology.read(), self.topology.everywhere()
        online = self.topology.online()
        seen = [
            _SeenVm(d, facts[d.uuid], masks[d.uuid], jobs.get(d.uuid, UNTOLD_JOB), everywhere, online)
            for d in sorted(domains, key=lambda d: (d.name, d.uuid))
            if d.uuid in facts and d.uuid in masks
        ]
        shared = _pinned_alone(seen)
        return VcpuSnapshot(
            time_s=time_s,
            wall_s=wall_s,
            pcpus=without(pcpus, self._reserved()),
            vms=tuple(vm.record(wall_s, shared) for vm in seen),
            frozen=self._frozen(),
        )

    def read_again(self, uuid: str) -> None:
        """This VM was changed: do not wait for libvirt to tell. May come from any thread."""
        self._definitions.read_again(uuid)

    def _ask_each(
        self, what: str, domains: Sequence[RunningDomain], question: Callable[[Any], T]
    ) -> dict[str, T]:
        """The answers by uuid; a VM that hangs has none, and the others are asked on without it."""
        answers: dict[str, T] = {}
        waiting = list(domains)
        for _ in range(_MOST_HANGS):
            round_ = _Round(question, waiting)
            try:
                self._hypervisor.call(what, round_.ask, deadline_s=self._deadline_s)
            except GuestBusyError:
                answered, waiting = dict(round_.answers), round_.rest()
                answers.update(answered)
                continue
            return answers | round_.answers
        return answers


class _Round(Generic[T]):
    """One call that asks one VM after the other; after a hang it goes on in its thread, unheard."""

    def __init__(self, question: Callable[[Any], T], domains: Sequence[RunningDomain]) -> None:
        self._question = question
        self._domains = domains
        self._asked = 0
        self.answers: dict[str, T] = {}

    def ask(self, _connection: Any) -> None:
        for domain in self._domains:
            self._asked += 1
            try:
                self.answers[domain.uuid] = self._question(domain.handle)
            except HypervisorLostError:
                raise
            except HypervisorError:
                continue

    def rest(self) -> list[RunningDomain]:
        """Those after the one that hangs."""
        return list(self._domains[self._asked :])


@dataclass(frozen=True, slots=True)
class _SeenVm:
    """What was read of one VM."""

    domain: RunningDomain
    facts: VcpuFacts
    masks: _Masks
    job: str | None
    everywhere: frozenset[int]
    online: frozenset[int]

    def record(self, wall_s: float, pinned_alone: Counter[int]) -> VmVcpus:
        vcpus = tuple(
            VcpuState(number, run_ns, delay_ns, *self._mask(("vcpu", number), cpus), seat)
            for number, run_ns, delay_ns in _times(self.domain.stats)
            for cpus, seat in [self.masks.get(number, (None, None))]
            if cpus is not None
        )
        return VmVcpus(
            self.domain.uuid,
            self.domain.name,
            vcpus,
            self._left_alone(vcpus, wall_s, pinned_alone),
            self.facts.nodes,
            tuple(ThreadMask(*key, *self._mask(key, cpus)) for key, cpus in self.facts.others.items()),
        )

    def own_masks(self) -> list[tuple[int, ...]]:
        """Of the vCPUs, as they would be without the scheduler; empty: any."""
        return [
            any_or(pin.before if pin is not None and pin.by == "scheduler" else cpus, self.everywhere)
            for number, (cpus, _seat) in self.masks.items()
            for pin in [self._holding_pin(("vcpu", number), cpus)]
        ]

    def _mask(self, key: ThreadKey, cpus: tuple[int, ...]) -> tuple[tuple[int, ...], MaskOwner]:
        mask, pin = any_or(cpus or self.everywhere, self.everywhere), self._holding_pin(key, cpus)
        if pin is not None:
            return mask, "vmpack" if pin.by == "scheduler" else "owner"
        if any_or(self.facts.owned.of(key) or self.everywhere, self.everywhere):
            return mask, "owner"
        if not mask:
            return mask, "nobody"
        return mask, "owner" if self.facts.is_placed else "run_time"

    def _holding_pin(self, key: ThreadKey, cpus: tuple[int, ...]) -> Pin | None:
        pin = self.facts.pins.get(key)
        return pin if pin is not None and pin.holds(cpus, self.online) else None

    def _left_alone(
        self, vcpus: Sequence[VcpuState], wall_s: float, pinned_alone: Counter[int]
    ) -> LeftAlone | None:
        policy = self.facts.policy
        checks: tuple[tuple[LeftAlone, bool], ...] = (
            ("not_running", self.domain.stats.get("state.state") not in _RUNNING),
            ("job", self.job is not None),
            ("opt_out", policy.opt_out),
            ("held", policy.is_on_hold(wall_s) or policy.is_in_action(wall_s)),
            ("real_time", self.facts.is_real_time),
            ("dedicated_cpus", self._is_dedicated(vcpus, pinned_alone)),
            ("owner_mask", self.facts.is_placed or any(vcpu.mask_of == "owner" for vcpu in vcpus)),
        )
        return next((why for why, holds in checks if holds), None)

    def _is_dedicated(self, vcpus: Sequence[VcpuState], pinned_alone: Counter[int]) -> bool:
        """Has its owner or its cloud given each of its vCPUs a CPU on which it is alone?

        A pin at run time may be what others left behind: it makes nobody the master of a CPU.
        """
        masks = self.own_masks()
        alone = all(len(mask) == 1 and pinned_alone[mask[0]] == 1 for mask in masks)
        return bool(masks) and alone and all(vcpu.mask_of == "owner" for vcpu in vcpus)


def _pinned_alone(vms: Sequence[_SeenVm]) -> Counter[int]:
    """How many vCPUs have each CPU as their only one, as it would be without the scheduler."""
    return Counter(mask[0] for vm in vms for mask in vm.own_masks() if len(mask) == 1)


def _groups() -> int:
    import libvirt

    return int(libvirt.VIR_DOMAIN_STATS_STATE | libvirt.VIR_DOMAIN_STATS_VCPU)


def _masks(domain: Any) -> _Masks:
    with translated(f"ask where the vCPUs of {domain.name()} run"):
        return vcpu_masks(domain)


def _job(domain: Any) -> str | None:
    """As `job_name`; a VM that has been busy for long is not asked, for it may hang."""
    import libvirt

    with translated(f"ask whether {domain.name()} is busy"):
        state, _details, since_ms = domain.controlInfo()
    if state != libvirt.VIR_DOMAIN_CONTROL_OK and since_ms >= _BUSY_MS:
        return UNTOLD_JOB
    return job_name(domain)


def _times(stats: Mapping[str, Any]) -> list[tuple[int, int, int | None]]:
    """Number, run time and delay of the vCPUs that are on; an unplugged one has no time."""
    found = []
    for number in range(stats.get("vcpu.maximum", 0)):
        run_ns, delay_ns = stats.get(f"vcpu.{number}.time"), stats.get(f"vcpu.{number}.delay")
        if run_ns is not None:
            found.append((number, run_ns, delay_ns))
    return found
