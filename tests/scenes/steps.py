"""What happens in a scene, as data: each step is a value that a stage plays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from tests.scenes.stage import SCENE_DEADLINE_S, Stage
from tests.waiting import eventually


class Step(Protocol):
    """One thing that happens. Guests are letters: "AC" are two of them."""

    def play(self, stage: Stage) -> None:
        """Make it happen, and wait where the step says so."""
        ...


@dataclass(frozen=True, slots=True)
class Consume:
    """Guests begin to use memory, at a rate (0: as fast as they can)."""

    guests: str
    amount_bytes: int
    rate_bytes_per_s: int
    kind: Literal["tmpfs", "anonymous"] = "tmpfs"

    def play(self, stage: Stage) -> None:
        for name in self.guests:
            control = stage.guests[name].control
            load = control.load_tmpfs if self.kind == "tmpfs" else control.load_anonymous
            load(self.amount_bytes, self.rate_bytes_per_s)


@dataclass(frozen=True, slots=True)
class Done:
    """Wait until these guests have all that their loads want."""

    guests: str

    def play(self, stage: Stage) -> None:
        eventually(
            f"loads of {self.guests} are complete; the agent says:\n{stage.agent.log}",
            lambda: stage.loaded(self.guests),
            SCENE_DEADLINE_S,
        )


@dataclass(frozen=True, slots=True)
class Starve:
    """Wait until all loads of these guests wait for memory."""

    guests: str

    def play(self, stage: Stage) -> None:
        eventually(
            f"{self.guests} have no memory left; the agent says:\n{stage.agent.log}",
            lambda: stage.load_states(self.guests) == {"waiting"},
            SCENE_DEADLINE_S,
        )


@dataclass(frozen=True, slots=True)
class Release:
    """Guests free all that their loads hold."""

    guests: str

    def play(self, stage: Stage) -> None:
        for name in self.guests:
            stage.guests[name].control.free()


@dataclass(frozen=True, slots=True)
class Settle:
    """Wait until nothing moves any more."""

    still_turns: int = 3

    def play(self, stage: Stage) -> None:
        stage.settle(self.still_turns)


@dataclass(frozen=True, slots=True)
class Pass:
    """So many intervals go by, early ones included."""

    intervals: int

    def play(self, stage: Stage) -> None:
        stage.agent.pass_turns(self.intervals)


@dataclass(frozen=True, slots=True)
class Resize:
    """The host gets another size: this much room for balloons."""

    room_bytes: int

    def play(self, stage: Stage) -> None:
        stage.resize_host(self.room_bytes)


@dataclass(frozen=True, slots=True)
class Start:
    """One more VM comes."""

    guest: str

    def play(self, stage: Stage) -> None:
        stage.start_guest(self.guest)


@dataclass(frozen=True, slots=True)
class End:
    """A VM ends at once."""

    guest: str

    def play(self, stage: Stage) -> None:
        stage.end_guest(self.guest)


@dataclass(frozen=True, slots=True)
class Crash:
    """A guest's kernel panics; its QEMU stays, and says nothing more."""

    guest: str

    def play(self, stage: Stage) -> None:
        stage.panic(self.guest)
