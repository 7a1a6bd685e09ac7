"""What was learned of one VM, told as reasons: experience(known, now_s, rules). Called for `vmpack explain`.

decide/explain has the words.
"""

from __future__ import annotations

from vmpack.decide.stance import STANCES
from vmpack.decide.volatility import DAY_S, PER_OCTAVE, times
from vmpack.model.plan import Reason, RememberedGuest, Rises
from vmpack.model.settings import MemorySettings
from vmpack.units import MIB


def experience(known: RememberedGuest | None, now_s: float, rules: MemorySettings) -> tuple[Reason, ...]:
    """All that makes vmpack treat this VM as no other, what is kept for it, and until when. Pure."""
    if known is None:
        return ()
    if known.carried is not None:
        return (Reason("learned_elsewhere"),)
    told: list[Reason] = []
    use = known.use
    if use is not None and use.rises is not None:
        told.append(_of_rises(use.rises, now_s, rules))
    if use is not None and use.pressed_floor_until_s is not None and now_s < use.pressed_floor_until_s:
        left_s = use.pressed_floor_until_s - now_s
        numbers = {"kept_bytes": use.pressed_floor_bytes, "left_s": left_s, "times": use.presses}
        told.append(Reason("learned_pressed", numbers, use.pressed_by))
    if known.learned_floor_bytes is not None and known.learned_floor_until_s is not None:
        left_s = known.learned_floor_until_s - now_s
        told.append(Reason("learned_floor", {"kept_bytes": known.learned_floor_bytes, "left_s": left_s}))
    if known.kill_floor_until_s is not None:
        left_s = known.kill_floor_until_s - now_s
        numbers = {"kept_bytes": known.nominal_bytes, "left_s": left_s, "times": known.kills_seen}
        told.append(Reason("learned_kills", numbers))
    return tuple(told) or (Reason("learned_nothing", {"interval_s": rules.interval_s}),)


def _of_rises(rises: Rises, now_s: float, rules: MemorySettings) -> Reason:
    chosen = STANCES[rules.stance]
    shown_bytes = rises.kept_bytes or MIB
    found, per_day = times(rises, shown_bytes, now_s)
    known_s = now_s - rises.since_s
    numbers = {
        "interval_s": rules.interval_s if rises.interval_s is None else rises.interval_s,
        "rise_bytes": shown_bytes,
        "known_s": known_s,
        "kept_bytes": int(chosen.rise_ratio * rises.kept_bytes),
    }
    if not rises.kept_bytes:
        largest_bytes = int(2.0 ** ((len(rises.counts) - 1) / PER_OCTAVE) * MIB)
        return Reason(
            "learned_seldom",
            numbers | {"per_day": _rounded(per_day), "largest_bytes": largest_bytes},
            rules.stance,
        )
    if known_s < DAY_S:
        return Reason("learned_lately", numbers | {"times": max(1, round(found))}, rules.stance)
    return Reason("learned_rises", numbers | {"per_day": _rounded(per_day)}, rules.stance)


def _rounded(per_day: float) -> float:
    return round(per_day) if per_day >= 10 else float(f"{per_day:.1g}" if per_day < 1 else f"{per_day:.1f}")
