"""What a reporter goes through in a guest: calm, memory that rises, an outage, calm again, uninstalled.

Used by test_onegate_reporter.py, which judges what the guest and its double of OneGate know afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from tests.opennebula.onegate import OneGate, Request, Vm, stored
from tests.real.onegate_guest import APPLIED, STATUS, OneGateGuest
from tests.waiting import eventually
from vmpack.lab.control import GuestMemory
from vmpack.units import MIB

PERIOD_S = 5
LONG_PERIOD_S = 30
"""While memory rises: what is told because of that is told long before, on the slowest machine."""
FIRST = {"FLOOR": "131072", "MEM_OVER": "15", "TARGET": "196608"}
LATER = {"FLOOR": "131072", "MEM_OVER": "20", "TARGET": "163840"}
LOAD_BYTES = 64 * MIB


@dataclass(slots=True)
class Course:
    """What is known of one guest's course. Times are those of the double."""

    files_before: dict[str, int]
    processes_before: dict[int, str]
    requests: list[Request]
    compared: list[tuple[GuestMemory, dict[str, int]]] = field(default_factory=list)
    rise: tuple[Request, ...] = ()
    change_s: tuple[float, float] = (0.0, 0.0)
    outage_s: tuple[float, float] = (0.0, 0.0)
    interpreter: str = ""
    processes: list[dict[int, str]] = field(default_factory=list)
    files_running: dict[str, int] = field(default_factory=dict)
    files_after: dict[str, int] = field(default_factory=dict)
    processes_after: dict[int, str] = field(default_factory=dict)

    def reports(self) -> list[Request]:
        """The reports that were accepted."""
        return [request for request in self.requests if request.method == "PUT" and request.status == 200]

    def calm_gaps_s(self) -> list[float]:
        """Between reports while memory was left alone and the cloud was there."""
        busy = (self.change_s, self.outage_s)
        return [b - a for a, b in self._pairs() if not any(begin < b and a < end for begin, end in busy)]

    def summary(self) -> str:
        """The course in figures, for people."""
        times = [request.at_s for request in self.requests]
        calm_s = sorted(self.calm_gaps_s())
        late = sum(gap > PERIOD_S for gap in calm_s)
        return (
            f"{self.interpreter}: {times[-1] - times[0]:.1f} s, {len(self.requests)} requests,"
            f" {len(self.reports())} reports; shortest gap {min(b - a for a, b in pairwise(times)):.2f} s;"
            f" calm: {len(calm_s)} gaps of {calm_s[0]:.2f} to {calm_s[-1]:.2f} s, {late} over {PERIOD_S} s;"
            f" a rise told after {self.rise[1].at_s - self.rise[0].at_s:.2f} s;"
            f" outage {self.outage_s[1] - self.outage_s[0]:.1f} s"
        )

    def _pairs(self) -> list[tuple[float, float]]:
        return list(pairwise(report.at_s for report in self.reports()))


class Traveller:
    """One guest on its course, with a double of OneGate of its own."""

    def __init__(self, guest: OneGateGuest, vm: Vm) -> None:
        self._guest, self._vm = guest, vm
        self._applied: list[tuple[int, set[str]]] = []
        self._gate = OneGate(vm, process=guest.network_of)
        guest.set_context(self._gate.port, vm, PERIOD_S)
        self.course = Course(guest.files(), guest.processes(), self._gate.requests)

    def close(self) -> None:
        """End the double."""
        self._gate.close()

    def travel(self, seconds: float) -> None:
        """Go the whole course, so many seconds from the first report or a little longer."""
        self._apply(FIRST)
        self._guest.init()
        self._await_applied()
        self.course.interpreter = self._guest.sh("readlink /proc/$(cat /run/vmpack/reporter.pid)/exe").strip()
        self._apply(LATER)
        self._calm(0.3 * seconds)
        self._change_memory()
        self._outage()
        self._calm(seconds)
        self._await_applied()
        self.course.files_running = self._guest.files()
        self._guest.init("uninstall")
        self.course.processes_after = self._guest.processes()
        self.course.files_after = self._guest.files()

    def _apply(self, values: dict[str, str]) -> None:
        named = {f"VMPACK_APPLIED_{name}": value for name, value in values.items()}
        self._applied.append(
            (len(self.course.requests), {f"{name}={value}" for name, value in named.items()})
        )
        self._vm.template |= named

    def _await_applied(self) -> None:
        """The guest asks once in three or four reports: it knows what the last answer was."""

        def answered() -> set[str]:
            asked = [number for number, request in enumerate(self.course.requests) if request.method == "GET"]
            lines = [lines for since, lines in self._applied if asked and since <= asked[-1]]
            return lines[-1] if lines else set()

        eventually("the guest asks", answered)
        eventually("it knows", lambda: set(self._guest.text(APPLIED).splitlines()) == answered())
        self._look()

    def _calm(self, seconds: float) -> None:
        """Until this long after the first report."""
        end_s = self.course.requests[0].at_s + seconds
        eventually(f"{seconds:g} s of reports", lambda: self.course.requests[-1].at_s >= end_s, 10 * seconds)
        self._look()

    def _look(self) -> None:
        """See which processes there are, and compare the guest's memory with its next report."""
        self.course.processes.append(self._guest.processes())
        memory = self._guest.control.mem()
        self.course.compared.append((memory, self._next_report()))

    def _next_report(self) -> dict[str, int]:
        seen = len(self.course.reports())
        eventually("a report", lambda: len(self.course.reports()) > seen)
        return {name: int(value) for name, value in stored(self.course.reports()[seen].body).items()}

    def _change_memory(self) -> None:
        """Take memory in a long period, which a new context brings, and give it back in a short one."""
        begin_s = self.course.reports()[-1].at_s
        self._set_period(LONG_PERIOD_S)
        seen = len(self.course.reports())
        control = self._guest.control
        control.load_tmpfs(LOAD_BYTES)
        eventually("a report", lambda: len(self.course.reports()) > seen, 10 * LONG_PERIOD_S)
        self.course.rise = tuple(self.course.reports()[seen - 1 : seen + 1])
        eventually("the guest has its memory", lambda: control.progress()[0].state == "done")
        self._set_period(PERIOD_S)
        self._look()
        control.free()
        self._look()
        self.course.change_s = (begin_s, self.course.reports()[-1].at_s)

    def _set_period(self, period_s: int) -> None:
        self._guest.set_context(self._gate.port, self._vm, period_s)
        self._await_status(f"at least every {period_s} s")

    def _outage(self) -> None:
        """OneGate goes; then something answers in its place that it is not there; then it is back."""
        begin_s = self.course.reports()[-1].at_s
        self._gate.close()
        self._await_status("no answer from")
        self._gate.refusal = (503, "no server is available")
        self._gate.open()
        eventually("two more attempts", lambda: len(self._refused()) >= 2, 20 * 4 * PERIOD_S)
        self._await_status("OneGate answers 503")
        seen = len(self.course.reports())
        self._gate.refusal = None
        eventually("a report", lambda: len(self.course.reports()) > seen, 20 * 8 * PERIOD_S)
        self.course.outage_s = (begin_s, self.course.reports()[-1].at_s)
        self._await_status("reporting to")

    def _refused(self) -> list[Request]:
        return [request for request in self.course.requests if request.status == 503]

    def _await_status(self, words: str) -> None:
        eventually(words, lambda: words in self._guest.text(STATUS))
