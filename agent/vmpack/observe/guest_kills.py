"""How many processes each guest's own OOM killer has ended, as its QEMU guest agent tells.

Called by source.py in every interval. One thread with a connection of its own asks one VM at a time, so
that nothing else waits for a guest agent that hangs. Promises that every answer, which a guest can make up,
has been checked, and that no answer ends the asking.
"""

from __future__ import annotations

import base64
import json
import logging
import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vmpack.errors import BadDataError, GuestGoneError, HypervisorError, UnavailableError, VmpackError
from vmpack.hypervisor import Hypervisor, find_domain

log = logging.getLogger(__name__)

PACE_S = 1.0
"""At most one VM is asked in this time."""
FRESH_S = 5.0
"""A VM that has answered is not asked again before."""
SILENT_S = 60.0
"""One that has not, or that cannot tell, not before this; twice as long after each further time."""
SILENT_MAX_S = 900.0
"""However long a VM has been silent, it is asked again after this."""
ANSWER_S = 5
"""How long a guest agent may take for each command, once it has shown libvirt that it is there."""
DEADLINE_S = 15.0
"""libvirt waits up to 5 s for that sign, then ANSWER_S for the answer; after this nobody listens any more."""

_PATH = "/proc/vmstat"
_READ_BYTES = 64 * 1024
_LONGEST_ANSWER = 2 * _READ_BYTES
_LARGEST = 2**63 - 1
_LINE = re.compile(rb"^oom_kill ([0-9]{1,19})$", re.MULTILINE)


class FileMayBeOpenError(HypervisorError):
    """The guest's agent may hold a file open for nobody."""


@dataclass(slots=True)
class _Past:
    """What makes the next pause of one VM longer."""

    silences: int = 0
    """In a row."""
    open_files: int = 0
    """That it may still hold open for us."""
    defect_is_told: bool = False


