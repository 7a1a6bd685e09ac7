"""The agent's socket: HTTP/1.1 on a Unix socket, `GET /metrics` and `POST /v1/METHOD` with JSON in and out.

Started by vmpack.host.agent, asked by vmpack.host.client, curl and Prometheus exporters. The kernel says who
asks; bodies, headers, time and the number of requests at once are limited. Standard library only: the agent
has to stay small.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from vmpack.errors import AccessError, AlreadyRunningError, BadDataError, UnavailableError, VmpackError
from vmpack.host.directory import own_directory
from vmpack.host.messages import Fault
from vmpack.host.peer import Peer, Rights, peer_of
from vmpack.host.service import HostService
from vmpack.model.codec import dumps
from vmpack.publish.atomic import disk_error

log = logging.getLogger(__name__)

BODY_MAX_BYTES = 64 * 1024
REQUEST_TIME_S = 10.0
"""A request must have arrived whole within this."""
REQUESTS_MAX = 16
REQUESTS_OF_READERS_MAX = 8
"""The rest is for those who may change something: a release must get through."""
REQUESTS_OF_ONE_MAX = 4
"""Of one user, unless it is root or the agent's own."""
PATH_MAX_BYTES = 107

_HTTP_STATUS = {2: 400, 69: 503, 75: 409, 77: 403}
"""By exit code of the error; 500 for the rest."""
_TURNED_AWAY = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Method:
    """One thing that can be asked of the service."""

    arguments: Mapping[str, tuple[type, ...]]
    """Name to types that JSON may bring; all are needed."""
    changes: bool
    call: Callable[..., Any]


def methods(service: HostService) -> dict[str, Method]:
    """The service's methods by the name that stands in the URL."""
    vm: Mapping[str, tuple[type, ...]] = {"vm": (str,)}
    none = type(None)
    return {
        "status": Method({}, False, service.status),
        "explain": Method(vm, False, service.explain),
        "set_policy": Method({**vm, "changes": (dict,)}, True, service.set_policy),
        "balloon": Method({**vm, "size_bytes": (int,)}, True, service.balloon),
        "hold": Method({**vm, "seconds": (int, float, none)}, True, service.hold),
        "release": Method({"vm": (str, none)}, True, service.release),
        "vcpus": Method({"uuid": (str, none)}, False, service.vcpus),
        "vcpu_summary": Method({}, False, service.vcpu_summary),
        "pin": Method({**vm, "vcpu": (int,), "cpus": (list,)}, True, service.pin),
        "freeze": Method({"on": (bool,)}, True, service.freeze),
    }


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Answers on one socket from `start` to `stop`."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 32

    def __init__(self, path: Path, service: HostService, rights: Rights) -> None:
        """Take the path; a socket that a dead agent left is replaced. Raises VmpackError."""
        self.service = service
        self.methods = methods(service)
        self.rights = rights
        self._path = path
        self._peers: dict[socket.socket, Peer] = {}
        self._arriving: dict[socket.socket, float] = {}
        self._requests_lock = threading.Lock()
        self._is_away = False
        own_directory(path.parent)
        _take_path(path)
        try:
            super().__init__(str(path), Handler)
        except OSError as error:
            raise disk_error("listen on", path, error) from error

    def server_bind(self) -> None:
        """Bind with the rights in place before anybody can connect."""
        self._bind(self.socket)

    def _bind(self, listener: socket.socket) -> None:
        # The file gets the mode that the unbound socket has: no umask, which all threads share.
        os.fchmod(listener.fileno(), 0o600)
        listener.bind(str(self._path))
        if self.rights.group_id is not None:
            os.chown(self._path, -1, self.rights.group_id)
            os.chmod(self._path, 0o660)

    def start(self) -> None:
        """Answer from now on, in threads of its own."""
        threading.Thread(target=self.serve_forever, name="socket", daemon=True).start()

    def stop(self) -> None:
        """Stop answering and take the socket away."""
        self.shutdown()
        self._path.unlink(missing_ok=True)
        self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread of its own; when too many are being answered the caller is turned away."""
        peer = peer_of(request)
        with self._requests_lock:
            has_place = self._has_place(peer)
            if has_place:
                self._peers[request] = peer
                self._arriving[request] = time.monotonic()
        if has_place:
            super().process_request(request, client_address)
            return
        with suppress(OSError):
            request.send(_TURNED_AWAY)
        self.shutdown_request(request)

    def _has_place(self, peer: Peer) -> bool:
        others = self._peers.values()
        if len(others) >= REQUESTS_MAX:
            return False
        if peer.uid in (0, os.geteuid()):
            return True
        if sum(other.uid == peer.uid for other in others) >= REQUESTS_OF_ONE_MAX:
            return False
        readers = sum(not self.rights.may_change(other) for other in others)
        return self.rights.may_change(peer) or readers < REQUESTS_OF_READERS_MAX

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """One request from its first byte to its end."""
        try:
            self.finish_request(request, client_address)
        except (OSError, ValueError):
            log.debug("a request on the socket ended early", exc_info=True)
        finally:
            # The place first: who sees the end of this connection may use it at once.
            self.arrived(request)
            with self._requests_lock:
                self._peers.pop(request, None)
            self.shutdown_request(request)

    def arrived(self, request: socket.socket) -> None:
        """The request is here whole: what it costs now is ours, not the caller's, to limit."""
        with self._requests_lock:
            self._arriving.pop(request, None)

    def service_actions(self) -> None:
        """Come back when the socket was removed, cut off callers that send too slowly; twice a second."""
        self._come_back()
        limit_s = time.monotonic() - REQUEST_TIME_S
        with self._requests_lock:
            late = [request for request, since_s in self._arriving.items() if since_s < limit_s]
        for request in late:
            with suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)

    def _come_back(self) -> None:
        """Listen again where somebody took the socket away; what else may lie there is left alone."""
        if os.path.lexists(self._path):
            return
        try:
            own_directory(self._path.parent)
            with socket.socket(socket.AF_UNIX) as listener:
                self._bind(listener)
                listener.listen(self.request_queue_size)
                os.dup2(listener.fileno(), self.socket.fileno(), inheritable=False)
        except (OSError, VmpackError) as error:
            if not self._is_away:
                log.warning("%s had vanished and cannot come back: %s", self._path, error)
            self._is_away = True
        else:
            log.warning("%s had vanished; it is back, do not remove it while the agent runs", self._path)
            self._is_away = False


