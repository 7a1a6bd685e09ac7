"""A scene's intervals as text, for those who read why a test failed."""

from __future__ import annotations

from collections.abc import Sequence

from vmpack.model.action import SetMemory
from vmpack.publish.journal import JournalLine
from vmpack.units import MIB


def told(lines: Sequence[JournalLine], marks: Sequence[tuple[float, str]]) -> str:
    """One line an interval, in MiB: room, and per VM balloon/minimum/wanted/target, usable and its moves."""
    rows = ["VM: balloon minimum..wanted -> target (usable) [moves]; all in MiB"]
    waiting = list(marks)
    for line in lines:
        while waiting and waiting[0][0] <= line.snapshot.time_s:
            rows.append(f"-- {waiting.pop(0)[1]}")
        rows.append(_row(line))
    return "\n".join((*rows, *(f"-- {what}" for _, what in waiting)))


def _row(line: JournalLine) -> str:
    plans = {guest.uuid: guest for guest in line.plan.guests}
    cells = []
    for guest in sorted(line.snapshot.guests, key=lambda guest: guest.name):
        plan, stats = plans[guest.uuid], guest.stats
        moves = [
            f"{outcome.action.to_bytes // MIB} {outcome.status}"
            for outcome in line.outcomes
            if isinstance(outcome.action, SetMemory) and outcome.action.uuid == guest.uuid
        ]
        usable = "?" if stats is None else f"{stats.usable_bytes // MIB}"
        need = f"{plan.minimum_bytes // MIB}..{plan.wanted_bytes // MIB}"
        cells.append(
            f"{guest.name}: {guest.balloon_bytes // MIB} {need}"
            f" -> {plan.target_bytes // MIB} ({usable}) {moves or ''} {plan.reasons[-1].rule}"
        )
    at_s = f"{line.snapshot.time_s:.1f}"
    return f"#{line.number} {at_s} room {line.plan.room_bytes // MIB}: " + " | ".join(cells)
