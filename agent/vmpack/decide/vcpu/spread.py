"""Seats that are even enough, with as few changes as possible. Pure; called by plan.py.

On a large board it goes by steps from the fullest bin to the emptiest (even.py). On a small one several ways
are tried, and the fewest changes are searched for (fewest.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from vmpack.decide.vcpu.board import Board, changes
from vmpack.decide.vcpu.cores import apart
from vmpack.decide.vcpu.even import Evener
from vmpack.decide.vcpu.evenest import evenest
from vmpack.decide.vcpu.fewest import fewer, without_needless

SMALL_CELLS = 400
"""Items times bins up to which is searched."""
EVENEST_NODES = 4_000
FEWEST_NODES = 16_000
"""So far the searches go: some tenths of a second, at the few moments when something is decided."""
SLACK_RATIO = 0.005
"""Where the target cannot be met: so near to the best that was found is as good."""
LEAST_GAIN_RATIO = 0.01
"""Nothing is changed for less; one point of the standard deviation."""
_ROUNDS = 4
_NEARLY = 1e-9


def spread(board: Board, seats: Sequence[int], target_ratio: float) -> list[int]:
    """New seats: a standard deviation of at most the target, or hardly above the best that can be reached.

    `seats` itself where that is so already, or where less than LEAST_GAIN_RATIO would be won. Never less even
    than before; spreading the answer again changes nothing.
    """
    if len(board.capacities) < 2:
        return list(seats)
    now = list(seats)
    if board.std_ratio(now) > target_ratio + _NEARLY:
        is_small = len(seats) * len(board.capacities) <= SMALL_CELLS
        now = _searched(board, now, target_ratio) if is_small else _walked(board, now, target_ratio)
    return apart(board, now, target_ratio)


def _walked(board: Board, now: list[int], target_ratio: float) -> list[int]:
    """By steps alone."""
    evener = Evener(board, now)
    before = evener.std_ratio
    evener.even(target_ratio, most_steps=4 * len(now))
    return evener.seats if before - evener.std_ratio >= LEAST_GAIN_RATIO else now


def _searched(board: Board, begun: list[int], target_ratio: float) -> list[int]:
    """By several ways until none finds better seats, and with the fewest changes from where all began."""
    now = begun
    for _ in range(_ROUNDS):
        better = _better(board, now, begun, target_ratio)
        if better == now:
            break
        now = better
    return now


def _better(board: Board, now: list[int], begun: list[int], target_ratio: float) -> list[int]:
    std = board.std_ratio(now)
    if std <= target_ratio + _NEARLY:
        return now
    starts = [now] if now == begun else [now, begun]
    answers = [_stepped(board, start, goal) for start in starts for goal in (target_ratio, 0.0)]
    refilled = _refilled(board, begun)
    if board.is_near(refilled):
        answers.append(_stepped(board, refilled, 0.0))
    best_yet = min(answers, key=board.std_ratio)
    if board.std_ratio(best_yet) > target_ratio:
        answers.append(evenest(board, now, best_yet, EVENEST_NODES))
    best = min(board.std_ratio(answer) for answer in answers)
    if std - best < LEAST_GAIN_RATIO:
        return now
    goal = max(target_ratio, best + SLACK_RATIO)
    fitting = [
        without_needless(board, begun, answer, goal)
        for answer in answers
        if board.std_ratio(answer) <= goal + _NEARLY
    ]
    answer = min(fitting, key=lambda one: (changes(begun, one), board.std_ratio(one)))
    return fewer(board, begun, answer, goal, FEWEST_NODES)


def _stepped(board: Board, seats: Sequence[int], goal_ratio: float) -> list[int]:
    evener = Evener(board, seats)
    evener.even(goal_ratio, most_steps=4 * len(seats))
    return evener.seats


def _refilled(board: Board, seats: Sequence[int]) -> list[int]:
    """All items taken out, and put in again: the largest first, each where the level then is lowest.

    Longest processing time first (Graham 1969). Among equally low bins an item prefers the one it came from.
    """
    new = [-1] * len(seats)
    loads = list(board.fixed)
    for item in sorted(range(len(seats)), key=lambda one: -board.sizes[one]):
        home, size = seats[item], board.sizes[item]
        allowed = board.allowed[item]
        bins = [
            number
            for number in range(len(loads))
            if (number == home or allowed is None or number in allowed) and board.is_clear(item, number, new)
        ] or [home]
        to_bin = min(
            bins, key=lambda one: (round((loads[one] + size) / board.capacities[one], 9), one != home)
        )
        new[item] = to_bin
        loads[to_bin] += size
    return new
