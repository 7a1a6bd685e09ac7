"""What must hold in every interval of every scene. Pure: intervals and samples in, broken promises out.

Each check returns one sentence for every time that a promise was broken; an empty list is good news.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import combinations, pairwise

from tests.scenes.sampler import Sample
from vmpack.model.action import SetMemory
from vmpack.model.guest import GuestSnapshot
from vmpack.model.plan import GuestPlan
from vmpack.model.settings import MemorySettings
from vmpack.publish.journal import JournalLine
from vmpack.units import MIB, format_bytes

RESTORE_INTERVALS = 2
"""So many intervals after the host itself shrank, its reserve is whole again."""
EQUAL_RATIO = 0.10
SAME_NEED_RATIO = 0.02
GRAIN_BYTES = 2 * MIB


class Promises:
    """The checks, for hosts with these settings and guests of one nominal size."""

    def __init__(
        self, settings: MemorySettings, nominal_bytes: int, dead: Collection[str] = frozenset()
    ) -> None:
        """`dead` guests have crashed: they take nothing, whatever they are given."""
        self.dead = dead
        self.nominal_bytes = nominal_bytes
        self.band_bytes = max(settings.dead_band_min_bytes, int(settings.dead_band_ratio * nominal_bytes))
        """Less than this is not worth a move, so it may be missing anywhere."""
        self.restore_s = RESTORE_INTERVALS * settings.interval_s
        """By time: while need is great, turns come early and there are many of them."""
        self.step_bytes = max(self.band_bytes, int(settings.shrink_step_ratio * nominal_bytes))
        self.headroom_bytes = max(
            settings.fixed_headroom_min_bytes, int(settings.fixed_headroom_ratio * nominal_bytes)
        )

    def broken(self, lines: Sequence[JournalLine], samples: Sequence[Sample] = ()) -> list[str]:
        """All that was broken, whatever the scene."""
        return [
            *self.reserve_broken(lines),
            *self.samples_over_budget(lines, samples),
            *self.needs_not_served(lines),
            *self.unequal(lines),
            *self.shrunk_too_fast(lines),
            *self.below_floor(lines),
        ]

    def reserve_broken(self, lines: Sequence[JournalLine]) -> Iterator[str]:
        """The plan has room for all it has given out; where the host lost memory, two intervals later."""
        for index, line in enumerate(lines):
            over = -line.plan.room_bytes - _lost_bytes(lines, index)
            if over > self.band_bytes:
                yield f"{_at(line)} the host's reserve is broken by {format_bytes(over)}"

    def samples_over_budget(self, lines: Sequence[JournalLine], samples: Sequence[Sample]) -> Iterator[str]:
        """What libvirt says of the balloons fits the budget also between intervals."""
        for sample, later in pairwise(samples):
            index = sum(line.snapshot.time_s <= sample.time_s for line in lines) - 1
            if index < 0 or sample.balloons.keys() != later.balloons.keys():
                continue
            # Balloons are asked one after the other: a move in between must not count twice.
            held = sum(min(size, later.balloons[name]) for name, size in sample.balloons.items())
            allowed = lines[index].plan.budget.budget_bytes + _lost_bytes(lines, index)
            if held > allowed + self.band_bytes:
                yield f"{_at(lines[index])} balloons of {format_bytes(held)} on {format_bytes(allowed)}"

    def needs_not_served(self, lines: Sequence[JournalLine]) -> Iterator[str]:
        """A guest below its minimum is served by the next interval, while another has more than it wants."""
        for line, later in pairwise(lines):
            before, after = _movable(line), _movable(later)
            for uuid in before.keys() & after.keys():
                (guest, plan), (now, needs) = before[uuid], after[uuid]
                lacking = min(plan.minimum_bytes, needs.minimum_bytes) - now.balloon_bytes
                served = plan.minimum_bytes <= guest.balloon_bytes or lacking <= self.band_bytes
                if served or guest.name in self.dead:
                    continue
                rich = self._with_spare(before, uuid) & self._with_spare(after, uuid)
                if rich or min(line.plan.room_bytes, later.plan.room_bytes) > self.band_bytes:
                    names = ", ".join(sorted(rich)) or "the host"
                    yield f"{_at(later)} {guest.name} lacks {format_bytes(lacking)} while {names} has spare"

    def _with_spare(self, guests: dict[str, tuple[GuestSnapshot, GuestPlan]], but: str) -> set[str]:
        return {
            guest.name
            for uuid, (guest, plan) in guests.items()
            if uuid != but and guest.balloon_bytes - plan.wanted_bytes > self.band_bytes
        }

    def unequal(self, lines: Sequence[JournalLine]) -> Iterator[str]:
        """Guests of equal need and shares have nearly equal targets."""
        same = SAME_NEED_RATIO * self.nominal_bytes
        for line in lines:
            for (a, first), (b, second) in combinations(_movable(line).values(), 2):
                if a.policy != b.policy or abs(first.minimum_bytes - second.minimum_bytes) > same:
                    continue
                if abs(first.wanted_bytes - second.wanted_bytes) <= same:
                    yield from self._apart(line, first, second, 0)

    def apart(self, lines: Sequence[JournalLine], names: Iterable[str]) -> Iterator[str]:
        """These guests do the same: their targets differ by what their need does, and a tenth of nominal."""
        wanted = set(names)
        for line in lines:
            alike = [plan for guest, plan in _movable(line).values() if guest.name in wanted]
            for first, second in combinations(alike, 2):
                need = abs(first.minimum_bytes - second.minimum_bytes)
                yield from self._apart(line, first, second, need)

    def _apart(self, line: JournalLine, first: GuestPlan, second: GuestPlan, also: int) -> Iterator[str]:
        apart = abs(first.target_bytes - second.target_bytes) - also
        if apart > EQUAL_RATIO * self.nominal_bytes:
            yield f"{_at(line)} targets of {first.name} and {second.name} are {format_bytes(apart)} apart"

    def shrunk_too_fast(self, lines: Sequence[JournalLine]) -> Iterator[str]:
        """What is shrunk beyond one step, with a rest that is worth no other, pays for a grow or a debt."""
        for line in lines:
            gentle = {plan.uuid: self._gentle_bytes(plan) for plan in line.plan.guests}
            moves = [action for action in line.plan.actions if isinstance(action, SetMemory)]
            needed = sum(move.to_bytes - move.held_bytes for move in moves if move.grows)
            needed += max(0, -line.plan.room_bytes)
            hasty = [move for move in moves if move.from_bytes - move.to_bytes > gentle[move.uuid]]
            taken = sum(move.from_bytes - move.to_bytes for move in hasty)
            if taken > needed + GRAIN_BYTES * len(hasty):
                names = ", ".join(move.name for move in hasty)
                need = format_bytes(needed)
                yield f"{_at(line)} {format_bytes(taken)} at once from {names}, for a need of {need}"

    def _gentle_bytes(self, plan: GuestPlan) -> int:
        """A step, and a rest within the dead band: half of the VM's elastic room, but no less than a move."""
        rest = max(self.band_bytes, (plan.wanted_bytes - plan.minimum_bytes) // 2)
        return self.step_bytes + rest + GRAIN_BYTES

    def below_floor(self, lines: Sequence[JournalLine]) -> Iterator[str]:
        """No balloon is ever smaller than the VM's floor."""
        for line in lines:
            for guest, plan in _movable(line).values():
                if guest.balloon_bytes < plan.floor_bytes - GRAIN_BYTES:
                    yield f"{_at(line)} {guest.name} has {format_bytes(guest.balloon_bytes)}, below its floor"

    def without_headroom(self, lines: Sequence[JournalLine], names: Iterable[str]) -> Iterator[str]:
        """These guests, which ask for nothing, could always take the fixed headroom without swapping."""
        wanted = set(names)
        for line in lines:
            for guest in line.snapshot.guests:
                usable = None if guest.stats is None else guest.stats.usable_bytes
                if guest.name in wanted and usable is not None and usable < self.headroom_bytes:
                    left = format_bytes(usable)
                    yield f"{_at(line)} {guest.name} asks for nothing and has only {left} usable"

    def reserve_not_restored(self, lines: Sequence[JournalLine]) -> Iterator[str]:
        """However a guest took memory by itself, two intervals later the host's reserve is whole again."""
        since_s: float | None = None
        for line in lines:
            now_s = line.snapshot.time_s
            if line.plan.room_bytes >= -self.band_bytes:
                since_s = None
                continue
            since_s = now_s if since_s is None else since_s
            if now_s - since_s >= self.restore_s:
                over, passed_s = format_bytes(-line.plan.room_bytes), now_s - since_s
                yield f"{_at(line)} over budget by {over} for {passed_s:.1f} s"


def _at(line: JournalLine) -> str:
    return f"interval {line.number}:"


def _lost_bytes(lines: Sequence[JournalLine], index: int) -> int:
    """How far the host's own budget has fallen within the intervals that it takes to restore the reserve."""
    recent = lines[max(0, index - RESTORE_INTERVALS) : index + 1]
    return max(line.plan.budget.budget_bytes for line in recent) - lines[index].plan.budget.budget_bytes


def _movable(line: JournalLine) -> dict[str, tuple[GuestSnapshot, GuestPlan]]:
    """The VMs that vmpack may move, with their plans."""
    guests = {guest.uuid: guest for guest in line.snapshot.guests}
    return {plan.uuid: (guests[plan.uuid], plan) for plan in line.plan.guests if plan.verdict != "excluded"}
