"""The connection to libvirt: opened when first needed, opened again after a loss, never waited on for ever.

Called by observe/, act/ and whoever needs libvirt; the only file that knows libvirt's error codes.
Promises that no `libvirtError` leaves it, that no call outlasts its deadline, and that one hung VM
(its QEMU stopped, its monitor silent) holds at most one thread per call that was made to it.
"""

from __future__ import annotations

import os
import threading
import urllib.parse
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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

T = TypeVar("T")

CALL_DEADLINE_S = 5.0
KEEPALIVE_INTERVAL_S = 5
KEEPALIVE_COUNT = 3

# libvirtd serves five requests of one client at a time: with four of them stuck the fifth still gets through.
MOST_STUCK_CALLS = 4

_OPERATIONS = {
    1: "start", 2: "save", 3: "restore", 4: "migration in", 5: "migration out", 6: "snapshot",
    7: "snapshot revert", 8: "dump", 9: "backup", 10: "snapshot delete",
}  # fmt: skip
_GONE = ("VIR_ERR_NO_DOMAIN", "VIR_ERR_INVALID_DOMAIN")
_BUSY = ("VIR_ERR_OPERATION_TIMEOUT", "VIR_ERR_RESOURCE_BUSY")
_LOST = ("VIR_ERR_INVALID_CONN", "VIR_ERR_NO_CONNECT", "VIR_ERR_RPC")
_DENIED = (
    "VIR_ERR_AUTH_FAILED",
    "VIR_ERR_AUTH_CANCELLED",
    "VIR_ERR_AUTH_UNAVAILABLE",
    "VIR_ERR_ACCESS_DENIED",
    "VIR_ERR_OPERATION_DENIED",
)


