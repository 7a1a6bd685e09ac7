"""How much memory one VM must have and would like to have, and whether vmpack may move it at all.

    bare    = max(floor, use + kernel + fixed headroom)
    minimum = bare + what it will rise until the next change takes effect
    ready   = minimum + what it usually rises by at most
    wanted  = minimum + elastic headroom

All are balloon sizes, at most nominal: a VM that has more (its owner was resized) keeps of that what it uses
and gets no more. Silence is need: see `_silent`.
"""

from __future__ import annotations

from typing import NamedTuple

from vmpack.decide.learn import swapped_since
from vmpack.decide.sizes import Sizes
from vmpack.decide.stance import Stance
from vmpack.model.guest import GuestSnapshot
from vmpack.model.host import HostSnapshot
from vmpack.model.plan import LearnedUse, Reason, RememberedGuest
from vmpack.model.settings import MemorySettings
from vmpack.units import MIB

GRAIN_BYTES = 2 * MIB
"""Targets are whole multiples of this: a host page of 2 MiB is given back whole or not at all."""
RISES_ON = 1
"""How many reaction times longer a rise is expected to go on, where there is room for it."""
REPORT_SLACK_S = 2.0
"""Reports are stamped in whole seconds and asked for on a busy host: this much lateness is no silence."""


class Demand(NamedTuple):
    """What one VM needs, in balloon bytes. A VM that may not move has minimum = wanted = its balloon."""

    floor_bytes: int
    minimum_bytes: int
    wanted_bytes: int
    shares: int
    movable: bool
    reason: Reason
    bare_bytes: int
    """Never taken below this, not even for others in need."""
    ready_bytes: int
    """Between minimum and wanted: what is above it gives way first."""
    hungry: bool = False
    """Its need grows, or is hidden because it has nothing free: nobody knows how much it will want."""
    blind: bool = False
    """Not even what it wants now is known: it has nothing free and swaps nothing out."""
    pressed_bytes: int = 0
    """With less than this it was short of memory, though its minimum is below: it grows there at once."""


def floor_bytes(guest: GuestSnapshot, known: RememberedGuest, limits: Sizes, braked: bool = False) -> int:
    """The size below which this VM is never planned: its owner's or the default floor, or a learned one.

    A VM whose guest killed something keeps its nominal; while the host is `braked` no more than it has.
    """
    floor = guest.policy.floor_bytes
    if floor is None or ("floor_bytes" in guest.policy.of_owner and floor < limits.floor_bytes):
        floor = limits.floor_bytes
    nominal, balloon = guest.nominal_bytes, guest.balloon_bytes
    if floor > nominal:
        floor = nominal
    if known.learned_floor_bytes is not None and known.learned_floor_bytes > floor:
        floor = min(known.learned_floor_bytes, max(nominal, balloon))
    if known.kill_floor_until_s is not None:
        floor = max(floor, min(balloon, nominal) if braked else nominal)
    return floor


def ceiling_bytes(guest: GuestSnapshot, known: RememberedGuest | None) -> int:
    """What is given back to this VM: nominal, unless its owner starts it smaller and vmpack never moved it.

    A VM that was saved and restored, or came from another host, is not known to have been moved: then its
    lasting definition tells, and where it has none, nominal.
    """
    if known is not None and known.asked_s is not None:
        return guest.nominal_bytes
    configured = guest.configured_bytes
    return guest.nominal_bytes if configured is None else min(configured, guest.nominal_bytes)


def allowed_silence_s(guest: GuestSnapshot, settings: MemorySettings) -> float:
    """How old this VM's newest report may be before it counts as silent."""
    return max(settings.silence_s, 2 * (guest.stats_period_s or 0) + REPORT_SLACK_S)


