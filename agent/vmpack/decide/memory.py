"""One interval's memory decision for one host: plan(snapshot, remembered, settings) -> Plan.

Guarantees (each is a property test): no VM is planned below its floor, nor below what it uses plus fixed
headroom; the balloons planned never exceed the budget unless nothing more may be taken; planning on the
planned state does nothing; the order of VMs does not matter; no VM in need shrinks while one that is not in
need has spare.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from vmpack.decide.brake import brake, relief
from vmpack.decide.budget import budget, unseen
from vmpack.decide.demand import GRAIN_BYTES, demand
from vmpack.decide.learn import is_stuck, learn
from vmpack.decide.node_budget import NodePool, divide_by_node, node_pools, over_bytes
from vmpack.decide.offer import learned_rises, offer
from vmpack.decide.report_period import set_period, wanted_period_s
from vmpack.decide.scarcity import migration_wanted, scarce_intervals
from vmpack.decide.seat import Seat
from vmpack.decide.sizes import size_table
from vmpack.decide.stance import stance
from vmpack.model.action import ARRIVED_BYTES, Outcome, SetMemory, SetStatsPeriod
from vmpack.model.guest import GuestSnapshot
from vmpack.model.host import HostSnapshot
from vmpack.model.plan import (
    GuestPlan,
    GuestVerdict,
    Plan,
    Reason,
    Remembered,
    RememberedGuest,
)
from vmpack.model.settings import MemorySettings, Settings

PAYS = "pays_for_others"
NO_GROWTH = "balloon_does_not_grow"
OVERTAKEN = "need_overtook_the_shrink"
STOPPED_SHORT = "balloon_stopped_short"
ASK_AGAIN_S = 30.0
"""A guest that does not take the memory it was given is not asked again before this."""


class _Move(NamedTuple):
    """Where one VM's balloon goes now, and why."""

    to_bytes: int
    reason: Reason


def plan(snapshot: HostSnapshot, remembered: Remembered, settings: Settings) -> Plan:
    """Decide for every VM of one host. Pure and deterministic; never raises for any valid snapshot."""
    rules, now_s = settings.memory, snapshot.time_s
    braked, braked_until_s = _braked(snapshot, remembered, settings)
    seats = _seats(snapshot, remembered, rules, braked is not None)
    silent = unseen(snapshot, remembered, settings.host)
    money = budget(snapshot, settings.host, silent)
    claimed_bytes = _claimed(snapshot)
    kept_bytes = silent.held_bytes + sum(seat.held_bytes for seat in seats if not seat.need.movable)
    spendable = money.budget_bytes - kept_bytes
    pools, node_reasons = node_pools(seats, snapshot, settings.host)
    division = divide_by_node(seats, pools, spendable, claimed_bytes, braked is not None)
    targets, scarce = division.targets, division.scarce
    room = money.budget_bytes - silent.held_bytes - sum(seat.held_bytes for seat in seats)
    spare = _spare(seats, targets, remembered, now_s, rules)
    moves = _moves(seats, targets, pools, room, spare, now_s, rules, braked is not None)
    actions = _actions(seats, moves, rules)
    guests = tuple(
        _guest_plan(seat, target, moves.get(seat.guest.uuid), division.bounds.get(place))
        for place, (seat, target) in enumerate(zip(seats, targets, strict=True))
    )
    scarcity, scarce_s = scarce_intervals(remembered, scarce, now_s, rules)
    learned = {**{seat.guest.uuid: seat.known for seat in seats}, **silent.known}
    reasons = (*_host_reasons(room, scarce, seats, braked), *node_reasons)
    rises = learned_rises(snapshot, remembered.guests, learned, remembered.rises, settings.offer)
    offered = offer(snapshot, guests, rises, money, silent.most_bytes, claimed_bytes, settings.offer)
    return Plan(
        actions=actions,
        room_bytes=room,
        guests=guests,
        budget=money,
        offer=offered if braked is None else replace(offered, memory_bytes=0),
        reasons=reasons,
        migration=migration_wanted(seats, spendable, division.lacking_bytes, scarcity, rules),
        remembered=Remembered(learned, scarcity, scarce_s, braked_until_s, spare, now_s, rises),
    )


def _braked(
    snapshot: HostSnapshot, remembered: Remembered, settings: Settings
) -> tuple[Reason | None, float | None]:
    """Why the host is braked, and until when at least: else comfort would come and go with every interval."""
    reason = brake(snapshot, settings.host)
    if reason is not None:
        return reason, snapshot.time_s + settings.memory.calm_s
    until_s = remembered.braked_until_s
    if until_s is not None and snapshot.time_s < until_s:
        return relief(snapshot, settings.host), until_s
    return None, None


