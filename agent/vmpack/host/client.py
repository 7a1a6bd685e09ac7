"""Asks a running agent over its socket; the same methods as vmpack.host.service, with the same records.

Called by the command line. Raises the agent's own errors (message, hint, exit code), UnavailableError
when there is no agent, and AgentBusyError when there is one that has no time.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from vmpack.errors import AccessError, AgentBusyError, BadDataError, UnavailableError, VmpackError
from vmpack.host.messages import Explanation, Fault, FreezeState, GivenBack, Pinned, PolicySet, VcpuSummary
from vmpack.model.action import Outcome
from vmpack.model.codec import loads
from vmpack.model.interval import AgentStatus
from vmpack.model.vcpu import VcpuStatus

T = TypeVar("T")

READ_TIME_S = 15.0
CHANGE_TIME_S = 180.0
"""A release waits for balloons."""
_ANSWER_MAX_BYTES = 64 * 2**20


class AgentClient:
    """The agent behind one socket. Each call is a connection of its own."""

    def __init__(self, socket_path: Path, change_time_s: float = CHANGE_TIME_S) -> None:
        self.socket_path = socket_path
        self._change_time_s = change_time_s

    def status(self) -> AgentStatus:
        """The newest interval and how the agent is."""
        return self._post(AgentStatus, "status", {}, READ_TIME_S)

    def explain(self, vm: str) -> Explanation:
        """All that the newest interval knows of one VM, by name or uuid."""
        return self._post(Explanation, "explain", {"vm": vm}, READ_TIME_S)

    def set_policy(self, vm: str, changes: Mapping[str, Any]) -> PolicySet:
        """Change fields of the VM's policy (see host/service.py); None puts one back to the default."""
        return self._post(PolicySet, "set_policy", {"vm": vm, "changes": dict(changes)})

    def hold(self, vm: str, seconds: float | None) -> PolicySet:
        """Leave a VM alone for so long; None is until told otherwise, 0 ends the hold."""
        return self._post(PolicySet, "hold", {"vm": vm, "seconds": seconds})

    def balloon(self, vm: str, size_bytes: int) -> Outcome:
        """Set one VM's balloon by hand, and hold the VM."""
        return self._post(Outcome, "balloon", {"vm": vm, "size_bytes": size_bytes})

    def release(self, vm: str | None) -> GivenBack:
        """Give one VM its memory back and hold it; with None give all VMs theirs and freeze the host."""
        return self._post(GivenBack, "release", {"vm": vm})

    def vcpus(self, uuid: str | None = None) -> VcpuStatus:
        """The newest look at the vCPUs, with a uuid at that VM's alone (then without pCPUs).

        Raises UnavailableError where the agent does not look at them.
        """
        return self._post(VcpuStatus, "vcpus", {"uuid": uuid}, READ_TIME_S)

    def vcpu_summary(self) -> VcpuSummary:
        """The same in sums."""
        return self._post(VcpuSummary, "vcpu_summary", {}, READ_TIME_S)

    def pin(self, vm: str, vcpu: int, cpus: Sequence[int]) -> Pinned:
        """Let a vCPU run on these CPUs alone, on any with none."""
        return self._post(Pinned, "pin", {"vm": vm, "vcpu": vcpu, "cpus": list(cpus)}, READ_TIME_S)

    def freeze(self, on: bool) -> FreezeState:
        """Stop all changes on this host, or allow them again."""
        return self._post(FreezeState, "freeze", {"on": on}, READ_TIME_S)

    def metrics(self) -> bytes:
        """Prometheus text."""
        return self._ask("GET", "/metrics", b"", READ_TIME_S)

    def _post(self, cls: type[T], method: str, arguments: dict[str, Any], time_s: float | None = None) -> T:
        body = json.dumps(arguments).encode()
        answer = self._ask("POST", f"/v1/{method}", body, self._change_time_s if time_s is None else time_s)
        try:
            return loads(cls, answer)
        except BadDataError as error:
            raise BadDataError(
                f"the agent's answer is not understood: {error.message}",
                "the agent is of another version: restart it (systemctl restart vmpack-agent)",
            ) from error

    def _ask(self, verb: str, path: str, body: bytes, time_s: float) -> bytes:
        connection = _Connection(self.socket_path, time_s)
        try:
            # An answer may come before all is sent, with the reason.
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.request(verb, path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            data = answer.read(_ANSWER_MAX_BYTES)
        except PermissionError as error:
            raise AccessError(
                f"no right to use the agent's socket {self.socket_path}",
                "run as root, or join the group named by agent.socket_group",
            ) from error
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError) as error:
            raise UnavailableError(
                f"no agent answers on {self.socket_path}",
                "start it (systemctl start vmpack-agent, or vmpack agent), or name its --run-dir",
            ) from error
        except (TimeoutError, BlockingIOError) as error:
            raise self._busy(f"it gave no answer within {time_s:g} s") from error
        except (OSError, http.client.HTTPException) as error:
            raise UnavailableError(
                f"the agent on {self.socket_path} broke off: {error}", "try again; see the agent's log"
            ) from error
        finally:
            connection.close()
        if answer.status == http.HTTPStatus.TOO_MANY_REQUESTS:
            raise self._busy("it answers as many others as it can")
        if answer.status != http.HTTPStatus.OK:
            raise _error(data)
        return data

    def _busy(self, why: str) -> AgentBusyError:
        return AgentBusyError(
            f"the agent on {self.socket_path} is busy: {why}", "try again; see the agent's log if it stays so"
        )


class _Connection(http.client.HTTPConnection):
    """HTTP on a Unix socket."""

    def __init__(self, path: Path, time_s: float) -> None:
        super().__init__("localhost", timeout=time_s)
        self._path = path
        self._time_s = time_s

    def connect(self) -> None:
        """See HTTPConnection."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self._time_s)
        self.sock.connect(str(self._path))


def _error(data: bytes) -> VmpackError:
    try:
        fault = loads(Fault, data)
    except BadDataError:
        return UnavailableError("the agent gave an answer that is not understood", "see the agent's log")
    error = VmpackError(fault.message, fault.hint)
    error.exit_code = fault.exit_code
    return error
