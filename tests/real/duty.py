"""Work in a real guest that can be counted: laps of a fixed number of turns, with a rest after each, or none.

A guest that rests wants only a part of a CPU, however long it has to wait for it. The guest's own clock times
each lap from when it was due: what a user of the guest would wait for an answer.
"""

from __future__ import annotations

from vmpack.lab.lab import LabGuest

_WORK = """
mkfifo /run/never 2> /dev/null
exec 9<> /run/never
lap() {{
    turns=0
    while [ "$turns" -lt {turns} ]; do turns=$((turns + 1)); done
}}
while :; do
    begun=$EPOCHREALTIME
    {rest}
    lap
    echo "$begun $EPOCHREALTIME" >> /run/laps
done
"""


class Duty:
    """One worker in one guest; `begin` starts it, `end` ends it."""

    def __init__(self, guest: LabGuest, turns: int, rest_s: float = 0.0) -> None:
        """Nothing runs yet."""
        self.guest = guest
        self._turns = turns
        self._rest_s = rest_s

    def begin(self) -> None:
        """Start to work."""
        rest = f"read -r -t {self._rest_s} _ <&9" if self._rest_s else ":"
        script = _WORK.format(turns=self._turns, rest=rest)
        self._sh(f": > /run/laps\nsetsid sh -c '{script}' > /dev/null 2>&1 &\necho $! > /run/worker")

    def end(self) -> None:
        """End it at once."""
        self._sh('kill -9 "-$(cat /run/worker)"; true')

    def take_laps_s(self) -> list[float]:
        """How long each lap took beyond its rest, since the last time this was asked."""
        text = self._sh("mv /run/laps /run/taken && : >> /run/laps && cat /run/taken")
        times = [line.split() for line in text.splitlines()]
        return [float(ended) - float(begun) - self._rest_s for begun, ended in times]

    def _sh(self, script: str) -> str:
        done = self.guest.control.run(["sh", "-c", script], 60)
        assert done.exit_code == 0, done.output
        return done.output
