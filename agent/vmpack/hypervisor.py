"""The connection to libvirt: opened when first needed, opened again after a loss, never waited on for ever.

Called by observe/, act/ and whoever needs libvirt; the only file that knows libvirt's error codes.
Promises that no `libvirtError` leaves it, that no call outlasts its deadline, and that one hung VM
(its QEMU stopped, its monitor silent) holds at most one thread per call that was made to it.
"""

from __future__ import annotations

import threading
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from vmpack.errors import (
    AccessError,
    GuestBusyError,
    GuestGoneError,
    HypervisorError,
    HypervisorLostError,
    UnavailableError,
    VmpackError,
)
from vmpack.libvirt_address import mode_of, start_hint
from vmpack.model.policy_namespace import NOMINAL_ATTRIBUTE, POLICY_NAMESPACE, read_nominal
from vmpack.units import KIB

T = TypeVar("T")

CALL_DEADLINE_S = 5.0
IDENTITY_DEADLINE_S = 30.0
"""A libvirt that has just started asks every QEMU on the host what it can do before it answers this."""
KEEPALIVE_INTERVAL_S = 5
KEEPALIVE_COUNT = 3

# libvirtd has twenty workers: each call that hangs holds one of them, and others need some too.
MOST_CALLS = 10

MIGRATION_IN = "migration in"
MIGRATION_OUT = "migration out"
UNTOLD_JOB = "busy"
"""The job of a VM that could not be asked for it: it may be any, or none."""

_OPERATIONS = {
    1: "start", 2: "save", 3: "restore", 4: MIGRATION_IN, 5: MIGRATION_OUT, 6: "snapshot",
    7: "snapshot revert", 8: "dump", 9: "backup", 10: "snapshot delete",
}  # fmt: skip
_GONE = ("VIR_ERR_NO_DOMAIN", "VIR_ERR_INVALID_DOMAIN")
_STOPPED_HINT = (
    "a stopped QEMU would explain it; its state is T in: ps -C qemu-system-x86_64 -o pid,stat,args"
)
_BUSY = ("VIR_ERR_OPERATION_TIMEOUT", "VIR_ERR_RESOURCE_BUSY")
_LOST = ("VIR_ERR_INVALID_CONN", "VIR_ERR_NO_CONNECT", "VIR_ERR_RPC")
_DENIED = (
    "VIR_ERR_AUTH_FAILED",
    "VIR_ERR_AUTH_CANCELLED",
    "VIR_ERR_AUTH_UNAVAILABLE",
    "VIR_ERR_ACCESS_DENIED",
    "VIR_ERR_OPERATION_DENIED",
)


@dataclass(slots=True)
class _Session:
    """One open connection, and how many calls are under way on it."""

    connection: Any
    event_ids: tuple[int, ...] = ()
    calls: int = 0
    retired: bool = False


