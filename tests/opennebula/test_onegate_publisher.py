"""The in-guest reporter against a double of OneGate, in every shell that guests have, hours in seconds."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.opennebula.onegate import OneGate, Vm, stored
from tests.opennebula.reporter import INIT, PUBLISHER, SHELLS, GuestRoot, shell_command
from tests.opennebula.reporter_scene import TOKEN, Scene, reporter_scene
from tests.waiting import eventually


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    """Each shell that a guest may have as /bin/sh."""
    return str(request.param)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """See reporter_scene."""
    with reporter_scene(tmp_path) as made:
        yield made


def gaps(gate: OneGate, method: str | None = None) -> list[float]:
    """Seconds between requests, as they arrived."""
    times = [request.at_s for request in gate.requests if method in (None, request.method)]
    return [later - earlier for earlier, later in pairwise(times)]


class TestReports:
    """What is sent, and when."""

    def test_a_report_is_what_onegate_takes(self, scene: Scene, shell: str) -> None:
        """The cloud would refuse every report, or show wrong figures."""
        _, gate = scene(shell)
        (request,) = gate.requests
        assert (request.method, request.path, request.status) == ("PUT", "/vm", 200)
        assert request.headers["content-type"] == "text/plain"
        values = stored(request.body)
        told_s = int(values.pop("TIMESTAMP"))
        assert abs(told_s - time.time()) < 3600
        assert values == {
            "MEM_TOTAL": "1000000",
            "MEM_FREE": "500000",
            "MEM_AVAILABLE": "600000",
            "SWAP_TOTAL": "10000",
            "SWAP_FREE": "5000",
            "PGMAJFAULT": "789",
            "OOM_KILLS": "2",
            "PSI_MEM_SOME_PERMILLE": "123",
            "PSI_MEM_FULL_PERMILLE": "0",
        }
        assert re.fullmatch(r"([A-Z_]+=[0-9]+\n)*[A-Z_]+=[0-9]+", request.body)

    @pytest.mark.parametrize(("shell", "interval"), [("dash", "5"), ("dash", "60"), ("busybox", "60")])
    def test_a_calm_guest_reports_once_a_period(self, scene: Scene, shell: str, interval: str) -> None:
        """The cloud would take a living guest's figures for stale, or be asked more often than needed."""
        guest, gate = scene(shell, interval)
        period_s = int(interval)
        guest.pass_time(8 * period_s)
        reports = gaps(gate, "PUT")
        assert len(reports) >= 7
        assert max(reports) <= period_s
        assert min(reports) >= period_s - 2
        assert min(gaps(gate)) >= period_s / 3

    def test_a_change_is_told_early_but_not_twice_in_a_window(self, scene: Scene) -> None:
        """A guest that fills up would wait a whole period, or a restless one would flood the cloud."""
        guest, gate = scene()
        guest.pass_time(130)
        before = len(gate.requests)
        guest.set_memory(available=540_000)
        guest.pass_time(20)
        assert [stored(request.body)["MEM_AVAILABLE"] for request in gate.asked("PUT")][-1] == "540000"
        for turn in range(15):
            guest.set_memory(available=540_000 - turn % 2 * 200_000)
            guest.pass_time(5)
        assert len(gate.requests) - before > 3
        assert min(gaps(gate)) >= 20

    def test_small_changes_wait(self, scene: Scene) -> None:
        """Every breath of a guest would be a write in the cloud's database."""
        guest, gate = scene()
        for turn in range(36):
            guest.set_memory(available=600_000 - turn % 2 * 49_000, free=100_000 + turn)
            guest.pass_time(5)
        assert len(gate.asked("PUT")) <= 5

    @pytest.mark.parametrize("interval", ["", "0", "4", "08", "3601", "99999", "-5", "5; reboot", "a"])
    def test_a_bad_period_is_the_default(self, scene: Scene, interval: str) -> None:
        """A typing mistake in a template would stop the reports, or flood the cloud."""
        guest, _ = scene(interval=interval)
        assert guest.status().endswith("at least every 60 s")

    def test_an_old_kernel_tells_what_it_has(self, tmp_path: Path) -> None:
        """Guests without pressure figures or MemAvailable would not report at all, or report wrong zeros."""
        guest = GuestRoot(tmp_path)
        (guest.proc / "pressure/memory").unlink()
        (guest.proc / "vmstat").unlink()
        (guest.proc / "meminfo").write_text("MemTotal: 1000 kB\nMemFree: 10 kB\n")
        with OneGate(Vm(7, TOKEN), clock=guest.now_s) as gate:
            guest.set_context(gate.endpoint, VMPACK_REPORT_INTERVAL="60")
            guest.start()
            guest.pass_time(130)
            guest.stop()
            for request in gate.asked("PUT"):
                assert set(stored(request.body)) == {"MEM_TOTAL", "MEM_FREE", "TIMESTAMP"}
            assert len(gate.asked("PUT")) == 3


