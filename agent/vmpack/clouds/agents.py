"""What the agents of a cloud's hosts say and are told, over ssh from the front-end.

Called by the cloud's commands. Promises: one slow host costs its own deadline only; names and answers are
checked; what a host says is never run and never trusted to be of a certain form.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from vmpack.errors import BadDataError, CloudError, UnavailableError
from vmpack.model.cluster import AgentAnswer, AgentReport, NoReport, ReportedVm
from vmpack.model.codec import decode, encode
from vmpack.model.guest import GuestPolicy

T = TypeVar("T")
U = TypeVar("U")

SSH = ("ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5", "-o", "LogLevel=ERROR")
ANSWER_TIME_S = 30.0
AT_ONCE = 16
_ANSWER_LARGEST_BYTES = 16 * 2**20
_SIZE_LARGEST_BYTES = 2**62
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.:-]{0,253}[A-Za-z0-9_])?\Z")
"""Names and addresses; nothing that ssh takes for an option."""


def reports(host_names: Sequence[str]) -> dict[str, AgentAnswer]:
    """What each host's agent says, by host name; a host that does not answer is a NoReport."""
    return dict(zip(host_names, at_once(report, host_names), strict=True))


def at_once(work: Callable[[T], U], items: Sequence[T]) -> list[U]:
    """What `work` gives for each, several at a time."""
    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        return list(pool.map(work, items))


def report(host_name: str) -> AgentAnswer:
    """What one host's agent says. Never raises."""
    try:
        return _report(json.loads(_said(host_name, ("status", "--json"), accepted=(0, 3))))
    except (CloudError, UnavailableError, BadDataError) as error:
        return NoReport(error.message)
    except (ValueError, RecursionError):
        return NoReport("the agent's answer is not understood")


def tell(host_name: str, words: Sequence[str]) -> None:
    """Run `vmpack WORDS` on that host.

    Raises CloudError with what it said when that fails, UnavailableError when the host is not reached.
    """
    _said(host_name, words, accepted=(0,))


def _said(host_name: str, words: Sequence[str], accepted: tuple[int, ...]) -> bytes:
    """Standard output of `vmpack WORDS` there. ssh joins words with blanks: each is checked to be one."""
    if not _HOST.match(host_name):
        raise CloudError(f"{host_name!r:.80} is no name of a host that ssh may be given", "rename the host")
    if not all(re.fullmatch(r"[A-Za-z0-9_.%=-]+", word) for word in words):
        raise CloudError(f"{' '.join(words)!r:.80} cannot be said over ssh", "this is vmpack's mistake")
    try:
        done = subprocess.run(
            [*SSH, "--", host_name, "vmpack", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=ANSWER_TIME_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise UnavailableError(f"no answer by ssh within {ANSWER_TIME_S:g} s", "look at that host") from error
    except OSError as error:
        raise UnavailableError(f"ssh cannot be run: {error.strerror}", "install the ssh client") from error
    if done.returncode == 255:
        raise UnavailableError(_complaint(done), f"try: ssh {host_name} vmpack {words[0]}")
    if done.returncode not in accepted:
        raise CloudError(_complaint(done), f"try: ssh {host_name} vmpack {words[0]}")
    if len(done.stdout) > _ANSWER_LARGEST_BYTES:
        raise BadDataError(f"the agent's answer has more than {_ANSWER_LARGEST_BYTES} bytes")
    return done.stdout


def _complaint(done: subprocess.CompletedProcess[bytes]) -> str:
    lines = [line.strip() for line in done.stderr.decode("utf-8", "replace").splitlines() if line.strip()]
    said = lines[0][:200] if lines else f"it ended with exit code {done.returncode} and said nothing"
    return f"ssh: {said.removeprefix('ssh: ')}" if done.returncode == 255 else said.removeprefix("vmpack: ")


def _report(record: Any) -> AgentAnswer:
    found = _mapping(record)
    state = found.get("state")
    if state not in ("active", "observe", "frozen"):
        return NoReport("the agent's answer is not understood")
    if not isinstance(found.get("host"), Mapping):
        return NoReport("its agent has not seen a first interval yet")
    host = _mapping(found["host"])
    return AgentReport(
        state=state,
        stale=found.get("stale") is not False or bool(found.get("last_error")),
        capacity_bytes=_size(host, "capacity_bytes"),
        packed_bytes=_size(host, "packed_bytes"),
        offered_bytes=_size(host, "offered_bytes"),
        vms=tuple(_vm(_mapping(entry)) for entry in found.get("vms") or ()),
        version=str(found.get("version"))[:40],
    )


def _vm(found: Mapping[str, Any]) -> ReportedVm:
    return ReportedVm(
        uuid=str(found.get("uuid"))[:64],
        name=str(found.get("name"))[:256],
        nominal_bytes=_size(found, "nominal_bytes"),
        balloon_bytes=_size(found, "balloon_bytes"),
        floor_bytes=None if found.get("floor_bytes") is None else _size(found, "floor_bytes"),
        target_bytes=None if found.get("target_bytes") is None else _size(found, "target_bytes"),
        verdict=None if found.get("verdict") is None else str(found["verdict"])[:40],
        policy=_policy(found.get("policy")),
    )


def _policy(found: Any) -> GuestPolicy | None:
    """None where it is not told, or not understandably: such a VM's policy is left as it is.

    An agent of another version may tell less or more.
    """
    if not isinstance(found, Mapping):
        return None
    plain = encode(GuestPolicy())
    try:
        return decode(GuestPolicy, plain | {name: found[name] for name in plain if name in found})
    except BadDataError:
        return None


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise BadDataError("the agent's answer is not understood")
    return value


def _size(found: Mapping[str, Any], name: str) -> int:
    value = found.get(name)
    if type(value) is not int or not 0 <= value <= _SIZE_LARGEST_BYTES:
        raise BadDataError(f"the agent's answer is not understood: {name} is {value!r:.40}")
    return value