def remember(decided: Plan, outcomes: Sequence[Outcome], now_s: float) -> Remembered:
    """What to remember once the plan was carried out; with no outcomes (observe mode, frozen) nothing was.

    Only what was really asked of a VM is remembered as asked. `now_s` is the snapshot's time_s.
    """
    guests = dict(decided.remembered.guests)
    for outcome in outcomes:
        action = outcome.action
        known = guests.get(action.uuid)
        if known is None or outcome.status not in ("done", "partial"):
            continue
        if isinstance(action, SetMemory):
            guests[action.uuid] = _asked(known, action, outcome, now_s)
        elif action.gives_back:
            # Without an answer it stays ours, and is put back again.
            if outcome.status == "done":
                guests[action.uuid] = known._replace(stats_period_before_s=None, stats_period_set_s=None)
        else:
            before_s = known.stats_period_before_s
            guests[action.uuid] = known._replace(
                stats_period_before_s=action.before_s if before_s is None else before_s,
                stats_period_set_s=action.period_s,
            )
    return replace(decided.remembered, guests=guests)


def _asked(known: RememberedGuest, action: SetMemory, outcome: Outcome, now_s: float) -> RememberedGuest:
    asked = action.to_bytes if outcome.asked_bytes is None else outcome.asked_bytes
    reached = asked if outcome.reached_bytes is None else outcome.reached_bytes
    arrived = abs(reached - asked) <= ARRIVED_BYTES
    grown = asked > action.from_bytes
    shrunk = asked < action.from_bytes
    at_s = now_s if outcome.ended_s is None else outcome.ended_s
    same_way = known.target_bytes is not None and (known.target_bytes < action.from_bytes) == shrunk
    stands = same_way and abs(reached - action.from_bytes) <= ARRIVED_BYTES
    safe = action.from_bytes if shrunk and known.safe_bytes is None else known.safe_bytes
    return known._replace(
        balloon_bytes=reached,
        balloon_changed_s=at_s,
        calm_since_s=at_s if grown else known.calm_since_s,
        target_bytes=None if arrived else asked,
        asked_s=at_s,
        safe_bytes=None if grown else safe,
        # An order repeated is no fresh start for a balloon that stands still.
        stands_since_s=None if arrived else known.stands_since_s if stands else at_s,
        stood_at_bytes=None if arrived else known.stood_at_bytes if stands else reached,
    )


def _seats(snapshot: HostSnapshot, remembered: Remembered, rules: MemorySettings, braked: bool) -> list[Seat]:
    seats = []
    limits_of, chosen = size_table(rules), stance(rules)
    for guest in sorted(snapshot.guests, key=_uuid):
        limits = limits_of[guest.nominal_bytes]
        known = learn(guest, remembered.guests.get(guest.uuid), snapshot.time_s, limits, rules)
        need = demand(guest, known, snapshot, limits, rules, chosen, braked)
        held = known.promised_bytes or guest.balloon_bytes
        band = (need.wanted_bytes - need.minimum_bytes) // 2
        if band < limits.band_bytes:
            band = limits.band_bytes
        seats.append(Seat(guest, known, need, held, limits, band))
    return seats


def _uuid(guest: GuestSnapshot) -> str:
    return guest.uuid


def _claimed(snapshot: HostSnapshot) -> int:
    return sum(
        claim.amount_bytes
        for claim in snapshot.claims
        if claim.expires_s is None or claim.expires_s > snapshot.wall_s
    )


def _spare(
    seats: Sequence[Seat], targets: Sequence[int], remembered: Remembered, now_s: float, rules: MemorySettings
) -> dict[str, float]:
    """Bytes above target times seconds of each VM that has any, summed up since it had none.

    Nobody looked while the agent was away: of that, calm_s at most counts.
    """
    before, since_s = remembered.spare_byte_s, remembered.spare_s
    passed_s = 0.0 if since_s is None else min(now_s - since_s, rules.calm_s)
    return {
        seat.guest.uuid: before.get(seat.guest.uuid, 0.0) + passed_s * (seat.held_bytes - target)
        for seat, target in zip(seats, targets, strict=True)
        if seat.held_bytes > target
    }


