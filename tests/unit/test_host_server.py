"""Socket and client together: the same answers, rights, limits, and a socket that is taken or stale."""

import http.client
import json
import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests import builders
from tests.host_doubles import HostInMemory, JumpingClock, make_loop, make_service
from tests.waiting import eventually

from vmpack.cli.main import main
from vmpack.errors import (
    AccessError,
    AgentBusyError,
    AlreadyRunningError,
    BadDataError,
    ConfigError,
    VmpackError,
)
from vmpack.host import server as server_module
from vmpack.host.client import AgentClient
from vmpack.host.peer import Peer, Rights, group_id, peer_of
from vmpack.host.server import Server
from vmpack.host.service import HostService
from vmpack.units import MIB

NOBODY = Rights(None, False)
GROUP = 4242


@pytest.fixture
def service(tmp_path: Path) -> HostService:
    """A service over a host in memory after one turn."""
    host = HostInMemory(JumpingClock(), builders.guest('we"b\n☃1'), builders.guest("web2"))
    loop = make_loop(host)
    loop.turn()
    return make_service(host, loop, tmp_path / "state")


@pytest.fixture
def server(service: HostService, tmp_path: Path) -> Iterator[Server]:
    """A server on a socket of its own."""
    running = Server(tmp_path / "run" / "agent.sock", service, NOBODY)
    running.start()
    yield running
    running.stop()


@pytest.fixture
def client(server: Server, tmp_path: Path) -> AgentClient:
    """A client of that server."""
    return AgentClient(tmp_path / "run" / "agent.sock")


def raw(path: Path, request: bytes) -> tuple[int, dict[str, object]]:
    """One hand-written request; status and JSON body."""
    with socket.socket(socket.AF_UNIX) as channel:
        channel.settimeout(30)
        channel.connect(str(path))
        channel.sendall(request)
        answer = http.client.HTTPResponse(channel)
        answer.begin()
        return answer.status, json.loads(answer.read())


def test_the_client_gets_what_the_service_says(client: AgentClient, service: HostService) -> None:
    """Every command reads its numbers this way; none may be lost or bent."""
    assert client.status() == service.status()
    assert client.explain("uuid-web2") == service.explain("web2")
    assert client.explain('we"b\n☃1').guest.name == 'we"b\n☃1'
    assert client.metrics() == b"vmpack_up 1\n"


def test_every_change_goes_through(client: AgentClient, service: HostService) -> None:
    """Policies, holds, balloons, release and freeze by socket must do what they do in the service."""
    assert client.set_policy("web2", {"shares": 5, "floor_bytes": None}).policy.shares == 5
    assert client.hold("web2", 60.5).policy.hold_until_s
    assert client.hold("web2", 0).policy.hold_until_s is None
    assert client.balloon("web2", 200 * MIB).status == "done"
    assert client.release("web2").given_bytes == 56 * MIB
    assert client.release(None).still_packed == ()
    assert client.freeze(False).frozen is False


def test_errors_cross_the_socket_whole(client: AgentClient) -> None:
    """The command line must show the agent's own words, hint and exit code."""
    with pytest.raises(VmpackError) as caught:
        client.explain("web3")

    assert "web3" in caught.value.message and "web2" in caught.value.hint
    assert caught.value.exit_code == 2


