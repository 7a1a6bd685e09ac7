"""A double of OneGate: an HTTP server that rejects what the real one rejects, and notes when it was asked.

Used by tests of the in-guest reporter. It takes no body that the real server's escaping and oned's syntax
would refuse or keep in another form; test_onegate_double.py holds the table. It serves VMs with a token each.
"""

from __future__ import annotations

import ctypes
import hmac
import json
import os
import re
import socket
import threading
import time
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

RESTRICTED = ("SCHED_REQUIREMENTS", "SERVICE_ID", "ROLE_NAME")

_CLONE_NEWNET = 0x40000000
_LINE = re.compile(
    r'(?P<name>[A-Za-z_][A-Za-z0-9_]*) *=(?:"(?P<quoted>[^",\[\]\\\n]*)"|(?P<bare>[^",\[\]\\\n]*))'
)


class BrokenTemplateError(ValueError):
    """oned would not take what the server makes of this body, or keep stray characters of it."""


@dataclass(slots=True)
class Vm:
    """A VM that may ask. `template` is its USER_TEMPLATE."""

    number: int
    token: str
    template: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Request:
    """One request, in the order of arrival. `at_s` is on the double's clock."""

    at_s: float
    method: str
    path: str
    headers: Mapping[str, str]
    body: str
    status: int


class OneGate:
    """The server, on a port of its own until `close`; `clock` gives the times of arrival."""

    def __init__(self, *vms: Vm, clock: Callable[[], float] = time.monotonic, process: int | None = None):
        self.vms = {vm.number: vm for vm in vms}
        self.requests: list[Request] = []
        self.refusal: tuple[int, str] | None = None
        self.hold = threading.Event()
        self.port = 0
        self._clock = clock
        self._process = process
        self.open()
        self.endpoint = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> OneGate:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        """Answer; after `close` at the same address as before."""
        self.hold.set()
        self._server = _Server(listen(self._process, self.port), self._answer)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Nobody answers here any more, until `open`."""
        self.hold.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def asked(self, method: str) -> list[Request]:
        """The requests with this method."""
        return [request for request in tuple(self.requests) if request.method == method]

    def _answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> tuple[int, str]:
        self.hold.wait()
        text = body.decode("ascii", "replace")
        status, answer = self.refusal or self._serve(method, path, headers, text)
        self.requests.append(Request(self._clock(), method, path, headers, text, status))
        return status, answer

    def _serve(self, method: str, path: str, headers: Mapping[str, str], body: str) -> tuple[int, str]:
        address, _, query = path.partition("?")
        if (method, address) not in (("GET", "/vm"), ("PUT", "/vm")):
            return 400, "OneGate server doesn't support this feature"
        vm = self._authenticated(headers)
        if vm is None:
            return 401, "Not authorized"
        if method == "GET":
            return 200, _vm_document(vm)
        form = headers.get("content-type", "").startswith("application/x-www-form-urlencoded")
        fields = dict(urllib.parse.parse_qsl(body if form else "", keep_blank_values=True))
        fields = dict(urllib.parse.parse_qsl(query, keep_blank_values=True)) | fields
        return _update(vm, fields.get("data", body), fields.get("type", "1"))

    def _authenticated(self, headers: Mapping[str, str]) -> Vm | None:
        """The VM that the headers name, if they hold its own token."""
        number = headers.get("x-onegate-vmid", "")
        vm = self.vms.get(int(number)) if number.isdecimal() else None
        if vm is None or not hmac.compare_digest(vm.token, headers.get("x-onegate-token", "")):
            return None
        return vm


def stored(body: str) -> dict[str, str]:
    """What oned holds after the server's escaping of a raw body. Raises BrokenTemplateError."""
    lines = body.split("\n")
    if lines[-1] == "" and len(lines) > 1:
        lines.pop()
    values = {}
    for number, line in enumerate(lines, 1):
        found = _LINE.fullmatch(line)
        if found is None or (found["bare"] == "" and number == len(lines)):
            raise BrokenTemplateError(line)
        values[found["name"].upper()] = found["bare"] or found["quoted"] or ""
    return values


def listen(process: int | None = None, port: int = 0) -> socket.socket:
    """A listening socket on 127.0.0.1, in the network of `process` where that one has its own."""
    made: list[socket.socket] = []

    def make() -> None:  # in a thread of its own: a network is entered for good
        if process is not None and not os.path.samefile(f"/proc/{process}/ns/net", "/proc/self/ns/net"):
            with Path(f"/proc/{process}/ns/net").open("rb") as network:
                libc = ctypes.CDLL(None, use_errno=True)
                if libc.setns(network.fileno(), _CLONE_NEWNET) != 0:
                    return
        made.append(socket.create_server(("127.0.0.1", port)))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    assert made, f"no socket in the network of process {process}"
    return made[0]


def _update(vm: Vm, text: str, kind: str) -> tuple[int, str]:
    names = [line.partition("=")[0].upper() for line in text.split("\n")]
    for name in names:
        if name in RESTRICTED:
            return 403, f"Attribute ({name}) cannot be {'modified' if kind == '1' else 'deleted'}"
    if kind != "1":
        if vm.template.pop(names[0].strip(), None) is None:
            return 500, "Internal server error"
        return 200, ""
    try:
        vm.template.update(stored(text))
    except BrokenTemplateError:
        return 500, "Internal server error"  # all that 7.x says
    return 200, ""


def _vm_document(vm: Vm) -> str:
    shown = {name: value for name, value in vm.template.items() if name != "SCHED_MESSAGE"}
    document = {
        "NAME": f"vm-{vm.number}",
        "ID": str(vm.number),
        "STATE": "3",
        "LCM_STATE": "3",
        "USER_TEMPLATE": shown,
        "TEMPLATE": {"NIC": [{"IP": "172.20.0.5"}], "NIC_ALIAS": []},
    }
    return json.dumps({"VM": document}, separators=(",", ":"))


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, listening: socket.socket, answer: Callable[..., tuple[int, str]]):
        super().__init__(listening.getsockname(), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening
        self.server_address = listening.getsockname()
        self.answer = answer

    def handle_error(self, *_: object) -> None:
        """A client that is killed in its request is no fault of the server."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def _any(self) -> None:
        length = self.headers.get("Content-Length", "0")
        body = self.rfile.read(int(length) if length.isdecimal() else 0)
        headers = {name.lower(): value for name, value in self.headers.items()}
        status, answer = self.server.answer(self.command, self.path, headers, body)
        payload = answer.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json;charset=utf-8")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do_PATCH = do_OPTIONS = _any

    def log_message(self, *_: object) -> None:
        """The tests look at `requests`."""
