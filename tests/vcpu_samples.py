"""Hosts with vCPUs for the tests of screens and metrics, decided by vmpack's own rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from tests.cli_samples import WALL_S
from vmpack.decide.vcpu.plan import plan
from vmpack.host.vcpu_loop import reasons_of
from vmpack.model.settings import VcpuMode, VcpuSettings
from vmpack.model.vcpu import (
    AffinityOutcome,
    Pcpu,
    PinChange,
    RememberedVcpus,
    VcpuInterval,
    VcpuSnapshot,
    VcpuState,
    VcpuStatus,
    VmVcpus,
)

STEP_S = 10.0

Wait = Callable[[int], float]


def vm(name: str, *vcpus: VcpuState, **told: object) -> VmVcpus:
    """A VM with these vCPUs."""
    return VmVcpus(f"uuid-of-{name}", name, vcpus, **told)  # type: ignore[arg-type]


def pinned(number: int, cpu: int, run_ratio: float, wait_ratio: float = 0.0, of: str = "vmpack") -> VcpuState:
    """A vCPU on one pCPU that ran and waited for such shares of STEP_S."""
    return VcpuState(number, _ns(run_ratio), _ns(wait_ratio), (cpu,), of, cpu)  # type: ignore[arg-type]


def floating(number: int, seat: int | None, run_ratio: float, wait_ratio: float = 0.0) -> VcpuState:
    """A vCPU that may run anywhere and was last on this pCPU."""
    return VcpuState(number, _ns(run_ratio), _ns(wait_ratio), (), "nobody", seat)


def pcpus(count: int, per_node: int = 0, per_cache: int = 0) -> tuple[Pcpu, ...]:
    """pCPUs of one node and cache, or so many to each."""
    return tuple(
        Pcpu(cpu, cpu // per_node if per_node else 0, cpu // per_cache if per_cache else 0, cpu)
        for cpu in range(count)
    )


def status(
    cpus: Sequence[Pcpu], *vms: VmVcpus, mode: VcpuMode = "balance", acts: bool = True, frozen: bool = False
) -> VcpuStatus:
    """After two looks, STEP_S apart; what the second decided is done, unless `acts` is false."""
    settings = VcpuSettings(mode=mode)
    still = [one._replace(vcpus=tuple(v._replace(run_ns=0, delay_ns=0) for v in one.vcpus)) for one in vms]
    first = VcpuSnapshot(1000.0, WALL_S - STEP_S, tuple(cpus), tuple(still), frozen)
    left = plan(first, RememberedVcpus(), settings).remembered
    second = replace(first, time_s=1000.0 + STEP_S, wall_s=WALL_S, vms=tuple(vms))
    decided = plan(second, left, settings)
    can = acts and not frozen
    outcomes = tuple(AffinityOutcome(action, "done") for action in decided.actions) if can else ()
    why = reasons_of(decided)
    changes = tuple(PinChange(WALL_S, one, why(one.action)) for one in outcomes)
    return VcpuStatus(mode, STEP_S, not acts, None, VcpuInterval(2, second, decided, outcomes), changes)


def _ns(ratio: float) -> int:
    return int(ratio * STEP_S * 1e9)
