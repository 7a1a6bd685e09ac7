"""Calls oned by XML-RPC, through pyone, with a deadline and a largest size for every answer.

Called by opennebula.py. pyone is imported with the first call. Its own transport waits for ever, and its
records leave out what their schema does not name, so this brings the transport and hands on answers as they
came. Promises: only CloudError and its kinds are raised, and UnavailableError without pyone; the secret is in
no message.
"""

from __future__ import annotations

import queue
import threading
import xmlrpc.client
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit
from xml.parsers.expat import ExpatError

from vmpack.clouds.opennebula_access import Login
from vmpack.errors import (
    CloudAccessError,
    CloudBusyError,
    CloudError,
    CloudGoneError,
    CloudLostError,
    UnavailableError,
)

CONNECT_TIME_S = 5.0
ANSWER_LARGEST_BYTES = 256 * 2**20
_CHUNK_BYTES = 64 * 1024
_LONGEST_MESSAGE = 400
NOT_AUTHORIZED = 0x0200
LOCKED = 0x8000
_KINDS: dict[int, tuple[type[CloudError], str]] = {
    0x0100: (CloudAccessError, "check the user and password or token in the auth file (oneuser login)"),
    NOT_AUTHORIZED: (CloudAccessError, "run as oneadmin or as a user of the group oneadmin"),
    0x0400: (CloudGoneError, "`vmpack hosts` and `vmpack vms` show what is there"),
    0x0800: (CloudError, "the reason is oned's own; /var/log/one/oned.log may say more"),
    LOCKED: (CloudBusyError, "it is locked: `onevm unlock` ends that"),
    0x10000: (CloudBusyError, "oned elects a leader; try again in a moment"),
}
_OWN_FAULT = "see /var/log/one/oned.log on the front-end"


class OpenNebulaClient:
    """One oned."""

    def __init__(self, login: Login, timeout_s: float) -> None:
        self.endpoint = login.endpoint
        self._session = login.session
        self._timeout_s = timeout_s
        self._server: Any = None

    def text(self, method: str, *arguments: object) -> str:
        """The answer to a call that gives text: XML."""
        return self._value(method, arguments, str)

    def number(self, method: str, *arguments: object) -> int:
        """The answer to a call that gives a number."""
        return self._value(method, arguments, int)

    def _value(self, method: str, arguments: tuple[object, ...], kind: type) -> Any:
        answer = self._ask(f"one.{method}", arguments)
        if not isinstance(answer, list | tuple) or len(answer) < 2 or not isinstance(answer[0], bool):
            raise self._odd(method, "it is not [true or false, value, code]")
        if not answer[0]:
            raise self._refused(answer)
        if type(answer[1]) is not kind:
            raise self._odd(method, f"found {type(answer[1]).__name__}, expected {kind.__name__}")
        return answer[1]

    def _ask(self, method: str, arguments: tuple[object, ...]) -> Any:
        if self._server is None:
            self._server = _server(self.endpoint, self._session, self._timeout_s)
        import pyone

        try:
            return self._server._do_request(method, (self._session, *arguments))
        except _Failed as error:
            raise self._lost(method, str(error)) from error
        except pyone.OneException as error:
            raise CloudError(f"{method}: oned cannot do that: {self._safe(error)}", _OWN_FAULT) from error
        except (
            xmlrpc.client.Error,
            ExpatError,
            ValueError,
            TypeError,
            ArithmeticError,
            LookupError,
        ) as error:
            raise self._odd(method, type(error).__name__) from error

    def _refused(self, answer: list[Any] | tuple[Any, ...]) -> CloudError:
        code = answer[2] if len(answer) > 2 else 0
        # A lock is told as missing rights, also to oneadmin.
        code = LOCKED if code == NOT_AUTHORIZED and "is locked" in str(answer[1]) else code
        kind, hint = _KINDS.get(code if type(code) is int else 0, (CloudError, _OWN_FAULT))
        return kind(f"OpenNebula refuses: {self._safe(answer[1])}", hint)

    def _odd(self, method: str, why: str) -> CloudLostError:
        return CloudLostError(
            f"the answer of {self.endpoint} to {method} is not understood: {why}",
            "is that oned's XML-RPC address? (opennebula.endpoint, ONE_XMLRPC)",
        )

    def _lost(self, method: str, why: str) -> CloudLostError:
        return CloudLostError(
            f"oned at {self.endpoint} gave no answer to {method}: {self._safe(why)}",
            "look whether it runs (systemctl status opennebula), or name it: opennebula.endpoint, ONE_XMLRPC",
        )

    def _safe(self, told: object) -> str:
        text = str(told).replace(self._session, "(session)")
        secret = self._session.partition(":")[2]
        return text.replace(secret, "(secret)").strip()[:_LONGEST_MESSAGE]