class GuestKills:
    """Counts of OOM kills since each guest's boot. `counts` may be called from any thread.

    A guest agent that falls silent between the opening and the closing of a file may keep that file open
    until it ends. It must have answered right before; and each time that this may have happened, the pauses
    of this VM that follow a silence are longer for good: at worst a hundred such files remain in a day.
    """

    def __init__(self, hypervisor: Hypervisor, *, pace_s: float = PACE_S, silent_s: float = SILENT_S) -> None:
        """`hypervisor` is for this alone: a silent agent can cost the connection. `close` closes it."""
        self._hypervisor = hypervisor
        self._silent_s = silent_s
        self._pace_s = pace_s
        self._lock = threading.Lock()
        self._rota = Rota()
        self._known: dict[str, int] = {}
        self._pasts: dict[str, _Past] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def counts(self, uuids_by_urgency: Sequence[str]) -> Mapping[str, int]:
        """What is known now, by uuid, without waiting; from now on these VMs are asked, the first one first.

        A VM is absent until it has told, and once it did not tell when it was asked: its agent is silent, its
        kernel does not count, or it answered nonsense. A count begins at 0 with each boot of the guest.
        """
        with self._lock:
            self._rota.plan(uuids_by_urgency, time.monotonic())
            if self._thread is None and not self._stop.is_set():
                self._start()
            self._known = {uuid: count for uuid, count in self._known.items() if self._rota.has(uuid)}
            self._pasts = {uuid: past for uuid, past in self._pasts.items() if self._rota.has(uuid)}
            return dict(self._known)

    def close(self) -> None:
        """Ask nobody any more; the thread ends with the request under way, and closes the connection."""
        self._stop.set()

    def _start(self) -> None:
        try:
            import libvirt_qemu  # noqa: F401
        except ImportError:
            log.info("OOM kills inside guests are not seen: Python's libvirt_qemu module is missing")
            self._stop.set()
            return
        self._thread = threading.Thread(target=self._run, name="guest agents", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._stop.wait(self._pace_s):
                with self._lock:
                    uuid = self._rota.next(time.monotonic())
                    past = self._pasts.setdefault(uuid, _Past()) if uuid is not None else _Past()
                if uuid is not None:
                    self._ask(uuid, past)
        finally:
            self._hypervisor.close()

    def _ask(self, uuid: str, past: _Past) -> None:
        count, may_soon = None, False
        try:
            count = read_kills(self._hypervisor, uuid)
        except FileMayBeOpenError as error:
            past.open_files += 1
            _tell_quietly(uuid, error)
        except (GuestGoneError, UnavailableError):
            may_soon = True
        except VmpackError as error:
            _tell_quietly(uuid, error)
        except Exception as error:  # noqa: BLE001 - the thread's boundary: a defect is told, and not for all
            _tell_defect(uuid, error, past)
        may_soon = may_soon or count is not None
        past.silences = 0 if may_soon else past.silences + 1
        again_s = FRESH_S if may_soon else pause_s(max(past.silences, past.open_files), self._silent_s)
        with self._lock:
            self._rota.asked(uuid, time.monotonic() + again_s)
            self._known.pop(uuid, None)
            if count is not None and self._rota.has(uuid):
                self._known[uuid] = count


def pause_s(times: int, first_s: float) -> float:
    """How long a VM that did not tell is left in peace, the first time, the second..."""
    return min(first_s * 2.0 ** min(times - 1, 20), SILENT_MAX_S)


class Rota:
    """Whose turn it is. Pure; times are on one monotonic clock.

    Each VM in turn. A VM that becomes urgent comes before all that waited less than its lead in the order.
    """

    def __init__(self) -> None:
        self._order: dict[str, int] = {}
        self._due_s: dict[str, float] = {}

    def plan(self, uuids_by_urgency: Sequence[str], now_s: float) -> None:
        """From now on these VMs, in this order of urgency; one that is new may be asked at once."""
        self._order = {uuid: place for place, uuid in enumerate(uuids_by_urgency)}
        self._due_s = {uuid: self._due_s.get(uuid, now_s) for uuid in self._order}

    def has(self, uuid: str) -> bool:
        """Is this VM among those to be asked?"""
        return uuid in self._order

    def asked(self, uuid: str, due_s: float) -> None:
        """This VM was asked, and is not to be asked again before `due_s`."""
        if uuid in self._order:
            self._due_s[uuid] = due_s

    def next(self, now_s: float) -> str | None:
        """The VM to ask now; None when all were asked lately."""
        due = [uuid for uuid in self._order if self._due_s[uuid] <= now_s]
        return min(due, key=lambda uuid: self._due_s[uuid] + self._order[uuid], default=None)


def read_kills(hypervisor: Hypervisor, uuid: str) -> int | None:
    """Ask one guest; None when its kernel does not count. Takes seconds when its agent hangs.

    Raises BadDataError for an answer that no guest agent gives, FileMayBeOpenError when the guest may have
    opened a file that was not closed, and what Hypervisor.call raises.
    """
    # An agent that hangs may open a file when nobody listens any more: it must have answered a moment ago.
    _returned(_command(hypervisor, uuid, "guest-ping", {}))
    try:
        handle = _opened(hypervisor, uuid)
    except VmpackError as error:
        raise FileMayBeOpenError(f"the guest agent did not say which file it opened: {error}") from error
    try:
        answer = _command(hypervisor, uuid, "guest-file-read", {"handle": handle, "count": _READ_BYTES})
    finally:
        _close(hypervisor, uuid, handle)
    return parse_kills(answer)


def parse_kills(answer: str) -> int | None:
    """The count in the agent's answer to guest-file-read; None without one. Raises BadDataError."""
    returned = _returned(answer)
    text = returned.get("buf-b64") if isinstance(returned, dict) else None
    if not isinstance(text, str):
        raise _nonsense(returned)
    try:
        found = _LINE.search(base64.b64decode(text, validate=True))
    except ValueError as error:
        raise _nonsense(text) from error
    if found is None:
        return None
    count = int(found[1])
    if count > _LARGEST:
        raise _nonsense(count)
    return count


def _opened(hypervisor: Hypervisor, uuid: str) -> int:
    handle = _returned(_command(hypervisor, uuid, "guest-file-open", {"path": _PATH, "mode": "r"}))
    if not isinstance(handle, int) or isinstance(handle, bool) or not 0 <= handle <= _LARGEST:
        raise _nonsense(handle)
    return handle


def _close(hypervisor: Hypervisor, uuid: str, handle: int) -> None:
    try:
        _command(hypervisor, uuid, "guest-file-close", {"handle": handle})
    except VmpackError as error:
        raise FileMayBeOpenError(f"the guest agent did not close a file: {error}") from error


def _command(hypervisor: Hypervisor, uuid: str, name: str, arguments: Mapping[str, Any]) -> str:
    request = json.dumps({"execute": name, "arguments": arguments})

    def ask(connection: Any) -> str:
        import libvirt_qemu

        domain = find_domain(connection, uuid)
        try:
            return str(libvirt_qemu.qemuAgentCommand(domain, request, ANSWER_S, 0))
        except (SystemError, UnicodeDecodeError) as error:
            # libvirt's error quotes the guest's bytes, and libvirt-python takes them for UTF-8.
            raise BadDataError("the guest agent answered with bytes that are no text") from error

    return hypervisor.call(f"ask the guest agent of {uuid}", ask, deadline_s=DEADLINE_S)


def _returned(answer: str) -> Any:
    if len(answer) > _LONGEST_ANSWER:
        raise BadDataError(f"the guest agent answered with {len(answer)} letters")
    try:
        found = json.loads(answer)
    except (ValueError, RecursionError) as error:
        raise _nonsense(answer) from error
    if not isinstance(found, dict) or "return" not in found:
        raise _nonsense(found)
    return found["return"]


def _nonsense(found: object) -> BadDataError:
    return BadDataError(f"the guest agent answered {found!r:.80}")


def _tell_quietly(uuid: str, error: VmpackError) -> None:
    # libvirt's words quote the guest's.
    log.debug("the guest agent of %s does not tell: %.300r", uuid, str(error))


def _tell_defect(uuid: str, error: Exception, past: _Past) -> None:
    if past.defect_is_told:
        return
    past.defect_is_told = True
    log.warning("a defect in vmpack: OOM kills in the VM %s are not seen; please report it", uuid)
    log.debug("asking the guest agent of %s failed with %s", uuid, type(error).__name__, exc_info=error)