def _moves(
    seats: Sequence[Seat],
    targets: Sequence[int],
    pools: Sequence[NodePool],
    room: int,
    spare: Mapping[str, float],
    now_s: float,
    rules: MemorySettings,
    braked: bool,
) -> dict[str, _Move]:
    """Grow at once on need; take at once what that costs; else shrink slowly after calm.

    Braked, everything above its target is taken at once. An order costs the same whatever it saves: it is
    worth it when what it would have saved comes to an average VM for calm_s (as one rents skis until the rent
    comes to their price: at most twice the cost of knowing how long the need stays away).
    """
    moves: dict[str, _Move] = {}
    owed = -room
    for seat, target in zip(seats, targets, strict=True):
        if seat.need.movable and _grows(seat, target, now_s, rules):
            moves[seat.guest.uuid] = _Move(target, seat.need.reason)
            owed += target - seat.held_bytes
    if braked:
        owed = sum(max(0, seat.held_bytes - target) for seat, target in zip(seats, targets, strict=True))
    for pool in pools:
        members, sizes = [seats[place] for place in pool.places], [targets[place] for place in pool.places]
        grown = sum(moves[s.guest.uuid].to_bytes - s.held_bytes for s in members if s.guest.uuid in moves)
        owed -= _take(members, sizes, over_bytes(pool, seats) + grown, moves)
    _take(seats, targets, owed, moves)
    price = rules.calm_s * sum(seat.guest.nominal_bytes for seat in seats) / max(1, len(seats))
    for seat, target in zip(seats, targets, strict=True):
        if seat.need.movable and seat.guest.uuid not in moves:
            moves[seat.guest.uuid] = _calm_move(
                seat, target, spare.get(seat.guest.uuid, 0.0), price, now_s, rules
            )
    return moves


def _grows(seat: Seat, target: int, now_s: float, rules: MemorySettings) -> bool:
    held = seat.held_bytes
    if target - held < GRAIN_BYTES:
        return False
    known = seat.known
    if is_stuck(known, now_s, rules) and known.asked_s is not None and now_s - known.asked_s < ASK_AGAIN_S:
        return False
    if held < seat.need.minimum_bytes or held < seat.need.pressed_bytes <= target:
        return True
    # Where comfort is short, targets lie below what is wanted: half of it is still given.
    return held < seat.need.minimum_bytes + seat.band_bytes and 2 * (target - held) > seat.band_bytes