def demand(
    guest: GuestSnapshot,
    known: RememberedGuest,
    host: HostSnapshot,
    limits: Sizes,
    settings: MemorySettings,
    rules: Stance,
    braked: bool = False,
) -> Demand:
    """What this VM needs now. Pure; never raises. `limits` are those of its nominal."""
    floor = floor_bytes(guest, known, limits, braked)
    shares = guest.policy.shares or settings.shares
    left_alone = _left_alone(guest, known, host)
    if left_alone is not None:
        return _fixed(guest.balloon_bytes, floor, shares, left_alone, movable=False)
    if guest.policy.opt_out:
        reason = Reason("opt_out_gives_back", {"balloon_bytes": guest.balloon_bytes})
        return _fixed(ceiling_bytes(guest, known), floor, shares, reason)
    use = known.use
    fresh = use is not None and host.time_s - use.sampled_s <= settings.silence_s
    if not fresh:
        allowed_s = allowed_silence_s(guest, settings)
        fresh = use is not None and host.time_s - use.sampled_s <= allowed_s
        silent = None if fresh else _silent(guest, known, host.time_s, allowed_s, settings)
        if silent is not None:
            size, reason = silent
            return _fixed(size, floor, shares, reason)
    return _need(guest, known, host.time_s, fresh, floor, shares, limits, settings, rules)


def _fixed(size: int, floor: int, shares: int, reason: Reason, *, movable: bool = True) -> Demand:
    """The demand of a VM that is to have just this size."""
    return Demand(floor, size, size, shares, movable, reason, size, size)


def reaction_s(guest: GuestSnapshot, settings: MemorySettings) -> float:
    """How long a rise goes on before a change of the balloon answers it: report, glance or turn, balloon."""
    glanced = 0 < settings.glance_s < settings.interval_s
    look_s = settings.glance_s if glanced else settings.interval_s
    return look_s + (guest.stats_period_s or 1) + 1


def _left_alone(guest: GuestSnapshot, known: RememberedGuest, host: HostSnapshot) -> Reason | None:
    """The reason not to touch this VM at all, if there is one."""
    policy = guest.policy
    if guest.exclusions:
        return Reason("excluded", {}, guest.exclusions[0])
    if guest.job is not None:
        return Reason("job_running", {}, guest.job)
    if guest.state != "running":
        return Reason("not_running", {}, guest.state)
    if policy.hold_until_s is not None and policy.is_on_hold(host.wall_s):
        return Reason("on_hold", {"hold_until_s": policy.hold_until_s})
    if policy.is_in_action(host.wall_s):
        return Reason("action_running")
    if policy.opt_out and guest.balloon_bytes >= ceiling_bytes(guest, known):
        return Reason("opt_out")
    return None


def _silent(
    guest: GuestSnapshot, known: RememberedGuest, now_s: float, allowed_s: float, settings: MemorySettings
) -> tuple[int, Reason] | None:
    """A guest without fresh reports may be one that is squeezed so hard that it cannot report.

    First it gets back its last safe size, later its nominal. One that was never shrunk just stays. None: it
    has been awake for too short a time to be called silent, and what it reported before still counts.
    """
    never = known.use is None
    heard_s = known.awake_since_s if known.use is None else max(known.awake_since_s, known.use.sampled_s)
    quiet_s = now_s - heard_s
    if not never and quiet_s <= allowed_s:
        return None
    numbers = {"quiet_s": round(quiet_s, 1), "allowed_s": allowed_s, "balloon_bytes": guest.balloon_bytes}
    note = guest.stats_fault or ""
    if guest.balloon_bytes >= guest.nominal_bytes or (guest.stats_period_s == 0 and known.asked_s is None):
        return guest.balloon_bytes, Reason("no_statistics" if never else "silent", numbers, note)
    if quiet_s <= allowed_s:
        return guest.balloon_bytes, Reason("awaiting_statistics", numbers, note)
    if known.safe_bytes is not None and quiet_s <= settings.silence_nominal_s:
        return max(known.safe_bytes, guest.balloon_bytes), Reason("silent_gets_safe_size", numbers, note)
    return guest.nominal_bytes, Reason("silent_gets_nominal", numbers, note)


