"""How many processes each guest's own OOM killer has ended, as its QEMU guest agent tells.

Called by source.py in every interval. One thread asks one VM at a time, so that neither an interval nor a
second VM ever waits for a guest agent that hangs. Promises that every answer, which a guest can make up, has
been checked.
"""

from __future__ import annotations

import base64
import json
import logging
import re
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from vmpack.errors import BadDataError, GuestGoneError, UnavailableError, VmpackError
from vmpack.hypervisor import Hypervisor, find_domain

log = logging.getLogger(__name__)

PACE_S = 1.0
"""At most one VM is asked in this time."""
FRESH_S = 5.0
"""A VM that has answered is not asked again before."""
SILENT_S = 60.0
"""One that has not, or that cannot tell, not before this."""
ANSWER_S = 1
"""How long a guest agent may take, for each of the three commands."""

_PATH = "/proc/vmstat"
_READ_BYTES = 64 * 1024
_LONGEST_ANSWER = 2 * _READ_BYTES
_LARGEST = 2**63 - 1
_LINE = re.compile(rb"^oom_kill ([0-9]{1,19})$", re.MULTILINE)


class GuestKills:
    """Counts of OOM kills since each guest's boot. `counts` may be called from any thread."""

    def __init__(self, hypervisor: Hypervisor, *, pace_s: float = PACE_S, silent_s: float = SILENT_S) -> None:
        self._hypervisor = hypervisor
        self._silent_s = silent_s
        self._pace_s = pace_s
        self._lock = threading.Lock()
        self._rota = Rota()
        self._known: dict[str, int] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def counts(self, uuids_by_urgency: Sequence[str]) -> Mapping[str, int]:
        """What is known now, by uuid, without waiting; from now on these VMs are asked, the first one first.

        A VM without guest agent, or whose kernel does not count, is absent; so is one not yet asked. A count
        begins at 0 with each boot of the guest.
        """
        with self._lock:
            self._rota.plan(uuids_by_urgency, time.monotonic())
            if self._thread is None and not self._stop.is_set():
                self._start()
            wanted = set(uuids_by_urgency)
            self._known = {uuid: count for uuid, count in self._known.items() if uuid in wanted}
            return dict(self._known)

    def close(self) -> None:
        """Ask nobody any more; the thread ends with the request under way."""
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
        while not self._stop.wait(self._pace_s):
            with self._lock:
                uuid = self._rota.next(time.monotonic())
            if uuid is not None:
                self._ask(uuid)

    def _ask(self, uuid: str) -> None:
        count = None
        again_s = self._silent_s
        try:
            count = read_kills(self._hypervisor, uuid)
        except (GuestGoneError, UnavailableError):
            again_s = FRESH_S
        except VmpackError as error:
            log.debug("%s", error)
        if count is not None:
            again_s = FRESH_S
        with self._lock:
            self._rota.asked(uuid, time.monotonic() + again_s)
            if count is not None and self._rota.has(uuid):
                self._known[uuid] = count


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

    Raises BadDataError for an answer that no guest agent gives, and what Hypervisor.call raises.
    """
    handle = _returned(_command(hypervisor, uuid, "guest-file-open", {"path": _PATH, "mode": "r"}))
    if not isinstance(handle, int) or isinstance(handle, bool) or not 0 <= handle <= _LARGEST:
        raise _nonsense(handle)
    try:
        answer = _command(hypervisor, uuid, "guest-file-read", {"handle": handle, "count": _READ_BYTES})
    finally:
        with suppress(VmpackError):
            _command(hypervisor, uuid, "guest-file-close", {"handle": handle})
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


def _command(hypervisor: Hypervisor, uuid: str, name: str, arguments: Mapping[str, Any]) -> str:
    request = json.dumps({"execute": name, "arguments": arguments})

    def ask(connection: Any) -> str:
        import libvirt_qemu

        return str(libvirt_qemu.qemuAgentCommand(find_domain(connection, uuid), request, ANSWER_S, 0))

    return hypervisor.call(f"ask the guest agent of {uuid}", ask)


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
