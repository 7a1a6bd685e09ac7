"""The in-guest reporter when OneGate is away, unwilling or changed, and when contexts come, change and go."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.opennebula.onegate import OneGate, Vm
from tests.opennebula.reporter import PUBLISHER, SHELLS, GuestRoot, shell_command
from tests.opennebula.reporter_scene import TOKEN, Scene, reporter_scene


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    """Each shell that a guest may have as /bin/sh."""
    return str(request.param)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """See reporter_scene."""
    with reporter_scene(tmp_path) as made:
        yield made


class TestTrouble:
    """OneGate away, unwilling or changed; contexts that come, change and go."""

    def test_an_outage_of_hours(self, scene: Scene) -> None:
        """A cloud that comes back would be met by all guests at once, or never again."""
        guest, gate = scene()
        gate.refusal = (500, "[one.vm.update] no database")
        guest.pass_time(3600)
        failed = [request.at_s for request in gate.asked("PUT") if request.status == 500]
        pauses = [later - earlier for earlier, later in pairwise(failed)]
        assert [round(pause, -1) for pause in pauses[:5]] == [60, 120, 240, 300, 300]
        assert max(pauses) <= 310
        assert "OneGate answers 500" in guest.status()
        gate.refusal = None
        guest.pass_time(310)
        assert gate.requests[-1].status == 200
        assert guest.status().startswith("reporting to ")
        assert len(guest.stop().splitlines()) == 3

    @pytest.mark.parametrize(("code", "said"), [(403, "forbids it (403)"), (404, "answers 404")])
    def test_a_refusal_is_told_and_not_hammered(self, scene: Scene, code: int, said: str) -> None:
        """A VM whose owner may not write would go on to cost the cloud five calls a minute."""
        guest, gate = scene()
        gate.refusal = (code, "")
        guest.pass_time(1000)
        assert said in guest.status() and 3 <= len(gate.asked("PUT")) <= 6

    def test_nobody_at_the_address(self, scene: Scene) -> None:
        """A cloud without OneGate would cost each guest a busy loop."""
        guest, gate = scene()
        gate.close()
        guest.pass_time(3600)
        assert re.fullmatch(r"no answer from http://\S+ \(curl: \d+\); trying.*300 s", guest.status())
        assert "curl: 7" in guest.stop()

    def test_a_new_token_is_taken_up_after_a_401(self, scene: Scene, shell: str) -> None:
        """A VM whose token was renewed would be silent until its next boot."""
        guest, gate = scene(shell)
        guest.pass_time(60)
        gate.vms[7].token = "bmV3"
        seen = len(gate.requests)
        guest.set_context(gate.endpoint, token="bmV3", VMPACK_REPORT_INTERVAL="60")
        os.utime(guest.context, (1, 1))  # no newer than what was read: only the 401 tells
        guest.pass_time(100)
        assert [request.status for request in gate.requests[seen:]][:2] == [401, 200]

    def test_a_new_address_is_taken_up_after_the_clock_was_set_back(self, scene: Scene) -> None:
        """A VM whose context seems older than what it read would ask an address that is gone for good."""
        guest, gate = scene()
        gate.refusal = (500, "")
        with OneGate(Vm(7, TOKEN), clock=guest.now_s) as other:
            guest.set_context(other.endpoint, VMPACK_REPORT_INTERVAL="60")
            os.utime(guest.context, (1, 1))
            guest.pass_time(200)
            assert len(other.asked("PUT")) >= 2

    def test_a_late_context_that_seems_old_is_taken_up(self, tmp_path: Path) -> None:
        """After the clock was set back a reporter without a context would never report."""
        guest = GuestRoot(tmp_path)
        guest.start()
        with OneGate(Vm(7, TOKEN), clock=guest.now_s) as gate:
            guest.set_context(gate.endpoint)
            os.utime(guest.context, (1, 1))
            guest.pass_time(60)
            assert len(gate.asked("PUT")) >= 1
            guest.stop()

    def test_a_wrong_token_backs_off(self, scene: Scene) -> None:
        """One VM with a bad token would fill the cloud's log."""
        guest, gate = scene()
        gate.vms[7].token = "other"
        guest.pass_time(3600)
        assert len(gate.requests) <= 18
        assert "does not accept the token" in guest.status()

    def test_a_new_context_is_taken_up_at_once(self, scene: Scene) -> None:
        """After `onevm updateconf` a VM would go on asking an address that is gone."""
        guest, gate = scene()
        gate.refusal = (500, "")
        guest.pass_time(300)
        with OneGate(Vm(8, "eA=="), clock=guest.now_s) as other:
            guest.set_context(other.endpoint, "eA==", 8, VMPACK_REPORT_INTERVAL="5")
            guest.pass_time(30)
            assert len(other.asked("PUT")) >= 4
            assert guest.status().endswith("at least every 5 s")

    def test_a_context_that_comes_late(self, tmp_path: Path) -> None:
        """A reporter that starts before the context is there would never report."""
        guest = GuestRoot(tmp_path)
        guest.start()
        guest.pass_time(120)
        assert "waiting for" in guest.status()
        with OneGate(Vm(7, TOKEN), clock=guest.now_s) as gate:
            guest.set_context(gate.endpoint)
            guest.pass_time(30)
            assert gate.requests[0].status == 200
        guest.stop()

    @pytest.mark.parametrize(
        "context",
        [
            {"token": 'x" url = "file:///etc/passwd'},
            {"token": "a b"},
            {"token": ""},
            {"endpoint": "file:///etc/passwd"},
            {"endpoint": "http://h/\\nx"},
            {"endpoint": "http://h/`id`"},
        ],
    )
    def test_an_odd_context_reaches_no_curl(self, tmp_path: Path, context: dict[str, str]) -> None:
        """A broken context would make curl, as root, read or write what the owner never meant."""
        guest = GuestRoot(tmp_path)
        guest.set_context(**{"endpoint": "http://127.0.0.1:1", **context})
        guest.start()
        guest.pass_time(60)
        assert "waiting for" in guest.status()
        guest.stop()

    def test_an_answer_without_end_fills_nothing(self, scene: Scene) -> None:
        """A broken proxy in front of OneGate would fill the guest's memory."""
        guest, gate = scene()
        gate.vms[7].template["HUGE"] = "x" * 5_000_000
        guest.pass_time(200)
        assert len(gate.asked("GET")) >= 1
        assert len(gate.asked("PUT")) >= 4
        assert sum(path.stat().st_size for path in guest.run.iterdir()) < 2_000_000

    def test_only_one_at_a_time(self, scene: Scene, shell: str) -> None:
        """Two loops would report against each other, twice as often."""
        guest, gate = scene(shell)
        second = subprocess.run(
            [*shell_command(shell), str(PUBLISHER), "--root", str(guest.root)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert second.returncode == 75
        assert "it runs already" in second.stderr
        guest.pass_time(60)
        assert len(gate.asked("PUT")) == 2

    def test_what_a_killed_one_left_is_no_hindrance(self, scene: Scene) -> None:
        """After an OOM kill the VM would never report again."""
        guest, gate = scene()
        assert guest.process is not None
        guest.process.kill()
        guest.process.wait()
        guest.start()
        guest.pass_time(30)
        guest.stop()
        assert len(gate.asked("PUT")) == 2
        assert guest.files() == set()
