"""The lab's control channel into a guest: memory and CPU loads on request, and commands.

Called through `LabGuest.control` by the demo, the tests and `vmpack lab`. The other end is guest/ctl. A
guest's words are read with care: any answer that is not of the agreed form raises BadDataError.
"""

import base64
import re
import secrets
import shlex
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vmpack.errors import BadDataError, GuestGoneError, UnavailableError
from vmpack.units import KIB

_LONGEST_ANSWER_BYTES = 8 * 1024 * KIB


@dataclass(frozen=True, slots=True)
class GuestMemory:
    """What the guest's kernel says of its memory."""

    total_bytes: int
    free_bytes: int
    available_bytes: int
    shmem_bytes: int
    anonymous_bytes: int
    swap_total_bytes: int
    swap_free_bytes: int


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """One load in the guest. `state` is growing, waiting (memory is short), done, killed or running (CPU)."""

    kind: str
    wanted_bytes: int
    held_bytes: int
    state: str


@dataclass(frozen=True, slots=True)
class ExecResult:
    """A finished command: exit code (128 + N after signal N) and what it printed, errors included."""

    exit_code: int
    output: str


class GuestControl:
    """Requests to one guest. Each opens the channel anew, so several programs can take turns."""

    def __init__(self, path: Path, timeout_s: float = 60.0) -> None:
        self.path = path
        self._timeout_s = timeout_s

    def ping(self) -> float:
        """Seconds since the guest's boot. Raises UnavailableError when it does not answer."""
        return float(_match(r"pong (\d+\.\d+)", self.ask("ping"))[1])

    def mem(self) -> GuestMemory:
        """The guest's own view of its memory."""
        values = {
            key: int(value) for key, value in re.findall(r"^(\w+): +(\d+) kB$", self.ask("mem"), re.MULTILINE)
        }
        keys = ("MemTotal", "MemFree", "MemAvailable", "Shmem", "AnonPages", "SwapTotal", "SwapFree")
        try:
            return GuestMemory(*(values[key] * KIB for key in keys))
        except KeyError as error:
            raise BadDataError(f"the guest said nothing of {error}") from error

    def load_tmpfs(self, amount_bytes: int, rate_bytes_per_s: int = 0) -> None:
        """Start to fill tmpfs by this much (whole 64 KiB), at a rate (0: at once).

        The load waits while memory is short.
        """
        self.ask(f"shm {-(-amount_bytes // (64 * KIB)) * 64} {rate_bytes_per_s // KIB}")

    def load_anonymous(self, amount_bytes: int, rate_bytes_per_s: int = 0) -> None:
        """Start to hold anonymous memory (whole MiB), at a rate (0: at once).

        The OOM killer takes this first.
        """
        self.ask(f"anon {-(-amount_bytes // (1024 * KIB)) * 1024} {rate_bytes_per_s // KIB}")

    def free(self) -> None:
        """End all memory loads; their memory is free when this returns."""
        self.ask("free")

    def burn(self, count: int = 1) -> None:
        """Start busy loops."""
        self.ask(f"burn {count}")

    def calm(self) -> None:
        """End all busy loops."""
        self.ask("calm")

    def drop_caches(self) -> None:
        """Let the guest's kernel forget clean page cache."""
        self.ask("drop")

    def oom_kills(self) -> int:
        """Processes that the guest's OOM killer has ended since boot."""
        return int(_match(r"(\d+)", self.ask("oom"))[1])

    def progress(self) -> tuple[LoadProgress, ...]:
        """All loads that were started and not ended by `free` or `calm`."""
        loads = []
        for line in self.ask("progress").splitlines():
            found = _match(r"(tmpfs|anonymous|cpu) (\d+) (\d+) (growing|waiting|done|killed|running)", line)
            loads.append(LoadProgress(found[1], int(found[2]) * KIB, int(found[3]) * KIB, found[4]))
        return tuple(loads)

    def run(self, argv: Sequence[str], timeout_s: int = 30) -> ExecResult:
        """Run a command in the guest; it is killed after `timeout_s`. The channel is busy meanwhile."""
        script = base64.b64encode(shlex.join(argv).encode()).decode()
        output, _, last = self.ask(f"sh {timeout_s} {script}", timeout_s).rpartition("\n")
        return ExecResult(int(_match(r"exit (\d+)", last)[1]), output)

    def ask(self, request: str, extra_s: float = 0) -> str:
        """Send one request and return the answer's text.

        Raises GuestGoneError when the guest is not there, UnavailableError when it does not answer in time.
        """
        token = secrets.token_hex(8)
        deadline_s = time.monotonic() + self._timeout_s + extra_s
        try:
            with socket.socket(socket.AF_UNIX) as channel:
                channel.settimeout(self._timeout_s + extra_s)
                channel.connect(str(self.path))
                channel.sendall(f"{token} {request}\n".encode())
                return _read_answer(channel, token, deadline_s)
        except TimeoutError as error:
            raise UnavailableError(
                f"guest {self.path.name} does not answer on its control channel",
                "it may still boot, or be out of memory",
            ) from error
        except OSError as error:
            raise GuestGoneError(
                f"guest {self.path.name} has no control channel: {error.strerror}"
            ) from error


def _read_answer(channel: socket.socket, token: str, deadline_s: float) -> str:
    """Skip what is left of older answers, then read ours up to its "." line."""
    begin = f"= {token}\n".encode()
    received = bytearray()
    while True:
        start = received.find(begin)
        if start >= 0:
            body = bytes(received[start + len(begin) :])
            end = 0 if body.startswith(b".\n") else body.find(b"\n.\n") + 1
            if end or body.startswith(b".\n"):
                lines = body[:end].decode(errors="replace").split("\n")
                return "\n".join(line[1:] if line.startswith("..") else line for line in lines).rstrip("\n")
        channel.settimeout(max(0.001, deadline_s - time.monotonic()))
        chunk = channel.recv(65536)
        if not chunk:
            raise ConnectionResetError(0, "it closed")
        received += chunk
        if len(received) > _LONGEST_ANSWER_BYTES:
            raise BadDataError("the guest's answer has no end")


def _match(pattern: str, text: str) -> re.Match[str]:
    found = re.fullmatch(pattern, text)
    if found is None:
        raise BadDataError(f"the guest answered {text[:80]!r}")
    return found
