"""What each guest's own kernel counts of its want of memory, as its QEMU guest agent tells.

Called by source.py in every interval. One thread with a connection of its own asks one VM at a time, so
that nothing else waits for a guest agent that hangs. Promises that every answer, which a guest can make up,
has been checked, and that no answer ends the asking. libvirt's memory statistics have none of these counts.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from vmpack.errors import GuestGoneError, UnavailableError, VmpackError
from vmpack.hypervisor import Hypervisor
from vmpack.model.guest import KernelCounts
from vmpack.observe.guest_file import FileMayBeOpenError, FileRefusedError, GuestAgent, converse, nonsense

log = logging.getLogger(__name__)

PACE_S = 1.0
"""At most one VM is asked in this time."""
FRESH_S = 5.0
"""A VM that has answered is not asked again before."""
SILENT_S = 60.0
"""One that has not, or that cannot tell, not before this; twice as long after each further time."""
SILENT_MAX_S = 900.0
"""However long a VM has been silent, it is asked again after this."""
NO_PRESSURE_S = 3600.0
"""A guest whose kernel does not tell of pressure is not asked for it again before."""

_LARGEST = 2**63 - 1
_KINDS = (b"oom_kill", b"workingset_refault", b"allocstall")
_COUNT = re.compile(
    rb"^(oom_kill|workingset_refault(?:_anon|_file)?|allocstall(?:_[a-z0-9]+)?) ([0-9]{1,19})$", re.MULTILINE
)
_STALLED = re.compile(rb"^(some|full) .*\btotal=([0-9]{1,19})$", re.MULTILINE)


class KernelReading(NamedTuple):
    """What one guest's kernel said last. Counts begin at 0 with each boot; None: it does not count that."""

    oom_kills: int | None
    counts: KernelCounts


class Look(NamedTuple):
    """What one look at a guest's kernel brought."""

    reading: KernelReading | None
    """None: its kernel counts nothing of it."""
    trouble: Exception | None = None
    """Why the reading lacks the pressure that was asked for."""


@dataclass(slots=True)
class _Past:
    """What makes the next pause of one VM longer."""

    silences: int = 0
    """In a row."""
    open_files: int = 0
    """That it may still hold open for us."""
    defect_is_told: bool = False
    pressure_due_s: float = 0.0
    """When it may be asked for its pressure again."""


