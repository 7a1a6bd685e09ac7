"""Dividing memory that is not enough for all: unmet need in proportion to want, against shares."""

from __future__ import annotations

from collections.abc import Sequence


def fill(total: int, least: Sequence[int], most: Sequence[int], shares: Sequence[int]) -> list[int]:
    """Give each guest between `least` and `most` bytes, `total` bytes in all.

    What a guest goes short of is `most * level / shares` with one common level (water-filling), so equal
    guests fall short equally and one with twice the shares half as much. Where even all of `least` do not
    fit, each gets its least.

    Guarantees: least <= given <= most; the sum is at most max(total, sum(least)); O(n log n).
    """
    if sum(most) <= total:
        return list(most)
    if sum(least) >= total:
        return list(least)
    slopes = [most_i / shares_i for most_i, shares_i in zip(most, shares, strict=True)]
    by_breakpoint = sorted(
        ((most[i] - least[i]) / slopes[i], i) for i in range(len(most)) if most[i] > least[i]
    )
    given_at_zero = float(sum(most))
    slope = sum(slopes[i] for _, i in by_breakpoint)
    level = 0.0
    for breakpoint, i in by_breakpoint:
        level = (given_at_zero - total) / slope
        if level <= breakpoint:
            break
        given_at_zero -= most[i] - least[i]
        slope -= slopes[i]
    return [
        max(least_i, int(most_i - level * slope_i))
        for least_i, most_i, slope_i in zip(least, most, slopes, strict=True)
    ]


def fill_capped(
    total: int, least: Sequence[int], most: Sequence[int], caps: Sequence[int], shares: Sequence[int]
) -> list[int]:
    """As `fill`, but nobody gets more than its cap (least <= cap <= most); others get what that frees.

    Guarantees: least <= given <= cap; the sum is at most max(total, sum(least)).
    """
    lower, upper = list(least), list(most)
    while True:
        given = fill(total, lower, upper, shares)
        over = [i for i in range(len(given)) if given[i] > caps[i]]
        if not over:
            return given
        for i in over:
            # Fixed from both sides, so it is out of the division.
            lower[i] = upper[i] = caps[i]