def _need(
    guest: GuestSnapshot,
    known: RememberedGuest,
    now_s: float,
    fresh: bool,
    floor: int,
    shares: int,
    limits: Sizes,
    settings: MemorySettings,
    rules: Stance,
) -> Demand:
    use = known.use
    assert use is not None, "a guest that never reported is silent"
    used, kernel, fixed = use.used_bytes, use.kernel_bytes, limits.fixed_headroom_bytes
    usual, headroom, elastic = _elastic(guest, use, rules)
    rise = int(use.rise_bytes_per_s * reaction_s(guest, settings)) if use.rise_bytes_per_s else 0
    bare = used + kernel + fixed
    least = bare + rise
    hungry, blind = rise > 0, False
    numbers = {
        "used_bytes": used,
        "kernel_bytes": kernel,
        "fixed_headroom_bytes": fixed,
        "elastic_headroom_bytes": elastic,
        "usual_rise_bytes": usual,
        "rise_bytes": rise,
        "floor_bytes": floor,
    }
    rule = "use_plus_headroom"
    if known.kill_floor_until_s is not None and least < floor:
        rule = "guest_killed_something"
    if use.pressed_until_s is not None and now_s < use.pressed_until_s:
        least += headroom
        hungry = True
        rule = "guest_is_pressed"
    if use.hidden_need_bytes is not None and use.hidden_need_bytes > least:
        least = use.hidden_need_bytes
        hungry = True
        blind = guest.stats is None or not swapped_since(guest.stats, use.swapped_bytes)
        rule = "guest_has_no_free_memory"
    most = guest.nominal_bytes
    bare = _whole_grains(bare, floor, most if most > guest.balloon_bytes else guest.balloon_bytes)
    if bare > most:
        most = bare
    minimum = bare if least <= bare else _whole_grains(least, floor, most)
    # A rise goes on: one larger step instead of many.
    wanted = _whole_grains(least + elastic + RISES_ON * rise, floor, most)
    ready, pressed = minimum, 0
    if usual:
        ready = _whole_grains(least + usual, floor, wanted)
    if use.pressed_floor_until_s is not None and now_s < use.pressed_floor_until_s:
        pressed_floor = min(use.pressed_floor_bytes, most)
        if pressed_floor > wanted and rule == "use_plus_headroom":
            rule = "guest_was_pressed"
            numbers["pressed_floor_bytes"] = pressed_floor
        ready, wanted = max(ready, pressed_floor), max(wanted, pressed_floor)
        pressed = pressed_floor
    if not fresh:
        rule = "statistics_are_old"
        balloon = guest.balloon_bytes
        bare = max(bare, balloon)
        minimum = ready = wanted = max(minimum, balloon)
    reason = Reason(rule, numbers, use.pressed_by if rule == "guest_was_pressed" else "")
    return Demand(floor, minimum, wanted, shares, True, reason, bare, ready, hungry, blind, pressed)


def _elastic(guest: GuestSnapshot, use: LearnedUse, rules: Stance) -> tuple[int, int, int]:
    """The rise that the guest seldom passes, the headroom for what it uses, and all its elastic headroom."""
    policy, rises = guest.policy, use.rises
    ratio, smallest, of_owner = policy.headroom_ratio, policy.headroom_min_bytes, policy.of_owner
    if ratio is None or ("headroom_ratio" in of_owner and ratio < rules.headroom_ratio):
        ratio = rules.headroom_ratio
    if smallest is None or ("headroom_min_bytes" in of_owner and smallest < rules.headroom_min_bytes):
        smallest = rules.headroom_min_bytes
    elastic = headroom = max(int(ratio * use.used_bytes), smallest)
    usual = 0
    if rises is not None:
        usual = rises.usual_bytes
        elastic += int(rules.rise_ratio * rises.kept_bytes)
    if rules.nominal_ratio:
        elastic = max(elastic, int(rules.nominal_ratio * guest.nominal_bytes))
    return usual, headroom, elastic


def _whole_grains(size_bytes: int, floor: int, most: int) -> int:
    if size_bytes <= floor:
        return floor
    size = -(-size_bytes // GRAIN_BYTES) * GRAIN_BYTES
    return size if size < most else most
