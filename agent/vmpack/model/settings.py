"""What the administrator can set, as frozen values. Ranges, units and words of each key: vmpack.config."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from vmpack.model.codec import ADDED
from vmpack.units import MIB

StanceName = Literal["safe", "balanced", "dense"]
VcpuMode = Literal["group", "balance", "off"]


@dataclass(frozen=True, slots=True)
class HostSettings:
    memory_bytes: int | None = None
    reserve_ratio: float = 0.05
    reserve_min_bytes: int = 64 * MIB
    vm_overhead_bytes: int = 64 * MIB


@dataclass(frozen=True, slots=True)
class MemorySettings:
    interval_s: float = 5.0
    glance_s: float = 1.0
    stance: StanceName = field(default="balanced", metadata=ADDED)
    floor_ratio: float = 0.03
    floor_min_bytes: int = 80 * MIB
    fixed_headroom_ratio: float = 0.005
    fixed_headroom_min_bytes: int = 16 * MIB
    headroom_ratio: float | None = None
    """None is as the stance has it; so is headroom_min_bytes."""
    headroom_min_bytes: int | None = None
    shares: int = 1000
    dead_band_ratio: float = 0.005
    dead_band_min_bytes: int = 8 * MIB
    shrink_step_ratio: float = 0.25
    calm_s: float = 30.0
    silence_s: float = 6.0
    silence_nominal_s: float = 30.0
    learned_floor_s: float = 600.0
    kill_floor_s: float = 3600.0
    scarcity_intervals: int = 3
    scarcity_window: int = 5


@dataclass(frozen=True, slots=True)
class OfferSettings:
    reaction_s: float = 60.0
    bound_ratio: float = field(default=0.01, metadata=ADDED)
    growth_reserve_ratio: float = 0.10


@dataclass(frozen=True, slots=True)
class Settings:
    """What decisions depend on. Everything else (paths, sockets) is in vmpack.config.Config."""

    host: HostSettings = field(default_factory=HostSettings)
    memory: MemorySettings = field(default_factory=MemorySettings)
    offer: OfferSettings = field(default_factory=OfferSettings)


@dataclass(frozen=True, slots=True)
class VcpuSettings:
    """What vCPU decisions depend on; they have an interval of their own."""

    mode: VcpuMode = "off"
    interval_s: float = 10.0
    target_points: float = 5.0
    """Standard deviation of the pCPUs' loads that is even enough, in points of 0.01."""
    reserved_cpus: str = ""
    """pCPUs that no VM is pinned to, as 0-1,8; what is decided of sees the others alone."""


@dataclass(frozen=True, slots=True)
class GpuSettings:
    """What is looked at of GPUs."""

    devices: str = "all"
    """As GpuSelection.parse takes it."""


@dataclass(frozen=True, slots=True)
class GrantSettings:
    """How much of the offer the cloud's scheduler may use, and how it is told. No decision depends on it."""

    via: Literal["reserved", "probe"] = "reserved"
    factor: float = 1.0
    """Of what is packed; the offer has kept back reserve and growth already, so by default no more is."""
    step_bytes: int = 64 * MIB
    calm_s: float = 60.0