def test_a_defect_costs_one_answer(
    client: AgentClient, service: HostService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defect in one request must neither kill the agent nor leak its insides."""
    monkeypatch.setattr(type(service), "metrics", lambda self: 1 // 0)

    with pytest.raises(VmpackError, match="a defect in vmpack"):
        client.metrics()

    assert client.status().version


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        (b"POST /v1/nothing HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", 400),
        (b"GET /v1/status HTTP/1.1\r\n\r\n", 400),
        (b"POST /v1/status HTTP/1.1\r\nContent-Length: 2\r\n\r\n[]", 400),
        (b"POST /v1/status HTTP/1.1\r\nContent-Length: 1\r\n\r\n{", 400),
        (b"POST /v1/status HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /v1/status HTTP/1.1\r\nContent-Length: " + b"9" * 6000 + b"\r\n\r\n", 400),
        (b"POST /v1/status HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 400),
        (b"POST /v1/status HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", 400),
        (b'POST /v1/explain HTTP/1.1\r\nContent-Length: 10\r\n\r\n{"vm":null}', 400),
        (b'POST /v1/explain HTTP/1.1\r\nContent-Length: 17\r\n\r\n{"vm":"a","b":1}x', 400),
        (b'POST /v1/freeze HTTP/1.1\r\nContent-Length: 9\r\n\r\n{"on": 1}', 400),
        (b"POST /v1/explain HTTP/1.1\r\nContent-Length: 2000\r\n\r\n" + b"[" * 2000, 400),
    ],
)
def test_nonsense_gets_an_answer_in_words(
    request_text: bytes, status: int, client: AgentClient, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever writes against the API must be told what is wrong; the agent lives on, its log clean."""
    code, body = raw(client.socket_path, request_text)

    assert code == status and body["message"]
    assert client.status().version and caplog.text == ""


def test_a_body_that_does_not_come_costs_no_log_line(
    client: AgentClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Who may only read could fill root's log with "a defect in vmpack"."""
    monkeypatch.setattr(server_module.Handler, "timeout", 0.1)

    code, body = raw(client.socket_path, b"POST /v1/status HTTP/1.1\r\nContent-Length: 9\r\n\r\n{")

    assert code == 408 and "did not arrive whole" in str(body["message"]) and caplog.text == ""


def test_who_may_not_is_refused_before_the_body(
    server: Server, client: AgentClient, patient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stranger must not be able to have the agent wait for what it will not read."""
    monkeypatch.setattr(server_module, "peer_of", lambda _connection: Peer(1, 5000, frozenset({GROUP})))
    server.rights = Rights(GROUP, False)

    code, body = raw(client.socket_path, b"POST /v1/freeze HTTP/1.1\r\nContent-Length: 9\r\n\r\n")

    assert code == 403 and "may not change" in str(body["message"])


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a test nobody is cut off for being slow."""
    monkeypatch.setattr(server_module, "REQUEST_TIME_S", 600.0)
    monkeypatch.setattr(server_module.Handler, "timeout", 600.0)


@pytest.fixture
def dawdle(server: Server, tmp_path: Path) -> Iterator[Callable[[], socket.socket]]:
    """Opens a connection, sends half a request line, and leaves it there."""
    with ExitStack() as at_end:

        def connect() -> socket.socket:
            channel = at_end.enter_context(socket.socket(socket.AF_UNIX))
            channel.settimeout(20)
            channel.connect(str(tmp_path / "run" / "agent.sock"))
            channel.send(b"POST /v1/st")
            return channel

        yield connect


def is_waiting(channel: socket.socket) -> bool:
    """The server has neither answered nor hung up."""
    channel.setblocking(False)
    try:
        channel.recv(1)
    except BlockingIOError:
        return True
    return False


def is_turned_away(channel: socket.socket) -> bool:
    """The server says that it has no place; True once it has said so."""
    return channel.recv(12) == b"HTTP/1.1 429"


def is_busy(client: AgentClient) -> bool:
    """The agent has no place for one more request."""
    try:
        client.status()
    except AgentBusyError:
        return True
    return False


def test_slow_callers_do_not_block_the_others(
    client: AgentClient, dawdle: Callable[[], socket.socket], patient: None
) -> None:
    """Someone who opens connections and says nothing must not keep an administrator waiting."""
    slow = [dawdle() for _ in range(server_module.REQUESTS_MAX - 1)]

    assert client.status().version
    assert all(is_waiting(channel) for channel in slow)


def test_slow_callers_are_cut_off(
    client: AgentClient, dawdle: Callable[[], socket.socket], patient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connections that somebody forgot must not use up the places for ever."""
    monkeypatch.setattr(server_module, "REQUEST_TIME_S", 0.2)
    slow = [dawdle() for _ in range(server_module.REQUESTS_MAX)]

    assert [channel.recv(1) for channel in slow] == [b""] * len(slow)
    eventually("their places are free", lambda: not is_busy(client))


def test_too_many_callers_at_once_are_turned_away(
    client: AgentClient, dawdle: Callable[[], socket.socket], patient: None
) -> None:
    """A flood of requests must not become a flood of threads in an agent that has to stay small."""
    first = [dawdle() for _ in range(server_module.REQUESTS_MAX)]

    assert is_turned_away(dawdle())
    assert all(is_waiting(channel) for channel in first)


def test_readers_cannot_shut_root_out(
    server: Server,
    client: AgentClient,
    dawdle: Callable[[], socket.socket],
    patient: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who may only look could else keep the administrator from releasing, and one reader all others."""
    each, readers = server_module.REQUESTS_OF_ONE_MAX, server_module.REQUESTS_OF_READERS_MAX
    callers = [5000] * (each + 1) + [5001 + number // each for number in range(readers - each)] + [5900]
    peers = (Peer(1, uid, frozenset({GROUP})) for uid in callers)
    monkeypatch.setattr(server_module, "peer_of", lambda channel: next(peers, None) or peer_of(channel))
    server.rights = Rights(GROUP, False)
    channels = [dawdle() for _ in callers]

    assert is_turned_away(channels.pop(each)) and is_turned_away(channels.pop())
    assert client.release(None).still_packed == ()
    assert len(channels) == readers and all(is_waiting(channel) for channel in channels)


def test_a_busy_agent_is_not_called_absent(
    client: AgentClient,
    dawdle: Callable[[], socket.socket],
    patient: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A release would go on alone and say "kill" of a healthy agent; a freeze would be lost."""
    for _ in range(server_module.REQUESTS_MAX):
        dawdle()
    where = ["--socket", str(client.socket_path), "--state-dir", str(tmp_path / "marked")]

    assert main(["release", "--all", *where]) == 75
    said = capsys.readouterr()
    assert "is busy" in said.err and "try again" in said.err and said.out == ""
    assert not (tmp_path / "marked").exists()

    assert main(["freeze", *where]) == 3
    assert "no running agent confirmed it" in (told := capsys.readouterr().out) and "is busy" in told
    assert (tmp_path / "marked" / "frozen").exists()


def test_only_root_and_the_agents_user_may_use_the_socket(server: Server, tmp_path: Path) -> None:
    """Promise 7: without a configured group nobody else may even connect."""
    mode = stat.S_IMODE((tmp_path / "run" / "agent.sock").stat().st_mode)

    assert mode == 0o600


@pytest.mark.parametrize(
    ("peer", "rights", "reads", "changes"),
    [
        (Peer(1, 0, frozenset({0})), NOBODY, True, True),
        (Peer(1, os.geteuid(), frozenset()), NOBODY, True, True),
        (Peer(1, 5000, frozenset({GROUP})), NOBODY, False, False),
        (Peer(1, 5000, frozenset({GROUP, 7})), Rights(GROUP, False), True, False),
        (Peer(1, 5000, frozenset({GROUP})), Rights(GROUP, True), True, True),
        (Peer(1, 5000, frozenset({7})), Rights(GROUP, True), False, False),
    ],
)
def test_rights_by_user_and_group(
    peer: Peer,
    rights: Rights,
    reads: bool,
    changes: bool,
    server: Server,
    client: AgentClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A member of the reading group must not be able to release, and a stranger not even to look."""
    monkeypatch.setattr(server_module, "peer_of", lambda _connection: peer)
    server.rights = rights

    for call, allowed in (
        (client.status, reads),
        (client.metrics, reads),
        (lambda: client.explain("web2"), reads),
        (lambda: client.hold("web2", 0), changes),
        (lambda: client.freeze(False), changes),
        (lambda: client.set_policy("web2", {}), changes),
    ):
        if allowed:
            call()
        else:
            with pytest.raises(VmpackError) as caught:
                call()
            assert caught.value.exit_code == AccessError.exit_code and caught.value.hint


def test_the_kernel_says_who_asks() -> None:
    """Rights rest on this: the peer's user and all its groups, not what it claims."""
    one, other = socket.socketpair(socket.AF_UNIX)
    with one, other:
        peer = peer_of(one)

    assert (peer.pid, peer.uid) == (os.getpid(), os.geteuid())
    assert peer.group_ids == {os.getegid(), *os.getgroups()}


def test_a_group_that_does_not_exist_is_a_mistake_in_the_configuration() -> None:
    """A typing error in the group must stop the start, not lock the operators out in silence."""
    assert group_id(None) is None
    with pytest.raises(ConfigError, match="no group 'no-such-group'"):
        group_id("no-such-group")


def test_a_dead_agents_socket_is_replaced(service: HostService, tmp_path: Path) -> None:
    """After kill -9 the next start must not need a hand to remove the socket."""
    path = tmp_path / "agent.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))

    running = Server(path, service, NOBODY)
    running.start()

    assert AgentClient(path).status().version
    running.stop()
    assert not path.exists()


def test_a_living_agents_socket_is_not_taken(server: Server, service: HostService, tmp_path: Path) -> None:
    """Taking it would cut the running agent off from its administrators."""
    with pytest.raises(AlreadyRunningError):
        Server(tmp_path / "run" / "agent.sock", service, NOBODY)


def test_something_else_at_the_sockets_path_is_not_removed(service: HostService, tmp_path: Path) -> None:
    """A file that is not ours must survive a wrong --run-dir."""
    path = tmp_path / "agent.sock"
    path.write_text("precious")

    with pytest.raises(VmpackError):
        Server(path, service, NOBODY)

    assert path.read_text() == "precious"


def test_a_path_too_long_for_a_socket_is_said(service: HostService, tmp_path: Path) -> None:
    """The kernel's own message for this helps nobody."""
    with pytest.raises(BadDataError, match="107 bytes"):
        Server(tmp_path / ("x" * 120) / "agent.sock", service, NOBODY)
