"""What a simulation of pins begins with: pCPUs, VMs, what their vCPUs want, and how long it goes on.

Made by vcpu_scenes.py and vcpu_draw.py, played by vcpu_contest.py.
"""

from __future__ import annotations

from typing import NamedTuple

from vmpack.model.vcpu import LeftAlone, MaskOwner, Pcpu


class SceneVcpu(NamedTuple):
    """One vCPU at the beginning."""

    demand_ratio: float
    """Of the fastest pCPU: what it would use if it never had to wait."""
    cpus: tuple[int, ...] = ()
    """The pCPUs that it may run on; empty: any."""
    seat: int | None = None
    """Where it is, of these; None: the kernel chooses."""


class SceneVm(NamedTuple):
    """One VM."""

    name: str
    vcpus: tuple[SceneVcpu, ...]
    left_alone: LeftAlone | None = None
    nodes: tuple[int, ...] = ()
    """The NUMA nodes that its memory is bound to; empty: any."""
    starts: bool = False
    """It comes at `Scene.changes_at`, and is there from the beginning otherwise."""
    stops: bool = False
    """It goes then."""

    def there(self, changed: bool) -> bool:
        """Is it there, before or after the change?"""
        return not (self.stops if changed else self.starts)


class Scene(NamedTuple):
    """One host, and what comes to pass on it."""

    name: str
    pcpus: tuple[Pcpu, ...]
    vms: tuple[SceneVm, ...]
    seed: str
    """For the kernel's choices and for noise."""
    pins_of: MaskOwner = "run_time"
    """Whose the pins are that are there at the beginning, but for those of VMs that are left alone."""
    changes_at: int = 0
    """The interval with whose beginning VMs come and go; 0: none do."""
    noise_ratio: float = 0.0
    """Each demand is drawn anew for every interval, so far from its mean at most."""
    intervals: int | None = None
    """How many are played; None: until it is known whether it holds still."""
