"""The doctor: what it finds, how grave it is, what it tells to do."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.builders import unreadable
from tests.cli_samples import EVIL_NAME, guest, guest_plan, interval, status

from vmpack.cli import agent_access, doctor_checks
from vmpack.cli.doctor import show
from vmpack.cli.doctor_checks import Finding
from vmpack.cli.main import main
from vmpack.model.guest import GuestSnapshot, MemoryStats
from vmpack.model.host import HostSnapshot, Pressure
from vmpack.model.plan import GuestVerdict, Plan
from vmpack.units import MIB

NO_LIBVIRT = "qemu+unix:///system?socket=/nonexistent/libvirt-sock"
FRESH = MemoryStats(999.0, 220 * MIB, 150 * MIB)


def look(
    entry: GuestSnapshot, verdict: GuestVerdict = "hold", used_mib: int | None = 64
) -> tuple[HostSnapshot, Plan]:
    """A host with this one VM, and its plan."""
    sample = interval((entry,), (guest_plan(entry.name, verdict, used_mib),))
    return sample.snapshot, sample.plan


def only(findings: object) -> Finding:
    """The one finding."""
    (finding,) = tuple(findings)  # type: ignore[var-annotated, arg-type]
    return finding


def test_a_reporting_vm_is_well() -> None:
    """A healthy host must be told as healthy, or nobody reads the report."""
    finding = only(doctor_checks.guests(*look(replace(guest("web"), stats=FRESH, stats_period_s=5))))

    assert finding.level == "ok" and finding.todo == ""
    assert "150 MiB usable" in finding.text


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"stats": None, "stats_period_s": 5}, "virtio_balloon"),
        ({"stats": None, "stats_period_s": 0}, "agent"),
        ({"stats": replace(FRESH, sampled_s=10.0), "stats_period_s": 5}, "virtio_balloon"),
        ({"stats": None, "stats_fault": "usable is -1"}, "kernel"),
        ({"policy_faults": ("shares: 'many' is no number",)}, "vmpack policy"),
    ],
)
def test_a_silent_vm_is_warned_of(changes: dict[str, object], word: str) -> None:
    """A VM without statistics can never be packed; its owner must know what to look for."""
    finding = only(doctor_checks.guests(*look(replace(guest("web"), **changes))))  # type: ignore[arg-type]

    assert finding.level == "warn"
    assert word in finding.todo


def test_a_vm_that_is_left_alone_is_told_with_the_reason() -> None:
    """Huge pages are no fault, but the administrator must see why nothing is packed there."""
    entry = replace(guest("web"), exclusions=("huge_pages",))
    finding = only(doctor_checks.guests(*look(entry, "excluded", None)))

    assert finding.level == "ok"
    assert "huge pages" in finding.text


def test_a_missing_balloon_device_is_a_warning() -> None:
    """Unlike the other exclusions this one is mostly an oversight."""
    entry = replace(guest("web"), exclusions=("no_balloon_device",))

    assert only(doctor_checks.guests(*look(entry, "excluded", None))).level == "warn"


def test_a_hung_vm_is_a_failure() -> None:
    """A QEMU that does not answer is a broken service, packing or not."""
    sample = interval()
    snapshot = replace(sample.snapshot, unreadable=(unreadable("stuck"),))
    finding = only(doctor_checks.guests(snapshot, sample.plan))

    assert finding.level == "fail" and "stuck" in finding.subject


def test_packable_adds_up() -> None:
    """The share that could be lent is what decides about a purchase; it and the rest must be the whole."""
    guests = (guest("a"), guest("b"), guest("c"))
    plans = (guest_plan("a"), guest_plan("b", "excluded", None), guest_plan("c", "hold", None))
    sample = interval(guests, plans)
    text = doctor_checks.packable(sample.snapshot, sample.plan).text

    assert "128 MiB of the 768 MiB" in text and "(17 %)" in text
    assert "64 MiB used" in text and "64 MiB guest kernels, headroom and floors" in text
    assert "256 MiB left alone" in text and "256 MiB not known yet" in text


def test_packable_of_an_empty_host() -> None:
    """No VM, no division by zero."""
    sample = interval()

    assert doctor_checks.packable(sample.snapshot, sample.plan).level == "ok"


@pytest.mark.parametrize(
    ("changes", "levels"),
    [
        ({}, ["ok", "ok"]),
        ({"pressure": None}, ["warn", "ok"]),
        ({"pressure": Pressure(0.3, 0.1, 0, 0)}, ["warn", "ok"]),
        ({"swap_total_bytes": 100 * MIB, "swap_free_bytes": 99 * MIB}, ["ok", "ok"]),
        ({"swap_total_bytes": 100 * MIB, "swap_free_bytes": 50 * MIB}, ["ok", "warn"]),
    ],
)
def test_a_host_in_distress_is_warned_of(changes: dict[str, object], levels: list[str]) -> None:
    """Packing a host that already swaps would make it worse."""
    snapshot = replace(interval().snapshot, **changes)  # type: ignore[arg-type]

    assert [finding.level for finding in doctor_checks.machine(snapshot)] == levels


def test_agent_states_are_graded() -> None:
    """A hanging agent is a failure; a frozen or observing one is a choice that may have been forgotten."""
    well = status(interval())
    graded = {
        "well": [f.level for f in doctor_checks.agent(well, False)],
        "stale": [f.level for f in doctor_checks.agent(well, True)],
        "failing": [f.level for f in doctor_checks.agent(replace(well, last_error="x"), False)],
        "frozen": [f.level for f in doctor_checks.agent(replace(well, frozen=True), False)],
        "observing": [f.level for f in doctor_checks.agent(replace(well, observe_only=True), False)],
    }

    assert graded == {
        "well": ["ok"],
        "stale": ["fail"],
        "failing": ["fail"],
        "frozen": ["ok", "warn"],
        "observing": ["ok", "warn"],
    }


def test_directories_are_looked_at_and_not_made(tmp_path: Path) -> None:
    """The doctor changes nothing, not even a missing folder."""
    missing = tmp_path / "a" / "b"

    assert doctor_checks.directory("state directory", missing).level == "ok"
    assert not missing.exists()
    if os.geteuid() != 0:
        tmp_path.chmod(0o500)
        assert doctor_checks.directory("state directory", missing).level == "warn"
    assert doctor_checks.directory("state directory", Path("/proc/self/status/x")).level == "warn"


def test_without_libvirt_the_doctor_says_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a bare machine the report is the installation guide; it must come to its end and exit 1."""
    pytest.importorskip("libvirt", reason="the libvirt module itself is missing here")
    where = [
        "--run-dir",
        str(tmp_path / "run"),
        "--state-dir",
        str(tmp_path / "state"),
        "--connect",
        NO_LIBVIRT,
    ]

    assert main(["doctor", "--json", *where]) == 1
    report = json.loads(capsys.readouterr().out)
    found = {entry["subject"]: entry for entry in report["findings"]}

    assert report["level"] == "fail"
    assert found["libvirt"]["level"] == "fail" and found["libvirt"]["todo"]
    assert found["agent"]["level"] == "warn" and "start" in found["agent"]["todo"]
    assert found["python"]["level"] == "ok"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "judged"), [((), "test:///default"), (("--connect", NO_LIBVIRT), NO_LIBVIRT)]
)
def test_the_agents_own_libvirt_is_judged(
    options: tuple[str, ...],
    judged: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Beside an agent that is well on another libvirt, a failure of the usual one is a false alarm."""
    pytest.importorskip("libvirt", reason="the libvirt module itself is missing here")
    answer = replace(status(interval()), uri="test:///default")
    monkeypatch.setattr(agent_access, "client", lambda args: SimpleNamespace(status=lambda: answer))
    monkeypatch.setattr("vmpack.config.default_files", lambda: ())

    main(["doctor", "--json", "--run-dir", str(tmp_path), *options])

    findings = json.loads(capsys.readouterr().out)["findings"]
    assert [judged in entry["text"] for entry in findings if entry["subject"] == "libvirt"] == [True]


def test_findings_are_safe_to_print(capsys: pytest.CaptureFixture[str]) -> None:
    """A VM's name appears in the report; it must not take over the terminal."""
    show(Finding(f"VM {EVIL_NAME}", "warn", EVIL_NAME, EVIL_NAME))
    text = capsys.readouterr().out

    assert "\x1b" not in text and "\u202e" not in text
    assert text.count("[bold]x[/bold]") == 3
