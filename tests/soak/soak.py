"""One soak: a lab, its guests and an agent, through churn and calm, watched all the time."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.real.agent_process import AgentProcess
from tests.soak.churn import GUESTS, Event, Phase, events, phases
from tests.soak.guests import SoakGuests
from tests.soak.vitals import Vitals, read_vitals
from tests.soak.watch import AgentWatch, host_oom_kills, room_bytes
from vmpack.errors import UnavailableError, VmpackError
from vmpack.lab.lab import Lab
from vmpack.model.interval import Interval
from vmpack.units import MIB, format_bytes

HOST_BYTES = 1060 * MIB
"""What the host pretends to have: too little for all guests at nominal, enough for all that they need."""
JOURNAL_CAP_BYTES = MIB
SAMPLE_EVERY_S = 10.0
PROGRESS_EVERY_S = 60.0
MARGIN_BYTES = 24 * MIB
"""Room that a rising need leaves to the others."""
RISE_S = 60.0
"""The longest rise is over by then, unless the machine is too busy."""
AWAY_S = (3.0, 12.0)
"""How long a paused or saved guest is away."""

CONFIG = f"""
[host]
memory_bytes = "{HOST_BYTES // MIB}MiB"
[memory]
calm_s = CALM_S
[publish]
journal_cap_bytes = "{JOURNAL_CAP_BYTES // MIB}MiB"
journal_segment_bytes = "64KiB"
"""


@dataclass(slots=True)
class Calm:
    """One calm phase: what still moved, and when it was quiet."""

    phase: Phase
    settled_after_s: float = 0.0
    """Of the last action, since the phase began."""
    late_actions: int = 0
    """After the time for settling."""

    @property
    def is_judged(self) -> bool:
        """A phase must leave a minute after settling."""
        return self.phase.end_s - self.phase.settled_s >= 60


@dataclass(slots=True)
class Findings:
    """Everything that a soak has seen so far."""

    planned: Counter[str] = field(default_factory=Counter)
    done: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    """Where the guest did not run, or the host had no room: then a kill would be by right."""
    samples: list[Vitals] = field(default_factory=list)
    calms: list[Calm] = field(default_factory=list)
    guest_kills: int = 0
    host_kills: int = 0
    passed_s: float = 0.0
    broken_off: str = ""


class Soak:
    """Runs once. `say` gets a line a minute."""

    def __init__(
        self, lab: Lab, folder: Path, hours: float, churn: float, seed: int, say: Callable[[str], None]
    ) -> None:
        self.findings = Findings()
        self._phases = phases(hours)
        self._waiting = list(events(seed, churn, self._phases))
        self._folder = folder
        self._say = say
        self._daemon_pid = int((lab.state.root / "daemon.pid").read_text())
        self._guests = SoakGuests(lab, seed)
        self._agent = _agent(folder, lab.uri)
        self.watch = AgentWatch(self._agent)
        self._began_s = time.monotonic()
        self._actions_seen = 0
        self._reloads = 0
        self.findings.planned.update(event.kind for event in self._waiting)

    @property
    def guests(self) -> SoakGuests:
        return self._guests

    def run(self) -> None:
        """From the first phase to the last. Raises KeyboardInterrupt, and whatever breaks it off."""
        host_kills = host_oom_kills()
        with self._agent:
            self._guests.start(*range(GUESTS))
            self._agent.ready()
            self._began_s = time.monotonic()
            try:
                for phase in self._phases:
                    self._pass(phase, host_kills)
                self._agent.stop()
            finally:
                self._note_passed(host_kills)

    def _now_s(self) -> float:
        return time.monotonic() - self._began_s

    def _pass(self, phase: Phase, host_kills: int) -> None:
        if phase.calm:
            self._begin_calm(phase)
        next_sample_s = next_line_s = self._now_s()
        while (now_s := self._now_s()) < phase.end_s:
            if now_s >= next_sample_s:
                self._sample(phase)
                next_sample_s = now_s + SAMPLE_EVERY_S
            if now_s >= next_line_s:
                self._note_passed(host_kills)
                self._say(self._line(phase))
                next_line_s = now_s + PROGRESS_EVERY_S
            if self._waiting and self._waiting[0].at_s <= now_s and not phase.calm:
                self._happen(self._waiting.pop(0))
            else:
                time.sleep(0.5)

    def _begin_calm(self, phase: Phase) -> None:
        while self._waiting and self._waiting[0].at_s < phase.begin_s:
            self._happen(self._waiting.pop(0))
        self.findings.calms.append(Calm(phase))
        self._look()
        self._actions_seen = self.watch.counts["actions"]

    def _look(self) -> None:
        self.watch.look(self._guests.rss_bytes())

    def _sample(self, phase: Phase) -> None:
        self._look()
        now_s = self._now_s()
        self.findings.samples.append(
            read_vitals(
                now_s,
                self._agent.process.pid,
                self._agent.state_dir,
                self._agent.run_dir,
                self._daemon_pid,
            )
        )
        actions = self.watch.counts["actions"]
        if phase.calm and actions > self._actions_seen:
            calm = self.findings.calms[-1]
            calm.settled_after_s = now_s - phase.begin_s
            if now_s > phase.settled_s:
                calm.late_actions += actions - self._actions_seen
        self._actions_seen = actions

    def _note_passed(self, host_kills: int) -> None:
        self.findings.passed_s = self._now_s()
        self.findings.guest_kills = self._guests.kills()
        self.findings.host_kills = host_oom_kills() - host_kills

    def _line(self, phase: Phase) -> str:
        found, kept, last = self.findings, self.watch.budget, self.findings.samples[-1]
        status = self.watch.status()
        interval = status.interval if status else None
        guests = interval.snapshot.guests if interval else ()
        held = format_bytes(sum(guest.balloon_bytes for guest in guests))
        return (
            f"{found.passed_s / 60:6.1f} min {'calm ' if phase.calm else 'churn'}"
            f" | {len(guests)} VMs hold {held} of {format_bytes(kept.budget_bytes)}"
            f" | {found.done.total()} events, {found.skipped.total()} skipped"
            f" | {self.watch.counts['intervals']} intervals, {self.watch.counts['actions']} actions"
            f" | kills: {found.guest_kills} in guests, {found.host_kills} on the host"
            f" | agent {format_bytes(last.rss_bytes)}, {last.descriptors} fds, {last.threads} threads"
            f" | journal {format_bytes(last.journal_bytes)}, {len(self.watch.log_faults())} log faults"
        )

    def _happen(self, event: Event) -> None:
        act = {
            "need": self._change_need,
            "start_or_stop": self._start_or_stop,
            "pause": self._pause,
            "save": self._save,
            "restart": self._restart,
            "reload": self._reload,
        }[event.kind]
        self._note(f"{event.kind} of guest {event.guest}, {event.ratio:.2f}")
        try:
            happened = act(event)
        except UnavailableError as error:  # a guest that has no CPU time answers nobody
            self._guests.silences.append(f"{event.kind} at {event.at_s:.0f} s: {error}")
            happened = False
        self._note("done" if happened else "skipped")
        (self.findings.done if happened else self.findings.skipped)[event.kind] += 1

    def _note(self, text: str) -> None:
        """A line among those of the agent's log, so that each shows what the other caused."""
        with self._agent.log_path.open("a") as log:
            log.write(f"[soak {self._now_s():.1f} s] {text}\n")

    def _interval(self) -> Interval | None:
        status = self.watch.status()
        return status.interval if status else None

    def _change_need(self, event: Event) -> bool:
        if event.guest in self._guests.stopped:
            return False
        rise, interval = self._guests.rise_bytes(event.guest, event.ratio), self._interval()
        if rise:
            needed = rise + self._guests.outstanding_bytes() + MARGIN_BYTES
            if interval is None or room_bytes(interval) < needed:
                return False
        self._guests.change_need(event.guest, event.ratio)
        return True

    def _start_or_stop(self, event: Event) -> bool:
        if not self._guests.stopped:
            self._guests.stop(event.guest)
            return True
        number, interval = self._guests.stopped[0], self._interval()
        if interval is None:
            return False
        # It starts whole: the others' needs and all of its own must fit, with its process's own memory.
        overhead = interval.plan.budget.overhead_bytes // max(1, len(self._guests.running))
        needed = self._guests.nominal_bytes(number) + overhead + self._guests.outstanding_bytes()
        if room_bytes(interval) < needed:
            return False
        self._guests.start(number)
        return True

    def _pause(self, event: Event) -> bool:
        if event.guest in self._guests.stopped:
            return False
        self._guests.suspend(event.guest)
        self._away(event.ratio)
        self._guests.resume(event.guest)
        return True

    def _save(self, event: Event) -> bool:
        if event.guest in self._guests.stopped:
            return False
        path = self._folder / "saved"
        self._guests.save(event.guest, path)
        self._away(event.ratio)
        self._guests.restore(path)
        return True

    def _within(self, deadline_s: float, condition: Callable[[], bool]) -> bool:
        end_s = self._now_s() + deadline_s
        while not condition():
            if self._now_s() > end_s:
                return False
            time.sleep(0.5)
        return True

    def _away(self, ratio: float) -> None:
        shortest_s, longest_s = AWAY_S
        time.sleep(shortest_s + ratio * (longest_s - shortest_s))

    def _restart(self, event: Event) -> bool:
        # Nobody serves a need that rises while there is no agent.
        if not self._within(RISE_S, lambda: self._guests.outstanding_bytes() == 0):
            return False
        self._look()
        self.watch.counts.agent_ended()
        # As an administrator does it, or as a crash does.
        self._agent.stop(signal.SIGTERM if event.ratio < 0.5 else signal.SIGKILL)
        self._agent.restart()
        self._agent.ready()
        return True

    def _reload(self, _event: Event) -> bool:
        self._reloads += 1
        self._agent.config_path.write_text(_config(self._reloads))
        self._agent.process.send_signal(signal.SIGHUP)
        return True


def _agent(folder: Path, uri: str) -> AgentProcess:
    log = folder / "log"
    log.touch()
    found = log.stat()
    # The agent then writes each line's level.
    return AgentProcess(folder, uri, config=_config(0), JOURNAL_STREAM=f"{found.st_dev}:{found.st_ino}")


def _config(reloads: int) -> str:
    return CONFIG.replace("CALM_S", str(30 + reloads % 2))


def broken_off(error: BaseException) -> str:
    """Why a soak ended early, in one line."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    words = str(error).splitlines() if isinstance(error, (VmpackError, AssertionError)) else [str(error)]
    return f"{type(error).__name__}: {words[0] if words else ''}"