class _Failed(Exception):
    """No answer came; the text says why. Not shown to anybody as it is."""


def _server(endpoint: str, session: str, timeout_s: float) -> Any:
    try:
        import pyone

        transport = _timed(endpoint, timeout_s)
    except ImportError as error:
        raise UnavailableError(
            f"Python's {error.name or 'pyone'} is not installed, without which OpenNebula is not asked",
            "run ./install.sh opennebula again, or pip with the extra `opennebula` where pip did it",
        ) from error
    # From 7.2 on OneServer may choose gRPC by the environment.
    newer = getattr(pyone, "server_xrpc", None)
    server = (pyone.OneServer if newer is None else newer.OneServerXRPC)(endpoint, session=session)
    server("transport").request = transport
    return server


def _timed(endpoint: str, timeout_s: float) -> Callable[..., tuple[Any, ...]]:
    """A transport's `request` that ends in time."""
    import requests
    from defusedxml.xmlrpc import DefusedExpatParser

    session = requests.Session()
    # A proxy of the environment is not for this very machine.
    session.trust_env = urlsplit(endpoint).hostname not in ("localhost", "127.0.0.1", "::1")

    def fetched(body: bytes) -> bytes:
        with session.post(
            endpoint,
            data=body,
            headers={"Content-Type": "text/xml"},
            timeout=(min(CONNECT_TIME_S, timeout_s), timeout_s),
            stream=True,
            allow_redirects=False,
        ) as answer:
            if answer.status_code != requests.codes.ok:
                raise _Failed(f"HTTP status {answer.status_code}")
            parts, size_bytes = [], 0
            for part in answer.iter_content(_CHUNK_BYTES):
                parts.append(part)
                size_bytes += len(part)
                if size_bytes > ANSWER_LARGEST_BYTES:
                    raise _Failed(f"it has more than {ANSWER_LARGEST_BYTES} bytes")
            return b"".join(parts)

    def request(_host: str, _handler: str, body: bytes, verbose: bool = False) -> tuple[Any, ...]:
        try:
            answer = _within(timeout_s, lambda: fetched(body))
        except (requests.Timeout, TimeoutError) as error:
            raise _Failed(f"none within {timeout_s:g} s") from error
        except requests.RequestException as error:
            raise _Failed(_cause(error)) from error
        target = xmlrpc.client.Unmarshaller()
        parser = DefusedExpatParser(target, forbid_dtd=True)
        parser.feed(answer)
        parser.close()
        return target.close()

    return request


def _within(seconds: float, work: Callable[[], bytes]) -> bytes:
    """What `work` gives; TimeoutError after so long: names that do not resolve, bytes that only drip."""
    results: queue.SimpleQueue[bytes | Exception] = queue.SimpleQueue()

    def run() -> None:
        try:
            results.put(work())
        except Exception as error:  # noqa: BLE001  # it is raised again below
            results.put(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        result = results.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError from None
    if isinstance(result, Exception):
        raise result
    return result


def _cause(error: BaseException) -> str:
    """The innermost reason of a chain of wrappings, in a few words."""
    while error.__context__ is not None:
        error = error.__context__
    return getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
