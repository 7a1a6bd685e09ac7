"""Files of one guest, read through its QEMU guest agent in one conversation.

Called by guest_kernels.py. Promises that the answer, which a guest can make up, is bytes of a size that was
asked for, that a file is opened only in a guest whose agent has answered a moment ago, and that a whole
conversation costs one Hypervisor.call.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from vmpack.errors import BadDataError, GuestBusyError, HypervisorError, HypervisorLostError, VmpackError
from vmpack.hypervisor import Hypervisor, find_domain, translated

T = TypeVar("T")

ANSWER_S = 5
"""How long a guest agent may take for each command, once it has shown libvirt that it is there."""
DEADLINE_S = 15.0
"""For each command: libvirt waits up to 5 s for that sign, then ANSWER_S for the answer; after this nobody
listens any more."""

_READ_BYTES = 64 * 1024
_LONGEST_ANSWER = 2 * _READ_BYTES
_LARGEST_HANDLE = 2**63 - 1


class FileMayBeOpenError(HypervisorError):
    """The guest's agent may hold a file open for nobody."""


class FileRefusedError(HypervisorError):
    """The guest's agent said that it does not open this file: there is none, or it may not."""


class GuestAgent:
    """One guest's agent, while a conversation with it lasts. Made by `converse` alone.

    Its commands are given in the thread of a call that may go on when nobody listens any more: from then on
    it asks for nothing, and closes what it has opened.
    """

    def __init__(self, uuid: str) -> None:
        self.what = f"ask the guest agent of {uuid}"
        self.uuid = uuid
        self.step_s = time.monotonic()
        """When the last command began."""
        self.may_hold_file = False
        """Somebody was asked to open a file, and nobody has said that it is closed."""
        self._handle: int | None = None
        """Of the file that is to be closed."""
        self._domain: Any = None
        self._is_over = False
        self._lock = threading.Lock()

    def reach(self, connection: Any) -> None:
        """From now on ask through this virConnect. Raises GuestGoneError."""
        self._domain = find_domain(connection, self.uuid)

    def greet(self) -> None:
        """See that the agent answers at all. Takes seconds when it hangs.

        An agent that hangs may open a file when nobody listens any more: it must have answered a moment
        before. Raises BadDataError and what `translated` raises.
        """
        _returned(self._command("guest-ping"))

    def read_file(self, path: str) -> bytes:
        """The first 64 KiB of a file. Takes seconds when the agent hangs.

        Raises FileRefusedError, BadDataError for an answer that no guest agent gives, and what `translated`
        raises.
        """
        handle = self._open(path)
        try:
            answer = self._command("guest-file-read", handle=handle, count=_READ_BYTES)
        finally:
            self.close()
        return parse_read(answer)

    def give_up(self) -> bool:
        """Nobody listens any more. Is there a file that has yet to be closed?"""
        with self._lock:
            self._is_over = True
            return self._handle is not None

    def close(self) -> None:
        """Close the open file, unless it was tried already. Raises what `translated` raises.

        After HypervisorLostError it may be tried again, on another connection.
        """
        with self._lock:
            handle, self._handle = self._handle, None
        if handle is None:
            return
        try:
            self._request("guest-file-close", handle=handle)
        except HypervisorLostError:
            self._handle = handle
            raise
        self.may_hold_file = False

    def _open(self, path: str) -> int:
        with self._lock:
            self._check_heard()
            self.may_hold_file = True
        try:
            handle = _returned(self._request("guest-file-open", path=path, mode="r"))
        except VmpackError as error:
            if _is_refusal(error):
                self.may_hold_file = False
                raise FileRefusedError(f"the guest agent does not open {path}: {error}") from error
            raise
        if not isinstance(handle, int) or isinstance(handle, bool) or not 0 <= handle <= _LARGEST_HANDLE:
            raise nonsense(handle)
        self._handle = handle
        return handle

    def _command(self, name: str, **arguments: Any) -> str:
        self._check_heard()
        return self._request(name, **arguments)

    def _check_heard(self) -> None:
        if self._is_over:
            raise GuestBusyError(f"could not {self.what}: it took too long")

    def _request(self, name: str, **arguments: Any) -> str:
        import libvirt_qemu

        request = json.dumps({"execute": name, "arguments": arguments})
        self.step_s = time.monotonic()
        try:
            with translated(self.what):
                return str(libvirt_qemu.qemuAgentCommand(self._domain, request, ANSWER_S, 0))
        except (SystemError, UnicodeDecodeError) as error:
            # libvirt's error quotes the guest's bytes, and libvirt-python takes them for UTF-8.
            raise BadDataError("the guest agent answered with bytes that are no text") from error


def converse(hypervisor: Hypervisor, uuid: str, talk: Callable[[GuestAgent], T]) -> T:
    """Greet the guest's agent and return `talk(agent)`, which ends with the first command that fails.

    All of it is one call, which goes on unheard once a command of it got no answer within DEADLINE_S. Raises
    FileMayBeOpenError when the guest may have opened a file that was not closed, else what `greet`, `talk`
    and Hypervisor.call raise.
    """
    agent = GuestAgent(uuid)

    def ask(connection: Any) -> T:
        agent.reach(connection)
        agent.greet()
        return talk(agent)

    try:
        return hypervisor.call(agent.what, ask, deadline_s=DEADLINE_S, last_step_s=lambda: agent.step_s)
    except VmpackError as error:
        if agent.give_up():
            _close_elsewhere(hypervisor, agent)
        if agent.may_hold_file:
            raise FileMayBeOpenError(f"the guest agent may hold a file open: {error}") from error
        raise


def _close_elsewhere(hypervisor: Hypervisor, agent: GuestAgent) -> None:
    """Close what could not be closed in the conversation, whose connection is lost or silent."""

    def close(connection: Any) -> None:
        agent.reach(connection)
        agent.close()

    with suppress(VmpackError):
        hypervisor.call(agent.what, close, deadline_s=DEADLINE_S)


def parse_read(answer: str) -> bytes:
    """The bytes in the agent's answer to guest-file-read. Raises BadDataError."""
    returned = _returned(answer)
    text = returned.get("buf-b64") if isinstance(returned, dict) else None
    if not isinstance(text, str):
        raise nonsense(returned)
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise nonsense(text) from error


def nonsense(found: object) -> BadDataError:
    """The error for an answer that no guest agent gives."""
    return BadDataError(f"the guest agent answered {found!r:.80}")


def _is_refusal(error: VmpackError) -> bool:
    """libvirt gives what the agent itself refused as an internal error, and an agent's silence as others."""
    import libvirt

    cause = error.__cause__
    return (
        isinstance(cause, libvirt.libvirtError) and cause.get_error_code() == libvirt.VIR_ERR_INTERNAL_ERROR
    )


def _returned(answer: str) -> Any:
    if len(answer) > _LONGEST_ANSWER:
        raise BadDataError(f"the guest agent answered with {len(answer)} letters")
    try:
        found = json.loads(answer)
    except (ValueError, RecursionError) as error:
        raise nonsense(answer) from error
    if not isinstance(found, dict) or "return" not in found:
        raise nonsense(found)
    return found["return"]
