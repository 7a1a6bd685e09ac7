"""One file of one guest, read through its QEMU guest agent.

Called by guest_kernels.py. Promises that the answer, which a guest can make up, is bytes of a size that was
asked for, and that a file is opened only in a guest whose agent has answered a moment ago.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from vmpack.errors import BadDataError, HypervisorError, VmpackError
from vmpack.hypervisor import Hypervisor, find_domain

ANSWER_S = 5
"""How long a guest agent may take for each command, once it has shown libvirt that it is there."""
DEADLINE_S = 15.0
"""libvirt waits up to 5 s for that sign, then ANSWER_S for the answer; after this nobody listens any more."""

_READ_BYTES = 64 * 1024
_LONGEST_ANSWER = 2 * _READ_BYTES
_LARGEST_HANDLE = 2**63 - 1


class FileMayBeOpenError(HypervisorError):
    """The guest's agent may hold a file open for nobody."""


class FileRefusedError(HypervisorError):
    """The guest's agent said that it does not open this file: there is none, or it may not."""


def greet(hypervisor: Hypervisor, uuid: str) -> None:
    """See that the guest's agent answers at all. Takes seconds when it hangs.

    An agent that hangs may open a file when nobody listens any more: it must have answered a moment before.
    Raises BadDataError and what Hypervisor.call raises.
    """
    _returned(_command(hypervisor, uuid, "guest-ping", {}))


def read_file(hypervisor: Hypervisor, uuid: str, path: str) -> bytes:
    """The first 64 KiB of a file. Takes seconds when the agent hangs.

    Raises FileRefusedError, BadDataError for an answer that no guest agent gives, FileMayBeOpenError when
    the guest may have opened a file that was not closed, and what Hypervisor.call raises.
    """
    handle = _opened(hypervisor, uuid, path)
    try:
        answer = _command(hypervisor, uuid, "guest-file-read", {"handle": handle, "count": _READ_BYTES})
    finally:
        _close(hypervisor, uuid, handle)
    return parse_read(answer)


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


def _opened(hypervisor: Hypervisor, uuid: str, path: str) -> int:
    try:
        handle = _returned(_command(hypervisor, uuid, "guest-file-open", {"path": path, "mode": "r"}))
        if not isinstance(handle, int) or isinstance(handle, bool) or not 0 <= handle <= _LARGEST_HANDLE:
            raise nonsense(handle)
    except VmpackError as error:
        if _is_refusal(error):
            raise FileRefusedError(f"the guest agent does not open {path}: {error}") from error
        raise FileMayBeOpenError(f"the guest agent did not say which file it opened: {error}") from error
    return handle


def _is_refusal(error: VmpackError) -> bool:
    """libvirt gives what the agent itself refused as an internal error, and an agent's silence as others."""
    import libvirt

    cause = error.__cause__
    return (
        isinstance(cause, libvirt.libvirtError) and cause.get_error_code() == libvirt.VIR_ERR_INTERNAL_ERROR
    )


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
        raise nonsense(answer) from error
    if not isinstance(found, dict) or "return" not in found:
        raise nonsense(found)
    return found["return"]