class Hypervisor:
    """One libvirt. Every method may be called from any thread."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._lock = threading.Lock()
        self._opening = threading.Lock()
        self._session: _Session | None = None
        self._watches: list[tuple[str, Callable[[str], None]]] = []
        self._calls = 0

    def watch(self, event: str, note: Callable[[str], None]) -> None:
        """Have `note(uuid)` called in libvirt's event thread for every such event ("METADATA_CHANGE").

        Counts for connections opened from now on; where a libvirt has no such event nothing is ever noted.
        """
        self._watches.append((event, note))

    def connection(self) -> Any:
        """The open virConnect; opens it when there is none or the last one was lost.

        Raises UnavailableError, AccessError or HypervisorLostError. Use it inside `call` where a VM may hang.
        """
        return self._current().connection

    def call(
        self,
        what: str,
        function: Callable[[Any], T],
        *,
        deadline_s: float = CALL_DEADLINE_S,
        last_step_s: Callable[[], float] | None = None,
    ) -> T:
        """Return `function(virConnect)`, run in a thread of its own for at most `deadline_s`.

        `last_step_s`, where the work has several steps, tells when its last one began (time.monotonic), and
        gives each of them that time.
        `what` names the attempt in errors ("read the statistics of all VMs"). Raises GuestBusyError when
        there was no answer in time (the call goes on in its thread, unheard), HypervisorLostError when the
        connection broke (the next call opens a new one), and what `translated` raises.
        """
        with self._lock:
            if self._calls >= MOST_CALLS:
                raise GuestBusyError(
                    f"could not {what}: {self._calls} earlier calls got no answer", _STOPPED_HINT
                )
            self._calls += 1
        sessions: list[_Session] = []
        result: list[T] = []
        failure: list[BaseException] = []

        def work() -> None:
            try:
                result.append(self._attempt(what, function, sessions))
            except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
                failure.append(error)
            finally:
                with self._lock:
                    self._calls -= 1

        thread = threading.Thread(target=work, name=f"libvirt: {what}", daemon=True)
        thread.start()
        left_s = deadline_s
        while left_s > 0 and thread.is_alive():
            thread.join(left_s)
            left_s = 0.0 if last_step_s is None else last_step_s() + deadline_s - time.monotonic()
        if failure:
            raise failure[0]
        if not result:
            # libvirt's client can leave later calls on this connection waiting for the silent one.
            for session in sessions:
                self._retire(session)
            raise GuestBusyError(f"could not {what}: no answer within {deadline_s:g} s", _STOPPED_HINT)
        return result[0]

    def domain(self, uuid: str) -> Any:
        """The virDomain with this uuid. Raises GuestGoneError. Use it inside `call`."""
        return find_domain(self.connection(), uuid)

    def identity(self) -> str:
        """A text that is equal for every way to spell the address of the same libvirt, and for no other.

        Its parts: driver, mode (system, session, embed with its folder), the host's uuid.
        """
        capabilities, driver, uri = self.call(
            "ask libvirt who it is",
            lambda c: (c.getCapabilities(), c.getType(), c.getURI()),
            deadline_s=IDENTITY_DEADLINE_S,
        )
        host_uuid = ElementTree.fromstring(capabilities).findtext("host/uuid", default="")
        return "/".join((driver.lower(), mode_of(self.uri, uri), host_uuid))

    def close(self) -> None:
        """Close the connection; a later call opens a new one."""
        with self._lock:
            session = self._session
        if session is not None:
            self._retire(session)

    def _attempt(self, what: str, function: Callable[[Any], T], sessions: list[_Session]) -> T:
        session = self._current()
        with self._lock:
            session.calls += 1
        sessions.append(session)
        try:
            with translated(what):
                return function(session.connection)
        except HypervisorLostError:
            self._retire(session)
            raise
        finally:
            with self._lock:
                session.calls -= 1
                is_last = session.retired and session.calls == 0
            if is_last:
                self._shut(session)

    def _current(self) -> _Session:
        # Opening may take as long as libvirt likes: others wait for it, but not for ever.
        if not self._opening.acquire(timeout=CALL_DEADLINE_S):
            raise HypervisorLostError(f"libvirt at {self.uri} accepts no connection", start_hint(self.uri))
        try:
            if self._session is None:
                self._session = self._open()
            return self._session
        finally:
            self._opening.release()

    def _open(self) -> _Session:
        libvirt = _load(self.uri)
        from vmpack.event_loop import start_event_loop

        start_event_loop()
        libvirt.registerErrorHandler(lambda _context, _error: None, None)
        try:
            connection = libvirt.open(self.uri)
        except libvirt.libvirtError as error:
            raise _open_error(self.uri, error) from error
        with suppress(libvirt.libvirtError):
            connection.setKeepAlive(KEEPALIVE_INTERVAL_S, KEEPALIVE_COUNT)
        with suppress(libvirt.libvirtError):
            connection.registerCloseCallback(self._lost, None)
        ids = []
        for event, note in self._watches:
            number = getattr(libvirt, f"VIR_DOMAIN_EVENT_ID_{event}")
            with suppress(libvirt.libvirtError):
                ids.append(connection.domainEventRegisterAny(None, number, _on_event, note))
        return _Session(connection, tuple(ids))

    def _lost(self, connection: Any, _reason: int, _opaque: None) -> None:
        # In libvirt's event thread: closing here would wait for that very thread. The next failing call does.
        session = self._session
        if session is not None and session.connection is connection:
            threading.Thread(target=self._retire, args=(session,), daemon=True).start()

    def _retire(self, session: _Session) -> None:
        """Have no further call use this connection; the last call on it closes it."""
        with self._lock:
            if self._session is session:
                self._session = None
            is_last = not session.retired and session.calls == 0
            session.retired = True
        if is_last:
            self._shut(session)

    def _shut(self, session: _Session) -> None:
        libvirt = _load(self.uri)
        for number in session.event_ids:
            with suppress(libvirt.libvirtError):
                session.connection.domainEventDeregisterAny(number)
        with suppress(libvirt.libvirtError):
            session.connection.unregisterCloseCallback()
        with suppress(libvirt.libvirtError):
            session.connection.close()


def find_domain(connection: Any, uuid: str) -> Any:
    """The virDomain with this uuid on a connection. Raises GuestGoneError."""
    with translated(f"find the VM {uuid}"):
        return connection.lookupByUUIDString(uuid)


def nominal_bytes(domain: Any) -> int:
    """What the VM's owner was promised: what it was built with, or less where its metadata say so.

    Raises as `translated` does.
    """
    import libvirt

    with translated(f"read the sizes of {domain.name()}"):
        built_bytes = int(domain.maxMemory()) * KIB
        try:
            text = domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, POLICY_NAMESPACE)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN_METADATA:
                raise
            return built_bytes
    try:
        told = ElementTree.fromstring(text).get(NOMINAL_ATTRIBUTE)
        return built_bytes if told is None else min(built_bytes, read_nominal(told))
    except (ElementTree.ParseError, ValueError):
        return built_bytes


def _on_event(_connection: Any, domain: Any, *details: Any) -> None:
    note: Callable[[str], None] = details[-1]
    note(domain.UUIDString())


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn libvirtError into vmpack's errors, saying `what` was tried ("set the memory of web1").

    Raises GuestGoneError, GuestBusyError, AccessError, HypervisorLostError, or HypervisorError for the rest.
    """
    import libvirt

    try:
        yield
    except libvirt.libvirtError as error:
        raise _translation(libvirt, what, error) from error


