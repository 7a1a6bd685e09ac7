"""What `vmpack explain` says was learned of a VM."""

from __future__ import annotations

from tests.builders import EAGER, NOW_S, guest, host

from vmpack.decide.experience import experience
from vmpack.decide.explain import words
from vmpack.decide.memory import plan
from vmpack.decide.volatility import DAY_S, learned
from vmpack.model.learned import Learned
from vmpack.model.plan import Remembered, RememberedGuest, Rises
from vmpack.units import MIB

LATER_S = NOW_S + 10 * DAY_S
RULES = EAGER.memory


def known_guest(rises: Rises | None = None) -> RememberedGuest:
    seen = guest(used=40)
    known = plan(host(seen), Remembered(), EAGER).remembered.guests[seen.uuid]
    assert known.use is not None
    return known._replace(use=known.use._replace(rises=rises))


def risen(*rises: tuple[float, int], kept_per_day: float = 2.0) -> Rises:
    """After these rises, as (day, MiB), judged ten days in."""
    found: Rises | None = None
    for day, rise in sorted(rises):
        found = learned(found, rise * MIB, NOW_S + day * DAY_S, kept_per_day, RULES.interval_s)
    found = learned(found, 0, LATER_S, kept_per_day, RULES.interval_s)
    assert found is not None
    return found


def told(known: RememberedGuest | None, now_s: float = LATER_S) -> str:
    return "\n".join(words(reason)[0] for reason in experience(known, now_s, RULES))


def test_usual_rises_are_told_with_what_is_kept_for_them():
    """An administrator would see headroom that no setting of his explains."""
    rises = risen(*[(quarter / 4, 96) for quarter in range(40)])

    assert "within 60.0 s" in told(known_guest(rises._replace(interval_s=60.0)))
    assert told(known_guest(rises)) == (
        "its use rises by about 108 MiB or more within 5.0 s some 3.7 times a day (known for 10.0 d); "
        "129 MiB are kept for that (stance balanced)"
    )


def test_what_is_kept_is_what_decisions_keep():
    """The words would be a story beside the numbers."""
    rises = risen(*[(quarter / 4, 20) for quarter in range(40)])
    seen = guest(used=40, now_s=LATER_S)
    numbers = []
    for known in (known_guest(rises), known_guest()):
        decided = plan(host(seen, now_s=LATER_S), Remembered({seen.uuid: known}), EAGER)
        numbers.append(decided.guests[0].reasons[0].numbers["elastic_headroom_bytes"])
    (reason,) = experience(known_guest(rises), LATER_S, RULES)

    assert reason.numbers["kept_bytes"] == numbers[0] - numbers[1] > 0


def test_a_vm_known_for_an_hour_is_told_by_that_hour():
    """Two jumps while it booted would be told as fifty a day."""
    first = learned(None, 96 * MIB, NOW_S, 2.0, RULES.interval_s)
    rises = learned(first, 96 * MIB, NOW_S + 60, 2.0, RULES.interval_s)

    assert "2 times in the 60 min since its first rise" in told(known_guest(rises), NOW_S + 3600)


def test_seldom_rises_are_told_too():
    """Who wonders why nothing is kept for last week's jump would find nothing about it."""
    said = told(known_guest(risen((1.0, 96), (9.0, 10))))

    assert "rises seldom: some 0.3 times a day" in said
    assert "108 MiB at most" in said and "nothing is kept" in said


def test_what_presses_stops_and_kills_cost_is_told_with_its_end():
    """A VM that stays large for hours would look like a mistake."""
    known = known_guest()
    assert known.use is not None
    use = known.use._replace(
        pressed_floor_bytes=150 * MIB, pressed_floor_until_s=LATER_S + 1800, presses=2, pressed_by="faults"
    )
    known = known._replace(
        use=use,
        learned_floor_bytes=170 * MIB,
        learned_floor_until_s=LATER_S + 600,
        kills_seen=3,
        kill_floor_until_s=LATER_S + 4 * 3600,
    )
    pressed, floor, kills = told(known).splitlines()

    assert pressed.startswith("it swapped in or faulted hard when it had less (2 times in a row)")
    assert "150 MiB are kept for 30 min more" in pressed
    assert "stopped at 170 MiB" in floor and "10 min" in floor
    assert "3 times lately" in kills and "256 MiB for 4.0 h" in kills
    assert told(known, LATER_S + 1801).count("\n") == 1


def test_nothing_learned_is_said():
    """An empty place looks like a fault of the agent."""
    assert "nothing yet" in told(known_guest())
    brought = Learned(NOW_S, 256 * MIB, 3600.0, (1.0,))
    assert "first report" in told(known_guest()._replace(use=None, carried=brought))
    assert told(None) == ""
