"""What goes with a VM of all that was learned of it, and how another agent takes it up.

Called by learn.py for a VM that is seen for the first time, and by host/lessons, which has it written into
the VM's metadata when that would change what a reader keeps for the VM.

A VM that serves another purpose is learned anew where its nominal changed; else what it no longer does counts
half with each day. Time in which nobody looked (it was saved, or off) counts for a day at most: then it was
only not seen.
"""

from __future__ import annotations

from vmpack.decide.stance import STANCES
from vmpack.decide.volatility import DAY_S, READY_PER_DAY, faded_counts, of_interval, usual_bytes
from vmpack.model.learned import Lapse, Learned
from vmpack.model.plan import LearnedUse, RememberedGuest, Rises

UNSEEN_COUNTS_S = DAY_S
FORGOTTEN_S = 7 * DAY_S
"""Nobody looked at the VM for so long: what was learned then says nothing now."""
REFRESHED_S = DAY_S
"""What holds unchanged is written anew so often: else it could not be told from what is forgotten."""
SAME_END_S = 600.0
_RATES = sorted({READY_PER_DAY, *(stance.rises_per_day for stance in STANCES.values())})


def lesson(known: RememberedGuest, now_s: float) -> Learned | None:
    """What is worth keeping of this VM now, None where nothing is."""
    use = known.use
    rises = use.rises if use is not None else None
    pressed = None
    if use is not None and use.pressed_floor_until_s is not None and use.presses:
        pressed = Lapse(use.presses, use.pressed_floor_until_s - now_s, use.pressed_floor_bytes)
    killed = None
    if known.kills_seen and known.killed_s is not None:
        until_s = known.kill_floor_until_s
        killed = Lapse(known.kills_seen, (known.killed_s if until_s is None else until_s) - now_s)
    if rises is None and pressed is None and killed is None:
        return None
    if rises is None:
        return Learned(now_s, known.nominal_bytes, 0.0, (), pressed, killed)
    counts, known_s = faded_counts(rises, now_s), now_s - rises.since_s
    return Learned(now_s, known.nominal_bytes, known_s, counts, pressed, killed, rises.interval_s)


def is_news(written: Learned | None, found: Learned | None) -> bool:
    """Would a reader keep something else for the VM by what is found than by what is written?"""
    if written is None or found is None:
        return written is not found
    now_s = found.written_s
    if written.nominal_bytes != found.nominal_bytes or now_s - written.written_s >= REFRESHED_S:
        return True
    if written.interval_s != found.interval_s:
        return True
    if _is_other(written, written.pressed, found, found.pressed):
        return True
    if _is_other(written, written.killed, found, found.killed):
        return True
    return _kept(written, now_s) != _kept(found, now_s)


def _is_other(written: Learned, before: Lapse | None, found: Learned, after: Lapse | None) -> bool:
    if before is None or after is None:
        return before is not after
    if (before.times, before.kept_bytes) != (after.times, after.kept_bytes):
        return True
    return abs(written.written_s + before.left_s - found.written_s - after.left_s) > SAME_END_S


def _kept(learned: Learned, now_s: float) -> list[int]:
    rises = _rises(learned, now_s)
    return [] if rises is None else [usual_bytes(rises, rate, now_s) for rate in _RATES]


def fitting(learned: Learned | None, nominal_bytes: int, now_s: float) -> Learned | None:
    """What a VM that is seen for the first time brings, None where it says nothing of this one."""
    if learned is None or learned.nominal_bytes != nominal_bytes:
        return None
    return learned if now_s - learned.written_s < FORGOTTEN_S else None


def taken_up(
    use: LearnedUse, learned: Learned, now_s: float, kept_per_day: float, interval_s: float
) -> LearnedUse:
    """A guest's first report, with what was learned before it."""
    rises = of_interval(_rises(learned, now_s), interval_s)
    if rises is not None:
        rises = rises._replace(
            judged_s=now_s,
            usual_bytes=usual_bytes(rises, READY_PER_DAY, now_s),
            kept_bytes=usual_bytes(rises, kept_per_day, now_s),
        )
    use = use._replace(rises=rises)
    pressed = learned.pressed
    if pressed is None:
        return use
    return use._replace(
        pressed_floor_bytes=pressed.kept_bytes,
        pressed_floor_until_s=_until_s(learned, pressed, now_s),
        presses=pressed.times,
        pressed_by="before",
    )


def kills_taken_up(learned: Learned | None, now_s: float) -> tuple[int, float | None, float | None]:
    """Kills seen, when the last was, and until when its nominal is kept for it."""
    if learned is None or learned.killed is None:
        return 0, None, None
    until_s = _until_s(learned, learned.killed, now_s)
    return learned.killed.times, min(learned.written_s, until_s, now_s), until_s if until_s > now_s else None


def _until_s(learned: Learned, lapse: Lapse, now_s: float) -> float:
    """What is kept is kept for a week at most, however another clock or hand wrote it."""
    return min(learned.written_s + lapse.left_s, now_s + FORGOTTEN_S)


def _rises(learned: Learned, now_s: float) -> Rises | None:
    if not learned.counts:
        return None
    age_s = min(max(0.0, now_s - learned.written_s), UNSEEN_COUNTS_S)
    since_s = now_s - age_s - learned.known_s
    return Rises(learned.counts, since_s, now_s - age_s, interval_s=learned.interval_s)