class Hypervisor:
    """One connection to one libvirt. Every method may be called from any thread."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._lock = threading.Lock()
        self._connection: Any = None
        self._on_open: list[Callable[[Any], None]] = []
        self._in_flight = 0
        self._in_flight_lock = threading.Lock()

    def on_open(self, callback: Callable[[Any], None]) -> None:
        """Have `callback(virConnect)` called with every connection opened from now on, to ask for events."""
        self._on_open.append(callback)

    def connection(self) -> Any:
        """The open virConnect; opens it when there is none or the last one was lost.

        Raises UnavailableError, AccessError or HypervisorLostError. May block: call it inside `call`.
        """
        if not self._lock.acquire(timeout=CALL_DEADLINE_S):
            raise HypervisorLostError(f"libvirt at {self.uri} accepts no connection", _start_hint(self.uri))
        try:
            if self._connection is None:
                self._connection = self._open()
            return self._connection
        finally:
            self._lock.release()

    def call(self, what: str, function: Callable[[Any], T], *, deadline_s: float = CALL_DEADLINE_S) -> T:
        """Return `function(virConnect)`, run in a thread of its own for at most `deadline_s`.

        `what` names the attempt in errors ("read the statistics of all VMs"). Raises GuestBusyError when
        there was no answer in time (the call goes on in its thread, unheard), HypervisorLostError when the
        connection broke (the next call opens a new one), and what `translated` raises.
        """
        self._enter(what)
        result: list[T] = []
        failure: list[BaseException] = []

        def work() -> None:
            try:
                result.append(self._attempt(what, function))
            except BaseException as error:  # noqa: BLE001 - handed to the caller's thread
                failure.append(error)
            finally:
                with self._in_flight_lock:
                    self._in_flight -= 1

        thread = threading.Thread(target=work, name=f"libvirt: {what}", daemon=True)
        thread.start()
        thread.join(deadline_s)
        if failure:
            raise failure[0]
        if not result:
            raise GuestBusyError(f"could not {what}: no answer within {deadline_s:g} s", "it is tried again")
        return result[0]

    def domain(self, uuid: str) -> Any:
        """The virDomain with this uuid. Raises GuestGoneError. May block: call it inside `call`."""
        with translated(f"find the VM {uuid}"):
            return self.connection().lookupByUUIDString(uuid)

    def identity(self) -> str:
        """A text that is equal for every way to spell the address of the same libvirt, and for no other.

        Its parts: driver, mode (system, session, embed with its folder), the host's uuid.
        """
        capabilities, driver, uri = self.call(
            "ask libvirt who it is", lambda c: (c.getCapabilities(), c.getType(), c.getURI())
        )
        host_uuid = ElementTree.fromstring(capabilities).findtext("host/uuid", default="")
        return "/".join((driver.lower(), _mode(self.uri, uri), host_uuid))

    def close(self) -> None:
        """Close the connection; a later call opens a new one."""
        self._drop(self._connection)

    def _enter(self, what: str) -> None:
        with self._in_flight_lock:
            if self._in_flight > MOST_STUCK_CALLS:
                raise GuestBusyError(
                    f"could not {what}: {self._in_flight} earlier calls to libvirt got no answer",
                    "look for stopped QEMU processes (state T): ps -o pid,stat,args -C qemu-system-x86_64",
                )
            self._in_flight += 1

    def _attempt(self, what: str, function: Callable[[Any], T]) -> T:
        connection = self.connection()
        try:
            with translated(what):
                return function(connection)
        except HypervisorLostError:
            self._drop(connection)
            raise

    def _open(self) -> Any:
        libvirt = _load(self.uri)
        from vmpack.event_loop import start_event_loop

        start_event_loop()
        libvirt.registerErrorHandler(lambda _context, _error: None, None)
        try:
            connection = libvirt.open(self.uri)
        except libvirt.libvirtError as error:
            raise _open_error(self.uri, error) from error
        _optional(libvirt, lambda: connection.setKeepAlive(KEEPALIVE_INTERVAL_S, KEEPALIVE_COUNT))
        _optional(libvirt, lambda: connection.registerCloseCallback(self._lost, None))
        for callback in self._on_open:
            callback(connection)
        return connection

    def _lost(self, connection: Any, _reason: int, _opaque: None) -> None:
        # In libvirt's event thread: closing here would wait for that very thread.
        if self._connection is connection:
            self._connection = None

    def _drop(self, connection: Any) -> None:
        if connection is None:
            return
        with self._lock:
            if self._connection is connection:
                self._connection = None
        libvirt = _load(self.uri)
        _optional(libvirt, connection.unregisterCloseCallback)
        _optional(libvirt, connection.close)


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
    """The running job of a virDomain ("migration out"); None without one, "busy" when it may not be asked.

    Raises GuestGoneError and HypervisorLostError.
    """
    try:
        with translated(f"ask for the job of {domain.name()}"):
            job = domain.jobStats()
    except (GuestGoneError, HypervisorLostError):
        raise
    except HypervisorError:
        return "busy"
    return None if job.get("type", 0) == 0 else _OPERATIONS.get(job.get("operation", 0), "job")


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
    return UnavailableError(message, _start_hint(uri))


def _codes(libvirt: Any, names: tuple[str, ...]) -> set[int]:
    return {getattr(libvirt, name) for name in names}


def _text(error: Any) -> str:
    return " ".join(str(error.get_error_message()).split())


def _optional(libvirt: Any, function: Callable[[], object]) -> None:
    """Call what not every libvirt driver has (keepalive, close callbacks) and do without where it fails."""
    with suppress(libvirt.libvirtError):
        function()


def _load(uri: str) -> Any:
    try:
        import libvirt
    except ImportError as error:
        raise UnavailableError(
            f"cannot connect to {uri}: Python's libvirt module is missing",
            "install the package python3-libvirt, or: pip install libvirt-python",
        ) from error
    return libvirt


def _start_hint(uri: str) -> str:
    path = urllib.parse.urlsplit(uri).path
    if path == "/embed":
        return "install libvirt-daemon-driver-qemu; only one process at a time can have an embedded root"
    if path == "/session":
        return "install libvirt-daemon and libvirt-daemon-driver-qemu, and do not run as root"
    if path == "/system":
        return (
            "install libvirt-daemon-system (Debian, Ubuntu) or libvirt-daemon-kvm (EL), "
            "then: systemctl enable --now libvirtd, or virtqemud.socket where there is no libvirtd"
        )
    return "check the address; virsh --connect URI list should answer"


def _mode(asked_uri: str, answered_uri: str) -> str:
    """The part of an identity that tells two libvirts of one machine from one another."""
    parts = urllib.parse.urlsplit(answered_uri)
    query = urllib.parse.parse_qs(urllib.parse.urlsplit(asked_uri).query)
    mode = parts.path.strip("/") or "default"
    if mode == "embed":
        return f"embed:{os.path.realpath(urllib.parse.parse_qs(parts.query)['root'][0])}"
    if mode == "session":
        return f"session:{_owner_uid(query.get('socket', [''])[0])}"
    return mode


def _owner_uid(socket_path: str) -> int:
    try:
        return os.stat(socket_path).st_uid
    except OSError:
        return os.geteuid()
