"""The answer of a decision: actions, reasons, and what to remember for the next one.

The records that are made anew for every VM in every interval are named tuples: they take a third of the time
that a frozen dataclass takes to make.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, Literal, NamedTuple

from vmpack.model.action import SetMemory, SetStatsPeriod
from vmpack.model.codec import ADDED
from vmpack.model.guest import KernelCounts
from vmpack.model.learned import Learned

GuestVerdict = Literal["grow", "shrink", "hold", "excluded"]


class Reason(NamedTuple):
    """Why something was decided: the rule's name and the numbers it saw. decide/explain has its words."""

    rule: str
    numbers: Mapping[str, int | float] = MappingProxyType({})
    note: str = ""


class GuestPlan(NamedTuple):
    """What was decided for one VM."""

    uuid: str
    name: str
    verdict: GuestVerdict
    target_bytes: int
    """What we want the balloon to be in the end; an action may go there in steps."""
    floor_bytes: int
    minimum_bytes: int
    """bare_bytes plus what the guest is about to need; below it, it lacks memory."""
    wanted_bytes: int
    """minimum plus elastic headroom."""
    used_bytes: int | None
    reasons: tuple[Reason, ...]
    bare_bytes: int = 0
    """What the guest uses plus the fixed headroom: never taken below."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What the host can promise beyond what it has promised."""

    memory_bytes: int
    packed_bytes: int
    growth_reserve_bytes: int
    """Kept for what the VMs may need more within the reaction time."""
    claimed_bytes: int
    shortage_probability_ratio: float | None
    """Chance that the VMs' need exceeds the host if all of the offer is taken, within the reaction time."""
    reasons: tuple[Reason, ...]
    gpus: tuple[str, ...] = field(default=(), metadata=ADDED)
    """Idle GPUs and MIG instances: UUIDs, or PCI addresses of those that are set aside for passthrough."""
    lacking_bytes: int = field(default=0, metadata=ADDED)
    """What is lacking of the growth reserve, nothing being offered: a VM of this need should leave."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Where the host's memory goes. budget = capacity - reserve - host_own - overhead."""

    capacity_bytes: int
    reserve_bytes: int
    host_own_bytes: int
    overhead_bytes: int
    budget_bytes: int


@dataclass(frozen=True, slots=True)
class MigrationWanted:
    """Ballooning cannot cure the host's shortage."""

    deficit_bytes: int
    starving: tuple[str, ...]
    """Names of the VMs that lack memory."""


class Rises(NamedTuple):
    """How often one guest's use rose by how much within one interval. See decide/volatility."""

    counts: tuple[float, ...]
    """By size, in quarters of an octave from 1 MiB; each rise with its weight."""
    since_s: float
    """When the first one was counted."""
    epoch_s: float
    """When a rise weighed 1; a day later one weighs 2, so that old ones fade."""
    judged_s: float = 0.0
    """When the sizes below were worked out."""
    usual_bytes: int = 0
    """The rise that it seldom passes."""
    kept_bytes: int = 0
    """The same, as seldom as the stance wants it."""


class RiseWindow(NamedTuple):
    """One reaction time that is being watched."""

    begun_s: float
    level_bytes: int
    """HostRises.level_bytes when it began; so is the next."""
    largest_bytes: int
    together_bytes: int
    """Extent of the VMs that were there when it began; see decide/host_rises. So is the next."""
    alone_bytes: int
    rise_bytes: int = 0
    """By how much the sum was above its beginning at most."""
    largest_rise_bytes: int = 0
    """Of that, what those VMs added that rose most in each interval."""


class DayPeak(NamedTuple):
    """That many VMs rose together in one quarter hour of the day. See decide/day_peaks."""

    slot: int
    """Quarter hours since midnight, UTC."""
    day: int
    """When it was last seen: days since 1970."""
    today_ratio: float
    """The largest rise of that day, as a share of nominals."""
    earlier_ratio: float
    """Of the days before; each day counts half of the next."""


class HostRises(NamedTuple):
    """How far the use of all VMs together rose within a reaction time. See decide/host_rises."""

    alone: tuple[float, ...]
    """By size, in quarters of an octave from 1/1024 of the VMs' extent: rises of single VMs, each with its
    weight."""
    together: tuple[float, ...]
    """The same of rises that came of many VMs."""
    seen: float
    """Weight of all windows, with those in which nothing rose."""
    since_s: float
    epoch_s: float
    """When a window weighed 1 (overlapping ones less); a half-life later one weighs 2: old ones fade."""
    last_s: float
    """The newest interval taken into account."""
    reaction_s: float
    """The reaction time that was set."""
    level_bytes: int
    """The chained sum of use; only its changes mean something."""
    largest_bytes: int
    """The chained sum of what the VM that rose most in each interval rose by."""
    windows: tuple[RiseWindow, ...]
    peaks: tuple[DayPeak, ...] = ()
    newcomers: Mapping[str, float] = MappingProxyType({})
    """VMs that nobody knows yet, by uuid: when they were first seen."""


