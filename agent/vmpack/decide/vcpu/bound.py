"""What no way to place the rest of a load can get below. Used to cut searches short."""

from __future__ import annotations

from collections.abc import Sequence

_NEARLY = 1e-9


def least_squares(loads: Sequence[float], capacities: Sequence[float], left: float) -> float:
    """The sum of the squared distances of the levels from their mean, once `left` is added to the loads.

    At least, and however that is cut up. Bins that are above the others' common level keep theirs; the
    others' follow from both derivatives (by the load of each, by the mean) being 0. Where that is no
    minimum: 0.
    """
    count = len(loads)
    levels = [load / room for load, room in zip(loads, capacities, strict=True)]
    order = sorted(range(count), key=levels.__getitem__)
    free_load, free_room, free_square, above = left, 0.0, 0.0, sum(levels)
    for place, number in enumerate(order):
        room = capacities[number]
        free_load += loads[number]
        free_room += room
        free_square += room * room
        above -= levels[number]
        following = order[place + 1 :]
        if not following:
            return 0.0
        if free_load / free_room > levels[following[0]]:
            continue
        free = place + 1
        # Mean m, slope s, free levels m - s c: sum of c (m - s c) = free_load, (count - free) m = above - s C
        slope = (free_room * above - free_load * (count - free)) / (
            free_square * (count - free) + free_room * free_room
        )
        mean = (above - slope * free_room) / (count - free)
        ours = [mean - slope * capacities[one] for one in order[:free]]
        fits = all(new >= levels[one] - _NEARLY for new, one in zip(ours, order, strict=False))
        pressed = all(levels[one] - mean + slope * capacities[one] >= -_NEARLY for one in following)
        if slope < 0 or not fits or not pressed:
            return 0.0
        return slope * slope * free_square + sum((levels[one] - mean) ** 2 for one in following)
    return 0.0