class TestApplied:
    """What the cloud applies to the VM, for the guest's own tools."""

    def test_it_is_read_and_kept(self, scene: Scene, shell: str) -> None:
        """The guest's tools could not know how far the VM may be shrunk."""
        guest, gate = scene(shell)
        gate.vms[7].template |= {
            "VMPACK_APPLIED_FLOOR": "262144",
            "VMPACK_APPLIED_TARGET": "524288",
            "VMPACK_APPLIED_SHARES": "",
            "VMPACK_APPLIED_MEM_OVER": "12.5",
            "VMPACK_APPLIED_BAD": "1; reboot",
            "NOTE": 'x","VMPACK_APPLIED_FLOOR":"1","y',
            "OTHER": ',"VMPACK_APPLIED_TARGET":"2"',
        }
        guest.pass_time(60)
        assert guest.applied.read_text() == "VMPACK_APPLIED_FLOOR=262144\nVMPACK_APPLIED_TARGET=524288\n"
        assert guest.applied.stat().st_mode & 0o777 == 0o644

    def test_it_follows_the_cloud(self, scene: Scene) -> None:
        """A guest's tool would act on what was true an hour ago."""
        guest, gate = scene()
        gate.vms[7].template["VMPACK_APPLIED_FLOOR"] = "1"
        guest.pass_time(60)
        gate.vms[7].template["VMPACK_APPLIED_FLOOR"] = "2"
        guest.pass_time(660)
        assert guest.applied.read_text() == "VMPACK_APPLIED_FLOOR=2\n"
        del gate.vms[7].template["VMPACK_APPLIED_FLOOR"]
        guest.pass_time(660)
        assert guest.applied.read_text() == ""

    def test_asking_makes_no_report_late(self, scene: Scene) -> None:
        """The cloud would take a guest for silent because that guest asked something."""
        guest, gate = scene(interval="5")
        guest.pass_time(120)
        assert len(gate.asked("GET")) >= 2
        assert max(gaps(gate, "PUT")) <= 5
        assert len(gate.asked("GET")) <= 1 + len(gate.asked("PUT")) / 3

    def test_a_guest_that_is_always_late_asks_all_the_same(self, scene: Scene) -> None:
        """A guest on a busy host would never learn what applies to it: each time a report would be due."""
        guest, gate = scene(interval="5")
        for turn in range(40):
            guest.set_memory(available=600_000 - turn % 2 * 200_000)
            guest.pass_time(2)
        methods = "".join(request.method[0] for request in gate.requests)
        assert "G" in methods and "PPPPP" not in methods
        assert min(gaps(gate)) >= 5 / 3

    def test_a_cloud_that_forbids_to_ask_gets_reports(self, scene: Scene) -> None:
        """One permission less in OneGate's configuration would silence all guests."""
        guest, gate = scene()
        gate.vms[7].template["VMPACK_APPLIED_FLOOR"] = "1"
        serve = gate._serve
        gate._serve = lambda method, *rest: (403, "") if method == "GET" else serve(method, *rest)  # type: ignore[method-assign]
        guest.pass_time(700)
        assert len(gate.asked("PUT")) >= 11
        assert not guest.applied.exists()


class TestManners:
    """What a guest's owner would mind."""

    def test_it_ends_at_once_and_leaves_nothing(self, scene: Scene, shell: str) -> None:
        """A shutdown would wait for it, or its files would stay."""
        guest, _ = scene(shell)
        guest.pass_time(100)
        assert guest.files() <= {
            "run/vmpack",
            "run/vmpack/applied",
            *(f"run/vmpack/reporter.{name}" for name in ("pid", "status", "answer")),
        }
        guest.stop()
        assert guest.files() == set()

    def test_it_ends_at_once_in_a_request(self, scene: Scene, shell: str) -> None:
        """A OneGate that hangs would hold up the guest's shutdown."""
        guest, gate = scene(shell)
        gate.hold.clear()
        guest.allow(100)
        process = guest.process
        assert process is not None
        child = eventually("curl runs", lambda: _child_named(process.pid, "curl"))
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=15) == 0  # curl itself would wait 20 s
        eventually("curl has ended", lambda: not Path(f"/proc/{child}").exists())

    def test_the_token_is_seen_nowhere(self, scene: Scene, shell: str) -> None:
        """Any user of the guest could act in the cloud as the VM."""
        guest, gate = scene(shell)
        gate.hold.clear()
        guest.allow(100)
        process = guest.process
        assert process is not None
        child = eventually("curl runs", lambda: _child_named(process.pid, "curl"))
        for number in (process.pid, child):
            for name in ("cmdline", "environ"):
                assert TOKEN.encode() not in Path(f"/proc/{number}/{name}").read_bytes()
        gate.hold.set()
        for path in guest.run.iterdir():
            assert TOKEN not in path.read_text()
        assert TOKEN not in guest.stop()

    def test_a_dry_run_sends_nothing(self, tmp_path: Path, shell: str) -> None:
        """Who looks first would have reported by looking."""
        guest = GuestRoot(tmp_path, shell)
        guest.set_context("http://127.0.0.1:1")
        argv = [*shell_command(shell), str(PUBLISHER), "--dry-run", "--root", str(guest.root)]
        result = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        assert result.returncode == 0
        first, *report = result.stdout.splitlines()
        assert first == "# would: PUT http://127.0.0.1:1/vm as VM 7, on change and at least every 60 s"
        assert "MEM_AVAILABLE=600000" in report
        assert guest.files() == set()

    def test_help_teaches(self) -> None:
        """An owner could not find out what leaves the VM."""
        text = subprocess.run(["sh", PUBLISHER, "--help"], capture_output=True, text=True, check=True).stdout
        for word in ("VMPACK_REPORT_INTERVAL", "KiB", "/run/vmpack/applied", "--dry-run"):
            assert word in text

    @pytest.mark.parametrize("script", [PUBLISHER, INIT], ids=lambda path: path.name)
    def test_shellcheck_finds_nothing(self, script: Path) -> None:
        """A slip of the pen would only be seen in somebody's guest."""
        result = subprocess.run(["shellcheck", "-x", script], capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout
        assert len(script.read_text().splitlines()) <= 400


def _child_named(parent: int, name: str) -> int | None:
    """A child process with this command name."""
    for number in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        try:
            if Path(f"/proc/{number}/comm").read_text().strip() == name:
                return int(number)
        except OSError:
            continue  # it ended meanwhile
    return None