class GuestKernels:
    """What the kernels of all guests count. `told` may be called from any thread.

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
        self._known: dict[str, KernelReading] = {}
        self._pasts: dict[str, _Past] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def told(self, uuids_by_urgency: Sequence[str]) -> Mapping[str, KernelReading]:
        """What is known now, by uuid, without waiting; from now on these VMs are asked, the first one first.

        A VM is absent until it has told, and once it did not tell when it was asked: its agent is silent, its
        kernel does not count, or it answered nonsense.
        """
        with self._lock:
            self._rota.plan(uuids_by_urgency, time.monotonic())
            if self._thread is None and not self._stop.is_set():
                self._start()
            self._known = {uuid: told for uuid, told in self._known.items() if self._rota.has(uuid)}
            self._pasts = {uuid: past for uuid, past in self._pasts.items() if self._rota.has(uuid)}
            return dict(self._known)

    def close(self) -> None:
        """Ask nobody any more; the thread ends with the request under way, and closes the connection."""
        self._stop.set()

    def _start(self) -> None:
        try:
            import libvirt_qemu  # noqa: F401
        except ImportError:
            log.info("what guests lack is seen less well: Python's libvirt_qemu module is missing")
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
        reading, may_soon = None, False
        try:
            with_pressure = time.monotonic() >= past.pressure_due_s
            reading, trouble = read_kernel(self._hypervisor, uuid, with_pressure=with_pressure)
            if trouble is not None:
                self._put_off_pressure(uuid, trouble, past)
        except FileMayBeOpenError as error:
            past.open_files += 1
            _tell_quietly(uuid, error)
        except (GuestGoneError, UnavailableError):
            may_soon = True
        except VmpackError as error:
            _tell_quietly(uuid, error)
        except Exception as error:  # noqa: BLE001 - the thread's boundary: a defect is told, and not for all
            _tell_defect(uuid, error, past)
        may_soon = may_soon or reading is not None
        past.silences = 0 if may_soon else past.silences + 1
        again_s = FRESH_S if may_soon else pause_s(max(past.silences, past.open_files), self._silent_s)
        with self._lock:
            self._rota.asked(uuid, time.monotonic() + again_s)
            self._known.pop(uuid, None)
            if reading is not None and self._rota.has(uuid):
                self._known[uuid] = reading

    def _put_off_pressure(self, uuid: str, trouble: Exception, past: _Past) -> None:
        """Decide when this VM is asked for its pressure again, by why it did not tell this time."""
        if isinstance(trouble, (GuestGoneError, UnavailableError)):
            return
        if not isinstance(trouble, VmpackError):
            _tell_defect(uuid, trouble, past)
            return
        past.open_files += isinstance(trouble, FileMayBeOpenError)
        refused = isinstance(trouble, FileRefusedError)
        wait_s = NO_PRESSURE_S if refused else pause_s(max(1, past.open_files), self._silent_s)
        past.pressure_due_s = time.monotonic() + wait_s
        _tell_quietly(uuid, trouble)


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


def read_kernel(hypervisor: Hypervisor, uuid: str, *, with_pressure: bool) -> Look:
    """Ask one guest, in one conversation.

    Takes seconds when its agent hangs. Raises as `converse` does, but not when only its pressure is missing.
    """
    found: list[KernelReading] = []

    def talk(agent: GuestAgent) -> None:
        # Before the answer: what is counted meanwhile counts for the next time.
        sampled_s = time.monotonic()
        reading = parse_vmstat(agent.read_file("/proc/vmstat"), sampled_s)
        if reading is None:
            return
        found.append(reading)
        if with_pressure:
            some_us, full_us = parse_stalled(agent.read_file("/proc/pressure/memory"))
            counts = replace(reading.counts, stalled_some_us=some_us, stalled_full_us=full_us)
            found.append(reading._replace(counts=counts))

    try:
        converse(hypervisor, uuid, talk)
    except Exception as error:
        # Whatever is wrong with its pressure, a kill that it told of counts.
        if not found:
            raise
        return Look(found[0], error)
    return Look(found[-1] if found else None)


def parse_vmstat(text: bytes, sampled_s: float) -> KernelReading | None:
    """What /proc/vmstat says; None when that is nothing. Raises BadDataError."""
    found: dict[bytes, int] = {}
    for name, figure in _COUNT.findall(text):
        # By kind of page, or of zone; older kernels have one line.
        key = next(begin for begin in _KINDS if name.startswith(begin))
        found[key] = found.get(key, 0) + int(figure)
    if not found:
        return None
    if max(found.values()) > _LARGEST:
        raise nonsense(max(found.values()))
    counts = KernelCounts(sampled_s, found.get(b"workingset_refault"), found.get(b"allocstall"))
    return KernelReading(found.get(b"oom_kill"), counts)


def parse_stalled(text: bytes) -> tuple[int | None, int | None]:
    """Microseconds in which some task stalled for memory, and all, in /proc/pressure/memory."""
    found = {kind: int(figure) for kind, figure in _STALLED.findall(text)}
    if max(found.values(), default=0) > _LARGEST:
        raise nonsense(max(found.values()))
    return found.get(b"some"), found.get(b"full")


def _tell_quietly(uuid: str, error: VmpackError) -> None:
    # libvirt's words quote the guest's.
    log.debug("the guest agent of %s does not tell: %.300r", uuid, str(error))


def _tell_defect(uuid: str, error: Exception, past: _Past) -> None:
    if past.defect_is_told:
        return
    past.defect_is_told = True
    log.warning("a defect in vmpack: what the VM %s lacks is seen less well; please report it", uuid)
    log.debug("asking the guest agent of %s failed with %s", uuid, type(error).__name__, exc_info=error)
