"""What a host has learned of its rises, for the tests of offers."""

from __future__ import annotations

from tests.builders import NOW_S
from vmpack.decide.host_rises import Change, Extent, learned
from vmpack.model.plan import HostRises

DAY_S = 86400.0
REACTION_S = 60.0
SIZE = Extent(1024, 1024)


def known(
    counts: tuple[float, ...] = (),
    windows: float = 1440.0,
    days: float = 1.0,
    together: tuple[float, ...] = (),
) -> HostRises:
    """So many windows were seen, with rises of these sizes; nobody is a newcomer."""
    since_s = NOW_S - days * DAY_S
    return HostRises(counts, together, windows, since_s, NOW_S, NOW_S, REACTION_S, 0, 0, ())


def watch(changes: list[int], step_s: float = 10.0, share: float = 1.0) -> HostRises:
    """What is learned from these changes of the VMs' use, one a step, to which one VM adds this share."""
    rises = learned(None, Change(0, 0), SIZE, {}, NOW_S, NOW_S, REACTION_S)
    for number, change in enumerate(changes, 1):
        found = Change(change, max(0, int(share * change)))
        rises = learned(rises, found, SIZE, {}, *2 * [NOW_S + number * step_s], REACTION_S)
    return rises