def _take(seats: Sequence[Seat], targets: Sequence[int], owed: int, moves: dict[str, _Move]) -> int:
    """Take from those with the most above their target until `owed` bytes are found; what was taken.

    Whoever pays, pays a step at least: an order costs the same, and what is too much pays for the next one.
    """
    if owed <= 0:
        return 0
    above = []
    for seat, target in zip(seats, targets, strict=True):
        planned = moves.get(seat.guest.uuid)
        size = seat.held_bytes if planned is None else planned.to_bytes
        if seat.need.movable and target < size:
            above.append((size - target, size, seat))
    above.sort(key=lambda entry: (-entry[0], entry[2].guest.uuid))
    found = 0
    for spare, size, seat in above:
        if owed <= found:
            break
        taken = min(spare, max(-(-(owed - found) // GRAIN_BYTES) * GRAIN_BYTES, seat.limits.step_bytes))
        found += taken
        numbers = {"spare_bytes": spare, "taken_bytes": taken, "wanted_bytes": seat.need.wanted_bytes}
        moves[seat.guest.uuid] = _Move(size - taken, Reason(PAYS, numbers))
    return found


def _calm_move(
    seat: Seat, target: int, spare: float, price: float, now_s: float, rules: MemorySettings
) -> _Move:
    """Stay, stop a balloon that got stuck, or go one step towards the target."""
    balloon, known = seat.guest.balloon_bytes, seat.known
    numbers: dict[str, int | float] = {
        "balloon_bytes": balloon,
        "target_bytes": target,
        "band_bytes": seat.band_bytes,
    }
    if is_stuck(known, now_s, rules) and known.target_bytes is not None:
        asked = {"balloon_bytes": balloon, "asked_bytes": known.target_bytes}
        if balloon > known.target_bytes:
            return _Move(balloon, Reason(STOPPED_SHORT, asked))
        again = known.asked_s is None or now_s - known.asked_s >= ASK_AGAIN_S
        return _Move(known.target_bytes if again else balloon, Reason(NO_GROWTH, asked))
    if known.target_bytes is not None:
        if known.target_bytes + GRAIN_BYTES <= min(balloon, target, seat.need.minimum_bytes):
            numbers["asked_bytes"] = known.target_bytes
            return _Move(min(balloon, target), Reason(OVERTAKEN, numbers))
        return _Move(balloon, Reason("balloon_is_moving", numbers))
    if balloon - target <= seat.band_bytes:
        return _Move(balloon, Reason("within_dead_band", numbers))
    if known.asked_s is not None and (known.use is None or known.use.sampled_s < known.asked_s):
        return _Move(balloon, Reason("awaiting_statistics", numbers))
    if known.use is not None and 4 * (known.use.anchor_bytes - known.use.used_bytes) >= seat.band_bytes:
        return _Move(balloon, Reason("use_still_falls", numbers))
    calm_s = now_s - known.calm_since_s
    if calm_s < rules.calm_s:
        return _Move(
            balloon, Reason("not_calm_yet", numbers | {"calm_s": round(calm_s, 1), "needed_s": rules.calm_s})
        )
    if spare < price:
        return _Move(
            balloon, Reason("saves_too_little_yet", numbers | {"paid_pct": round(100 * spare / price)})
        )
    if known.asked_s is not None and now_s - known.asked_s < rules.interval_s / 2:
        return _Move(balloon, Reason("moved_just_now", numbers))
    to = max(target, balloon - seat.limits.step_bytes)
    if to - target <= seat.band_bytes:
        to = target
    to = max(target, to - to % GRAIN_BYTES)
    return _Move(to, Reason("unused_is_packed", numbers | {"step_bytes": balloon - to}))


def _actions(
    seats: Sequence[Seat], moves: Mapping[str, _Move], rules: MemorySettings
) -> tuple[SetMemory | SetStatsPeriod, ...]:
    periods: list[SetMemory | SetStatsPeriod] = []
    wanted_s = wanted_period_s(rules)
    shrinks: list[tuple[int, str, SetMemory]] = []
    grows: list[tuple[float, str, SetMemory]] = []
    for seat in seats:
        guest = seat.guest
        move = moves.get(guest.uuid)
        if move is None:
            continue
        period = set_period(guest, seat.known, wanted_s)
        if period is not None:
            periods.append(period)
        stays = move.to_bytes == guest.balloon_bytes
        if stays and move.reason.rule not in (STOPPED_SHORT, OVERTAKEN, PAYS):
            continue
        action = SetMemory(
            guest.uuid,
            guest.name,
            guest.balloon_bytes,
            move.to_bytes,
            guest.nominal_bytes,
            seat.known.promised_bytes,
        )
        if action.grows:
            grows.append((guest.balloon_bytes / max(1, seat.need.minimum_bytes), guest.uuid, action))
        else:
            shrinks.append((move.to_bytes - seat.held_bytes, guest.uuid, action))
    return (*periods, *(entry[2] for entry in sorted(shrinks)), *(entry[2] for entry in sorted(grows)))


def _guest_plan(seat: Seat, target: int, move: _Move | None, bound: Reason | None) -> GuestPlan:
    guest, need = seat.guest, seat.need
    verdict: GuestVerdict = "hold"
    reasons: tuple[Reason, ...] = (need.reason,)
    if move is None:
        verdict = "excluded"
    else:
        if move.to_bytes > seat.held_bytes:
            verdict = "grow"
        elif move.to_bytes < guest.balloon_bytes:
            verdict = "shrink"
        if move.reason is not need.reason:
            reasons = (need.reason, move.reason)
    if bound is not None:
        reasons = (*reasons, bound)
    return GuestPlan(
        guest.uuid,
        guest.name,
        verdict,
        target,
        need.floor_bytes,
        need.minimum_bytes,
        need.wanted_bytes,
        seat.known.use.used_bytes if seat.known.use is not None else None,
        reasons,
        need.bare_bytes,
        need.pressed_bytes if need.movable else seat.held_bytes,
    )


def _host_reasons(
    room: int, scarce: bool, seats: Sequence[Seat], braked: Reason | None
) -> tuple[Reason, ...]:
    reasons = [] if braked is None else [braked]
    if room < 0:
        reasons.append(Reason("host_over_budget", {"over_bytes": -room}))
    if scarce:
        lacking = sum(max(0, seat.need.minimum_bytes - seat.guest.balloon_bytes) for seat in seats)
        reasons.append(Reason("host_is_scarce", {"lacking_bytes": lacking}))
    return tuple(reasons)