class LearnedUse(NamedTuple):
    """What one guest's own reports taught. Times are on HostSnapshot.time_s."""

    sampled_s: float
    """When the newest report was made."""
    used_bytes: int
    kernel_bytes: int
    """What the guest's kernel keeps for itself and never shows as MemTotal."""
    available_peak_bytes: int
    counts_balloon: bool | None
    """True when the guest's MemTotal does not shrink with the balloon; None until it can be told."""
    rise_bytes_per_s: float
    anchor_s: float
    """An older report, up to one interval before the newest: a slow rise shows only against it."""
    anchor_bytes: int
    """What was used then."""
    hidden_need_bytes: int | None
    """The balloon it should get because its newest report showed no free memory, which hides its need."""
    swap_in_bytes: int | None
    major_faults: int | None
    pressed_until_s: float | None
    """The guest swapped in; until then it gets extra room."""
    mean_bytes: float
    """Of used_bytes, over minutes."""
    variance: float
    """Of used_bytes, in bytes squared."""
    rises: Annotated[Rises | None, ADDED] = None
    """None while it has never risen."""
    pressed_floor_bytes: Annotated[int, ADDED] = 0
    """What it wants until `pressed_floor_until_s`, since it had too little with a smaller balloon."""
    pressed_floor_until_s: Annotated[float | None, ADDED] = None
    presses: Annotated[int, ADDED] = 0
    """How often it was pressed again soon after that."""
    swapped_bytes: Annotated[int | None, ADDED] = None
    """What it had swapped out, less what it had swapped in, when it last had something free."""
    kernel: Annotated[KernelCounts | None, ADDED] = None
    """What its kernel counted when it was last asked; the next answer is compared with it."""
    kernel_balloon_bytes: Annotated[int, ADDED] = 0
    """The balloon then."""
    pressed_by: Annotated[str, ADDED] = ""
    """What raised the pressed floor last: "faults" (or swap-in), or what decide/strain says."""


class RememberedGuest(NamedTuple):
    """What the memory decision remembers of one VM. Times are on HostSnapshot.time_s."""

    name: str
    nominal_bytes: int
    balloon_bytes: int
    balloon_changed_s: float
    """When the balloon last moved; a report from before that does not fit the balloon of now."""
    awake_since_s: float
    """Since when the VM runs undisturbed (seen, not paused, no job): silence is counted from here."""
    calm_since_s: float
    """Since when the VM has not needed to grow."""
    use: LearnedUse | None = None
    """None until the guest has reported."""
    target_bytes: int | None = None
    """What was last asked for and has not been reached; None when nothing is under way."""
    asked_s: float | None = None
    """When vmpack last moved this balloon, None when it never did."""
    safe_bytes: int | None = None
    """The balloon before the running series of shrinks: given back when the guest falls silent."""
    stands_since_s: float | None = None
    """Since when the balloon under way has not moved on from `stood_at_bytes`; None: none is under way."""
    stood_at_bytes: int | None = None
    learned_floor_bytes: int | None = None
    learned_floor_until_s: float | None = None
    stats_period_before_s: int | None = None
    """The statistics period found before vmpack set one; put back on release."""
    stats_period_set_s: int | None = None
    """The one that vmpack set; another one is the owner's and stays."""
    rss_bytes: int | None = None
    """Of its QEMU: what a VM that falls silent most likely still has."""
    oom_kills: int | None = None
    """The guest's own count when it was last told."""
    kills_seen: int = 0
    """How often the guest was lately seen to kill for want of memory while it was packed."""
    killed_s: float | None = None
    """When that was last seen."""
    kill_floor_until_s: float | None = None
    """Until then it keeps its nominal for that; None when that is over."""
    carried: Annotated[Learned | None, ADDED] = None
    """What it brought from elsewhere, until its first report."""

    @property
    def promised_bytes(self) -> int:
        """What the order under way lets it grow to; 0 when none does."""
        target = self.target_bytes
        return target if target is not None and target > self.balloon_bytes else 0


@dataclass(frozen=True, slots=True)
class Remembered:
    """What the memory decision remembers of the host."""

    guests: Mapping[str, RememberedGuest] = field(default_factory=dict)
    """By VM uuid."""
    scarce: tuple[bool, ...] = ()
    """The last intervals, oldest first: was the host unable to serve every minimum?"""
    scarce_s: float | None = None
    """When the newest of them began; turns in between change it, and add none."""
    braked_until_s: float | None = None
    """The host ran short a moment ago: comfort stays away until then."""
    spare_byte_s: Mapping[str, float] = field(default_factory=dict, metadata=ADDED)
    """By VM uuid: what it has above its target, times the seconds it has had it."""
    spare_s: float | None = field(default=None, metadata=ADDED)
    """When that was last summed up."""
    rises: HostRises | None = field(default=None, metadata=ADDED)
    """None before the first interval."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The whole answer of one interval."""

    actions: tuple[SetMemory | SetStatsPeriod, ...]
    """Statistics periods first, then shrinks, then grows with the most starved VM first."""
    room_bytes: int
    """Budget left over before any action, negative when the host is over it.

    Grows are paid from this plus what the shrinks free.
    """
    guests: tuple[GuestPlan, ...]
    budget: Budget
    offer: Offer
    reasons: tuple[Reason, ...]
    migration: MigrationWanted | None
    remembered: Remembered