class LateError(UnavailableError):
    """The caller sent too slowly, or not to the end."""


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server
    protocol_version = "HTTP/1.1"
    timeout = REQUEST_TIME_S

    def do_GET(self) -> None:
        """GET /metrics."""
        self._answer(self._metrics)

    def do_POST(self) -> None:
        """POST /v1/METHOD."""
        self._answer(self._call)

    def address_string(self) -> str:
        """There is no address on a Unix socket."""
        return "local"

    def log_message(self, format: str, *arguments: Any) -> None:
        """Requests are no news; changes are logged by the service."""

    def _answer(self, make: Callable[[], tuple[str, bytes]]) -> None:
        try:
            kind, body = make()
            code = 200
        except VmpackError as error:
            fault = Fault(error.message, error.hint, error.exit_code)
            kind, body = "application/json", dumps(fault).encode()
            code = _http_status(error)
        except Exception:  # the request's boundary: a defect must cost one answer, not the agent
            log.exception("a defect in vmpack ended a request; please report it")
            fault = Fault("a defect in vmpack ended this request", "the agent's log has the details", 1)
            kind, body, code = "application/json", dumps(fault).encode(), 500
        self.close_connection = True
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def _metrics(self) -> tuple[str, bytes]:
        self._check_rights(changes=False)
        self.server.arrived(self.connection)
        if self.path != "/metrics":
            raise BadDataError(f"there is no {self.path[:60]!r} here", "GET /metrics, or POST /v1/METHOD")
        return "text/plain; version=0.0.4; charset=utf-8", self.server.service.metrics()

    def _call(self) -> tuple[str, bytes]:
        method = self.server.methods.get(self.path.removeprefix("/v1/"))
        self._check_rights(changes=method is None or method.changes)
        body = self._body()
        self.server.arrived(self.connection)
        arguments = _arguments(body)
        if method is None or not self.path.startswith("/v1/"):
            known = ", ".join(self.server.methods)
            raise BadDataError(f"there is no {self.path[:60]!r} here", f"POST /v1/METHOD, one of {known}")
        _check_arguments(method, arguments)
        return "application/json", dumps(method.call(**arguments)).encode()

    def _check_rights(self, *, changes: bool) -> None:
        peer = peer_of(self.connection)
        rights = self.server.rights
        if rights.may_change(peer) or (rights.may_read(peer) and not changes):
            return
        raise AccessError(
            f"user {peer.uid} may not {'change anything through' if changes else 'ask'} this agent",
            "run as root, or see agent.socket_group in the configuration",
        )

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "0")
        is_number = length.isascii() and length.isdigit() and len(length) <= len(str(BODY_MAX_BYTES))
        if "Transfer-Encoding" in self.headers or not is_number or int(length) > BODY_MAX_BYTES:
            raise BadDataError(
                f"the request's length must be 0 to {BODY_MAX_BYTES} bytes, and be said",
                "say it as Content-Length, without Transfer-Encoding",
            )
        try:
            return self.rfile.read(int(length))
        except OSError as error:
            raise LateError("the request did not arrive whole", f"send {length} bytes of body") from error


def _http_status(error: VmpackError) -> int:
    if isinstance(error, LateError):
        return 408
    return _HTTP_STATUS.get(error.exit_code, 400 if isinstance(error, BadDataError) else 500)


def _arguments(body: bytes) -> dict[str, Any]:
    try:
        data = json.loads(body or b"{}")
    except (ValueError, RecursionError) as error:
        raise BadDataError(f"the request is not valid JSON: {error}") from error
    if not isinstance(data, dict):
        raise BadDataError("the request must be a JSON object")
    return data


def _check_arguments(method: Method, arguments: Mapping[str, Any]) -> None:
    if arguments.keys() != method.arguments.keys():
        raise BadDataError(f"expected the keys {sorted(method.arguments)}, found {sorted(arguments)}"[:300])
    for name, kinds in method.arguments.items():
        if type(arguments[name]) not in kinds:
            raise BadDataError(f"{name}: expected {' or '.join(kind.__name__ for kind in kinds)}")


def _take_path(path: Path) -> None:
    if len(os.fsencode(path)) > PATH_MAX_BYTES:
        raise BadDataError(
            f"{path} is longer than the {PATH_MAX_BYTES} bytes of a socket's path", "use a shorter --run-dir"
        )
    if path.exists() and not path.is_socket():
        raise BadDataError(f"{path} is in the way: it is no socket", "move it, or use another --run-dir")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except FileNotFoundError:
            return
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except OSError as error:
            raise disk_error("take over", path, error) from error
    raise AlreadyRunningError(f"another agent answers on {path}", "stop that one, or use another --run-dir")
