"""Asking oned: every way in which it may answer, not answer, refuse, or be something else."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.opennebula.conftest import FrontEnd
from tests.opennebula.oned import ADMIN, OWNER, Oned
from vmpack.cli.main import main
from vmpack.clouds.opennebula_access import DEFAULT_ENDPOINT, Login, login
from vmpack.clouds.opennebula_client import OpenNebulaClient
from vmpack.config import OpenNebulaAccess
from vmpack.errors import (
    AccessError,
    CloudAccessError,
    CloudBusyError,
    CloudError,
    CloudGoneError,
    CloudLostError,
    ConfigError,
    UnavailableError,
)

BOMB = (
    b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "bbbbbbbbbb"><!ENTITY c "&b;&b;&b;">]>'
    b"<methodResponse><params><param><value>&c;</value></param></params></methodResponse>"
)


def unset(**changes: Any) -> OpenNebulaAccess:
    """Nothing configured."""
    return OpenNebulaAccess(
        **{"endpoint": None, "auth_file": None, "timeout_s": 30.0, "shares_max": 1} | changes
    )


@pytest.fixture
def client(front_end: FrontEnd) -> OpenNebulaClient:
    """A client of the double."""
    return OpenNebulaClient(Login(os.environ["ONE_XMLRPC"], ADMIN), 30.0)


def http(body: bytes, status: bytes = b"200 OK") -> bytes:
    """A whole HTTP answer."""
    head = b"HTTP/1.1 " + status + b"\r\nContent-Type: text/xml\r\nContent-Length: %d\r\n\r\n" % len(body)
    return head + body


@pytest.mark.parametrize(("success", "failure"), [(6, 6), (3, 5), (3, 3)])
def test_answers_of_every_length_are_read(
    success: int, failure: int, oned: Oned, client: OpenNebulaClient
) -> None:
    """Releases differ in how many elements an answer has, and the second one is what counts."""
    oned.success_length, oned.failure_length = success, failure
    oned.add_host("node-a", 1024)

    assert client.text("hostpool.info").startswith("<HOST_POOL>")
    assert client.number("host.update", 0, 'A="1"', 1) == 0
    with pytest.raises(CloudGoneError, match=r"Error getting host \[7\]"):
        client.text("host.info", 7)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (0x100, CloudAccessError),
        (0x200, CloudAccessError),
        (0x400, CloudGoneError),
        (0x800, CloudError),
        (0x1000, CloudError),
        (0x2000, CloudError),
        (0x4000, CloudError),
        (0x8000, CloudBusyError),
        (0x10000, CloudBusyError),
        (77, CloudError),
    ],
)
def test_each_code_has_its_own_meaning(
    code: int, kind: type[CloudError], oned: Oned, client: OpenNebulaClient
) -> None:
    """Wrong password, locked and not there want different answers from a person and from a script."""
    oned.raw["one.vm.info"] = [False, "[one.vm.info] because", code, 0, 0, -1]

    with pytest.raises(CloudError) as caught:
        client.text("vm.info", 1)

    assert type(caught.value) is kind
    assert "because" in caught.value.message and caught.value.hint


@pytest.mark.parametrize(
    "odd",
    [
        True,
        7,
        "text",
        [],
        [True],
        [1, "<HOST_POOL/>", 0],
        ["yes", "<HOST_POOL/>", 0],
        [True, 7, 0],
        [True, True, 0],
        [True, ["<HOST_POOL/>"], 0],
        {"faultCode": 1},
    ],
)
def test_an_odd_answer_is_no_answer(odd: Any, oned: Oned, client: OpenNebulaClient) -> None:
    """Something else that listens on that port must not be taken for oned."""
    oned.raw["one.hostpool.info"] = odd

    with pytest.raises(CloudLostError, match="not understood"):
        client.text("hostpool.info")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\0" * 100,
        b"SSH-2.0-OpenSSH_9.2\r\n",
        http(b""),
        http(b"<html>It works!</html>"),
        http(b"<methodResponse><params><param>"),
        http(b"<methodResponse><params><param><value><int>x</int></value></param></params></methodResponse>"),
        http(b"\xff\xfe\x00"),
        http(BOMB),
        http(b"gone", b"404 Not Found"),
        http(b"later", b"503 Service Unavailable"),
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n<methodResponse>",
    ],
)
def test_what_is_no_answer_ends_in_one_line(answer: bytes, oned: Oned, client: OpenNebulaClient) -> None:
    """A web server, a half answer or a bomb in its place must not end in a traceback, nor in a redirect."""
    oned.http = answer

    with pytest.raises(CloudLostError) as caught:
        client.text("hostpool.info")

    assert "\n" not in caught.value.message and caught.value.exit_code == 69


def test_an_unknown_method_is_told_as_such(client: OpenNebulaClient) -> None:
    """An old oned without a call must not look like one that is down."""
    with pytest.raises(CloudError, match=r"one\.vm\.fly.*not defined") as caught:
        client.text("vm.fly")
    assert not isinstance(caught.value, CloudLostError)


def test_a_slow_oned_costs_the_timeout_and_no_more(oned: Oned, client: OpenNebulaClient) -> None:
    """A hung oned must not hang a cron job for ever; pyone's own transport would."""
    released = threading.Event()
    oned.before["one.hostpool.info"] = lambda: released.wait(120) and None
    hasty = OpenNebulaClient(Login(client.endpoint, ADMIN), 0.2)
    try:
        with pytest.raises(CloudLostError, match=r"none within 0\.2 s"):
            hasty.text("hostpool.info")
    finally:
        released.set()