def job_name(domain: Any) -> str | None:
    """The running job of a virDomain, as MIGRATION_OUT or "save"; None without one.

    UNTOLD_JOB when it may not be asked, MIGRATION_IN for a VM on its way in, which libvirt does not tell
    much of; None, too, where this kind of hypervisor has no jobs. Raises GuestGoneError and
    HypervisorLostError.
    """
    try:
        with translated(f"ask for the job of {domain.name()}"):
            job = domain.jobStats()
    except (GuestGoneError, HypervisorLostError):
        raise
    except HypervisorError as error:
        if _refused_with(error, "VIR_ERR_NO_SUPPORT"):
            return None
        # libvirt tells of a migration at its source alone, and refuses with this at its destination.
        return MIGRATION_IN if _refused_with(error, "VIR_ERR_OPERATION_UNSUPPORTED") else UNTOLD_JOB
    return None if job.get("type", 0) == 0 else _OPERATIONS.get(job.get("operation", 0), "job")


def _refused_with(error: HypervisorError, code: str) -> bool:
    import libvirt

    cause = error.__cause__
    return isinstance(cause, libvirt.libvirtError) and cause.get_error_code() == getattr(libvirt, code)


def _translation(libvirt: Any, what: str, error: Any) -> VmpackError:
    message = f"could not {what}: {_text(error)}"
    code = error.get_error_code()
    if code in _codes(libvirt, _LOST) or error.get_error_domain() == libvirt.VIR_FROM_RPC:
        return HypervisorLostError(message, "the connection is opened again at the next try")
    if code in _codes(libvirt, _GONE) or "domain is not running" in message:
        return GuestGoneError(message, "it ended in the meantime")
    if code in _codes(libvirt, _BUSY):
        return GuestBusyError(message, "another job has it: try again when that is over")
    if code in _codes(libvirt, _DENIED):
        return AccessError(message, "run as root, or as a member of the group libvirt")
    return HypervisorError(message, "see libvirt's log, for example: journalctl -u libvirtd -u virtqemud")


def _open_error(uri: str, error: Any) -> VmpackError:
    import errno

    import libvirt

    message = f"cannot connect to libvirt at {uri}: {_text(error)}"
    if error.get_error_code() in _codes(libvirt, _DENIED) or error.get_int1() in (errno.EACCES, errno.EPERM):
        return AccessError(message, "run as root, or as a member of the group libvirt")
    return UnavailableError(message, start_hint(uri))


def _codes(libvirt: Any, names: tuple[str, ...]) -> set[int]:
    return {getattr(libvirt, name) for name in names}


def _text(error: Any) -> str:
    return " ".join(str(error.get_error_message()).split())


def _load(uri: str) -> Any:
    try:
        import libvirt
    except ImportError as error:
        raise UnavailableError(
            f"cannot connect to {uri}: Python's libvirt module is missing",
            "install the package python3-libvirt, or: pip install libvirt-python",
        ) from error
    return libvirt
