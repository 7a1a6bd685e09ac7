"""The double of OneGate itself: it must refuse what the real server refuses."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from tests.opennebula.onegate import BrokenTemplateError, OneGate, Vm, stored


@pytest.fixture
def gate() -> Iterator[OneGate]:
    """A OneGate with one VM."""
    with OneGate(Vm(7, "secret+/=", {"OLD": "1", "SCHED_MESSAGE": "no host"})) as server:
        yield server


def ask(
    gate: OneGate, method: str = "PUT", path: str = "/vm", body: str | None = None, **headers: str
) -> tuple[int, str]:
    """One request; the right credentials unless others are given."""
    known = {"X-ONEGATE-TOKEN": "secret+/=", "X-ONEGATE-VMID": "7", "Content-Type": "text/plain"}
    known |= {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(
        gate.endpoint + path, body.encode() if body is not None else None, known, method=method
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


class TestBodies:
    """What was measured on the real server's escaping and oned's syntax."""

    @pytest.mark.parametrize(
        ("body", "values"),
        [
            ("A=1\nB=2", {"A": "1", "B": "2"}),
            ("A=1\nB=2\n", {"A": "1", "B": "2"}),
            ('A="1"\nB=2', {"A": "1", "B": "2"}),
            ("a=x y=z", {"A": "x y=z"}),
            ("A=\nB=1", {"A": "", "B": "1"}),
            ("A=1\r\nB=2", {"A": "1\r", "B": "2"}),
        ],
    )
    def test_what_the_real_one_takes(self, body: str, values: dict[str, str]) -> None:
        """A reporter that works here would be refused by a real cloud, or the other way round."""
        assert stored(body) == values

    @pytest.mark.parametrize(
        "body",
        ["A=1\n\n", "\nA=1", "A=1\n\nB=2", "A=a,b", "V=[K=1,L=2]", "A=a]", "A=a\\b", "A=1\nB=", "A=", "junk"],
    )
    def test_what_breaks_the_template_or_leaves_strays(self, body: str) -> None:
        """A reporter that sends these would look fine here and tell a real cloud nothing, or nonsense."""
        with pytest.raises(BrokenTemplateError):
            stored(body)


class TestAnswers:
    """Status codes and bodies of the real server."""

    def test_a_put_merges_strings(self, gate: OneGate) -> None:
        """Tests of the cloud's side would not see what reporters leave in USER_TEMPLATE."""
        assert ask(gate, body="MEM_TOTAL=5") == (200, "")
        assert gate.vms[7].template == {"OLD": "1", "SCHED_MESSAGE": "no host", "MEM_TOTAL": "5"}

    def test_a_form_works_too(self, gate: OneGate) -> None:
        """What the cloud's own command line sends would be refused here."""
        form = {"Content_Type": "application/x-www-form-urlencoded"}
        assert ask(gate, body="data=A%3D1%0AB%3D2&type=1", **form)[0] == 200
        assert gate.vms[7].template["B"] == "2"
        assert ask(gate, body="data=B&type=2", **form)[0] == 200
        assert "B" not in gate.vms[7].template

    def test_a_get_shows_the_template(self, gate: OneGate) -> None:
        """The reporter could not be tested on what applies to its VM."""
        status, text = ask(gate, "GET")
        assert status == 200
        assert json.loads(text)["VM"]["USER_TEMPLATE"] == {"OLD": "1"}

    @pytest.mark.parametrize(
        "headers",
        [{"X_ONEGATE_TOKEN": "other"}, {"X_ONEGATE_VMID": "8"}, {"X_ONEGATE_VMID": "seven"}],
    )
    def test_a_token_is_good_for_its_own_vm_alone(self, gate: OneGate, headers: dict[str, str]) -> None:
        """One VM could report for another."""
        assert ask(gate, body="A=1", **headers) == (401, "Not authorized")
        assert "A" not in gate.vms[7].template

    @pytest.mark.parametrize("name", ["SERVICE_ID", "sched_requirements"])
    def test_some_attributes_are_restricted(self, gate: OneGate, name: str) -> None:
        """A reporter that sends one of these would be refused with all that it says."""
        status, text = ask(gate, body=f"A=1\n{name}=3")
        assert status == 403
        assert "cannot be modified" in text

    def test_a_broken_template_is_a_500(self, gate: OneGate) -> None:
        """A bad body would be taken."""
        assert ask(gate, body="\nA=1")[0] == 500

    @pytest.mark.parametrize(
        ("method", "path"), [("POST", "/vm"), ("GET", "/vms"), ("PUT", "/"), ("HEAD", "/x")]
    )
    def test_anything_else_is_a_400(self, gate: OneGate, method: str, path: str) -> None:
        """A wrong address would look right."""
        assert ask(gate, method, path)[0] == 400

    def test_after_an_outage_it_is_where_it_was(self, gate: OneGate) -> None:
        """Tests of an outage would only show that a reporter finds no server at an address that is gone."""
        gate.close()
        with pytest.raises(urllib.error.URLError):
            ask(gate, "GET")
        gate.open()
        assert ask(gate, "GET")[0] == 200
