"""What oned, environments and names may hold that nobody expects: nothing of it is believed."""

from __future__ import annotations

import argparse
import os

import pytest

from tests.opennebula.conftest import FrontEnd
from tests.opennebula.oned import ADMIN, Oned
from tests.opennebula.test_xml import VM
from vmpack.cli import cloud_access
from vmpack.clock import SystemClock
from vmpack.clouds import agents, opennebula_client
from vmpack.clouds.opennebula_access import Login, login
from vmpack.clouds.opennebula_client import OpenNebulaClient
from vmpack.clouds.opennebula_text import template_text
from vmpack.clouds.opennebula_xml import read_driver_names, read_vm
from vmpack.config import OpenNebulaAccess
from vmpack.errors import AccessError, CloudError, CloudLostError


@pytest.fixture
def client(front_end: FrontEnd) -> OpenNebulaClient:
    """A client of the double."""
    return OpenNebulaClient(Login(os.environ["ONE_XMLRPC"], ADMIN), 30.0)


def test_an_answer_without_end_is_cut_off(
    oned: Oned, client: OpenNebulaClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever answers in oned's place could fill the front-end's memory."""
    monkeypatch.setattr(opennebula_client, "ANSWER_LARGEST_BYTES", 1000)
    oned.raw["one.hostpool.info"] = [True, "x" * 2000, 0]
    with pytest.raises(CloudLostError, match="more than 1000 bytes"):
        client.text("hostpool.info")


def test_a_redirection_is_not_followed(oned: Oned, client: OpenNebulaClient) -> None:
    """The session would be sent to whatever address the answer names."""
    oned.http = b"HTTP/1.1 307 Elsewhere\r\nLocation: /RPC2\r\nContent-Length: 0\r\n\r\n"
    with pytest.raises(CloudLostError, match="HTTP status 307"):
        client.text("hostpool.info")


def test_a_proxy_is_not_asked_for_this_very_machine(
    oned: Oned, client: OpenNebulaClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session would go through it, and a proxy that is away would stop every grant."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert client.text("hostpool.info") == "<HOST_POOL></HOST_POOL>"


def test_credentials_of_somebody_else_are_refused(
    front_end: FrontEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever put the file there would choose as whom, and where, an administrator acts."""
    real = os.fstat

    def anothers(descriptor: int) -> os.stat_result:
        fields = list(real(descriptor))
        fields[4] = os.geteuid() + 4242
        return os.stat_result(fields)

    monkeypatch.setattr(os, "fstat", anothers)
    with pytest.raises(AccessError):
        login(OpenNebulaAccess(endpoint=None, auth_file=None, timeout_s=30.0, shares_max=1), {})


def test_a_document_that_is_too_large_is_not_read() -> None:
    """One VM's owner could keep the front-end busy for everybody."""
    assert read_vm(VM.replace("</VM>", " " * 1000 + "</VM>")).id == 7
    with pytest.raises(CloudError, match="more than"):
        read_vm(VM.replace("</VM>", " " * (4 * 2**20) + "</VM>"))


def test_of_two_values_the_first_counts() -> None:
    """vmpack would go by another value than oned itself does."""
    twice = "<USER_TEMPLATE><A>1</A><A>2</A><B><C>3</C></B><B><C>4</C></B></USER_TEMPLATE>"
    template = read_vm(VM.replace("<USER_TEMPLATE>", twice[:-16] + "")).user_template
    assert template.values["A"] == "1" and template.value("B", "C") == "3"


def test_names_of_drivers_are_their_own() -> None:
    """A driver whose arguments hold a NAME would be taken for another, and a conversion be refused."""
    one = "<VM_MAD><ARGUMENTS><NAME>x</NAME></ARGUMENTS><NAME><![CDATA[kvm]]></NAME></VM_MAD>"
    other = "<IM_MAD><NAME>collectd</NAME></IM_MAD><VM_MAD/>"
    text = f"<OPENNEBULA_CONFIGURATION>{one}{other}</OPENNEBULA_CONFIGURATION>"
    assert read_driver_names(text, "VM_MAD") == {"kvm"}


@pytest.mark.parametrize("value", ["a]]>b", 'a"b', "a\\b", "a\nb"])
def test_what_would_end_a_value_is_not_written(value: str) -> None:
    """oned would keep a template that nobody can read any more."""
    with pytest.raises(CloudError):
        template_text({"A": value})


def test_a_word_that_is_more_than_a_word_reaches_no_host(front_end: FrontEnd) -> None:
    """ssh joins words with blanks: a shell on the host would take them apart again."""
    front_end.agent("node-a", 0, 0, {})
    for word in ("one-1; touch /tmp/x", "$(x)", "a b", ""):
        with pytest.raises(CloudError, match="cannot be said"):
            agents.tell("node-a", ["policy", word])
    assert front_end.told() == []


def test_an_id_outranks_a_name(oned: Oned, front_end: FrontEnd) -> None:
    """An owner who calls his VM by another's number would have that one moved, or neither."""
    first, second = oned.add_vm("a", 512, None), oned.add_vm("b", 512, None)
    first.name = str(second.id)
    cloud = cloud_access.cloud(cloud_access.configuration(argparse.Namespace(config=None)), SystemClock())
    assert cloud_access.vm_named(cloud.vms()[0], str(second.id)).name == "b"