def test_nobody_there_is_told_with_the_address(client: OpenNebulaClient) -> None:
    """The first mistake of everybody is the wrong address."""
    nobody = OpenNebulaClient(Login("http://127.0.0.1:1/RPC2", ADMIN), 5.0)

    with pytest.raises(CloudLostError, match=r"127\.0\.0\.1:1/RPC2.*refused") as caught:
        nobody.text("hostpool.info")
    assert "opennebula.endpoint" in caught.value.hint


@pytest.mark.parametrize("code", [0x100, 0x2000])
def test_the_secret_is_in_no_message(code: int, oned: Oned, client: OpenNebulaClient) -> None:
    """Messages end in mails, tickets and logs."""
    oned.raw["one.hostpool.info"] = [False, f"user {ADMIN} and the-secret", code]

    with pytest.raises(CloudError) as caught:
        client.text("hostpool.info")

    assert "the-secret" not in str(caught.value) and "the-secret" not in repr(Login("http://x/", ADMIN))


def test_a_user_without_rights_is_told_whose_they_must_be(front_end: FrontEnd, oned: Oned) -> None:
    """Grants and migrations are an administrator's; a user who tries must learn that and nothing else."""
    host = oned.add_host("node-a", 1024)
    owner = OpenNebulaClient(Login(os.environ["ONE_XMLRPC"], OWNER), 30.0)

    with pytest.raises(CloudAccessError) as caught:
        owner.number("host.update", host.id, 'RESERVED_MEM="-1"', 1)
    assert "oneadmin" in caught.value.hint and caught.value.exit_code == 77


@pytest.mark.parametrize("module", ["pyone", "requests", "defusedxml", "cpyutils"])
def test_without_the_extra_only_the_clouds_commands_fail(
    module: str, front_end: FrontEnd, oned: Oned, tmp_path: Path
) -> None:
    """A node without the extra must still have its agent, its probes and its other commands."""
    oned.add_host("node-a", 1024)
    (tmp_path / f"{module}.py").write_text(f"raise ImportError('none here', name='{module}')\n")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "vmpack.cli.main", *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    asked = run("hosts")
    assert asked.returncode == 69 and f"{module} is not installed" in asked.stderr
    assert "install.sh opennebula" in asked.stderr and "Traceback" not in asked.stderr
    assert run("check-config").returncode == 0


@pytest.mark.parametrize("command", [["hosts"], ["vms"], ["grant", "--dry-run"]])
def test_a_front_end_needs_no_libvirt(
    command: list[str], front_end: FrontEnd, oned: Oned, tmp_path: Path
) -> None:
    """Front-ends run no VMs: libvirt is not installed there."""
    oned.add_host("node-a", 1024)
    (tmp_path / "libvirt.py").write_text("raise ImportError('no libvirt here', name='libvirt')\n")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}

    done = subprocess.run(
        [sys.executable, "-m", "vmpack.cli.main", *command],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr


def test_where_oned_is_follows_its_own_tools(
    front_end: FrontEnd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `onehost list` reaches, `vmpack hosts` must reach; and the configuration outranks it."""
    own = Path(os.environ["HOME"]) / ".one"
    other = tmp_path / "auth"
    other.write_text("somebody:else")
    other.chmod(0o600)

    assert login(unset(), {}) == Login(DEFAULT_ENDPOINT, ADMIN)
    (own / "one_endpoint").write_text("http://far:2633/RPC2\n")
    assert login(unset(), {}).endpoint == "http://far:2633/RPC2"
    assert login(unset(), {"ONE_XMLRPC": "http://env/RPC2"}).endpoint == "http://env/RPC2"
    assert login(unset(), {"ONE_AUTH": str(other)}).session == "somebody:else"
    configured = unset(endpoint="https://conf/RPC2", auth_file=other)
    assert login(configured, {"ONE_XMLRPC": "http://env/RPC2"}) == Login("https://conf/RPC2", "somebody:else")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o602])
def test_credentials_that_others_reach_are_refused(mode: int, front_end: FrontEnd) -> None:
    """The file holds the password of the whole cloud."""
    auth = Path(os.environ["HOME"]) / ".one" / "one_auth"
    auth.chmod(mode)

    with pytest.raises(AccessError) as caught:
        login(unset(), {})
    assert f"chmod 600 {auth}" in caught.value.hint and "the-secret" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "oneadmin", ":", "user:", ":secret", "a:b\nc:d", "a:b\x1b[0m"])
def test_a_file_without_credentials_is_named(text: str, front_end: FrontEnd) -> None:
    """A wrong file must not become a wrong password at oned."""
    (Path(os.environ["HOME"]) / ".one" / "one_auth").write_text(text)

    with pytest.raises(ConfigError, match="one line USER:PASSWORD"):
        login(unset(), {})


def test_no_credentials_at_all_says_what_to_do(front_end: FrontEnd) -> None:
    """A user who is not oneadmin should learn that, not see a file error."""
    (Path(os.environ["HOME"]) / ".one" / "one_auth").unlink()

    with pytest.raises(UnavailableError) as caught:
        login(unset(), {})
    assert "oneadmin" in caught.value.hint


@pytest.mark.parametrize(
    "endpoint",
    ["far:2633", "ftp://far/", "http://", "http://far:99999/RPC2", "http://u:p@far/RPC2", "grpc:2634"],
)
def test_an_address_that_cannot_be_one_is_told(endpoint: str, front_end: FrontEnd) -> None:
    """Secrets must not be sent to whatever a typing mistake names."""
    with pytest.raises(ConfigError):
        login(unset(endpoint=endpoint), {})


def test_a_broken_configuration_grants_nothing(
    front_end: FrontEnd, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a factor that nobody meant the defaults must not step in."""
    config = tmp_path / "vmpack.toml"
    config.write_text("[grant]\nfactor = 7\n")

    assert main(["grant", "--config", str(config)]) == 78
    assert "grant.factor" in capsys.readouterr().err
